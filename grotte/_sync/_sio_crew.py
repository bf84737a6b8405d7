"""What a fleet needs of the sync world besides `_sio`: threads that belong to a block, and end with it.

`grotte/_core/_aio_crew.py` has the same names for tasks. A part of `_sio`, which is where to import them from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias, TypeVar

logger = logging.getLogger("grotte.fleet")

#: How long a thread may take to begin, in seconds.
START_SECONDS = 0.2

T = TypeVar("T")
#: What a user's function returns; it has to be awaited in the async tree.
Eventually: TypeAlias = Annotated[T, "at once"]
#: Whether a function that is under way can be interrupted. Threads cannot.
INTERRUPTS = False


class Crew:
    """Runs functions on threads, which end when the block around them does: somebody has to tell them."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._guard = threading.Lock()
        self.failures: list[BaseException] = []

    def start_soon(self, function: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=self._run, args=(function, args), daemon=True, name="grotte-fleet")
        with self._guard:
            self._threads.add(thread)
        thread.start()

    def end(self) -> None:
        """Nothing to do: threads are not cancelled."""

    def interrupter(self) -> Callable[[], None]:
        """A function that leaves the block, and may be called from a signal handler of the thread that is in it."""

        def leave() -> None:
            raise SystemExit(128 + 15)  # SIGTERM's, as shells count

        return leave

    def join(self, grace: float) -> None:
        """Wait until all threads have ended, but not for ever."""
        until = time.monotonic() + grace
        while True:
            with self._guard:
                left = list(self._threads)
            if not left:
                return
            if left[0].ident is None:
                # Ctrl-C came while it was being started: it begins in a moment, or never
                self._forget_unless_begun(left[0])
                continue
            left[0].join(max(0.0, until - time.monotonic()))
            if left[0].is_alive():
                logger.warning("%d functions of the fleet do not end, and are left behind", len(left))
                return

    def _forget_unless_begun(self, thread: threading.Thread) -> None:
        time.sleep(START_SECONDS)
        if thread.ident is None:
            with self._guard:
                self._threads.discard(thread)

    def _run(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - raised again where the crew ends
            self.failures.append(error)
        finally:
            with self._guard:
                self._threads.discard(threading.current_thread())


@contextmanager
def open_crew(grace: float) -> Iterator[Crew]:
    """Functions beside a block, on threads; whoever ends the block tells them to end.

    Args:
        grace: How long to wait for threads that do not end, in seconds.
    """
    crew = Crew()
    try:
        yield crew
    finally:
        crew.join(grace)
    if crew.failures:
        raise crew.failures[0]
