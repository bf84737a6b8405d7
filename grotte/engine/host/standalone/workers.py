"""Threads for what may wait for a disk."""

from __future__ import annotations

import posix

from .lean import SIG_BLOCK, SIGCHLD, pthread_sigmask, start_new_thread
from .wire import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 4


class Workers:
    """Threads that do jobs; one is there from the start, because a full sandbox has no room for another thread.

    More come when they are needed: many sandboxes never have two jobs at a time, and each thread costs as much as
    a tenth of the time in which the guest starts.

    Args:
        prepare: What the first one does before all else.
        work: Does a job; it raises nothing.
    """

    def __init__(self, prepare: Callable[[], None], work: Callable[[Json], None]) -> None:
        self._work = work
        self._waiting: list[Json] = []
        self._open: set[int] = set()  # what has not been done, by identity: one operation of a set is one step
        self._bell = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_SEMAPHORE)
        self._count = 1
        start_new_thread(self._first, (prepare,))

    def put(self, job: Json) -> None:
        """Have a job done."""
        self._open.add(id(job))
        if len(self._open) > self._count < MOST:
            self._grow()
        self._waiting.append(job)
        posix.eventfd_write(self._bell, 1)

    def _grow(self) -> None:
        try:
            start_new_thread(self._serve, ())
        except RuntimeError:  # no room: the job waits for those that there are
            return
        self._count += 1

    def _first(self, prepare: Callable[[], None]) -> None:
        prepare()
        self._serve()

    def _serve(self) -> None:
        pthread_sigmask(SIG_BLOCK, (SIGCHLD,))  # the main thread's business: nobody else need wake up for it
        while True:
            posix.read(self._bell, 8)  # and not `eventfd_read`, which fails when a signal comes
            job = self._waiting.pop(0)
            self._work(job)
            self._open.discard(id(job))
