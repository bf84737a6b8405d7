"""How the calls of a scenario are made, on an event loop and on threads.

The cost of the loops themselves is in the numbers of every client alike: a task (or thread) per request in flight,
two clock readings a request.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio

from benchmarks.samples import percentile
from benchmarks.transport.job import Outcome

Call = Callable[[int], Awaitable[None]]
SyncCall = Callable[[int], None]
#: Then the client does not work here, and there is nothing to measure.
TOO_MANY_FAILURES = 50


def describe(error: BaseException) -> str:
    """What went wrong, in one line; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


class Tally:
    """What many workers do together: who makes which call, until when, and what came of it."""

    def __init__(self, count: int, seconds: float) -> None:
        self.times: list[float] = []
        self.failed = 0
        self.error: str | None = None
        self._numbers = itertools.count()
        self._count = count
        self._until = time.perf_counter() + seconds

    def take(self) -> int | None:
        """The number of the next call, or None when enough were made."""
        number = next(self._numbers)
        if number >= self._count or self.failed >= TOO_MANY_FAILURES or time.perf_counter() > self._until:
            return None
        return number

    def fail(self, error: Exception) -> None:
        """Note a call that failed."""
        self.failed += 1
        self.error = describe(error)

    def outcome(self, wall: float, cpu: float) -> Outcome:
        """Everything as a result."""
        done = Outcome(requests=len(self.times), failed=self.failed, error=self.error, wall=wall, cpu=cpu)
        if self.times:
            done.p50, done.p99 = percentile(self.times, 0.50), percentile(self.times, 0.99)
        return done


class Clock:
    """Wall time and CPU time of this process, from entering to leaving."""

    wall = 0.0
    cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu


async def drive(call: Call, *, workers: int, count: int, seconds: float) -> Outcome:
    """Make calls, `workers` at a time, until `count` were made or `seconds` have passed."""
    tally, clock = Tally(count, seconds), Clock()

    async def work() -> None:
        while (number := tally.take()) is not None:
            started = time.perf_counter()
            try:
                await call(number)
            except Exception as error:  # noqa: BLE001 - whatever a client raises is its failure, to be reported
                tally.fail(error)
            else:
                tally.times.append(time.perf_counter() - started)

    with clock.running():
        async with anyio.create_task_group() as tasks:
            for _ in range(workers):
                tasks.start_soon(work)
    return tally.outcome(clock.wall, clock.cpu)


def drive_threads(call: SyncCall, *, workers: int, count: int, seconds: float) -> Outcome:
    """The same, with threads."""
    tally, clock = Tally(count, seconds), Clock()

    def work() -> None:
        while (number := tally.take()) is not None:
            started = time.perf_counter()
            try:
                call(number)
            except Exception as error:  # noqa: BLE001 - as above
                tally.fail(error)
            else:
                tally.times.append(time.perf_counter() - started)

    if workers == 1:
        with clock.running():
            work()
        return tally.outcome(clock.wall, clock.cpu)
    threads = [threading.Thread(target=work) for _ in range(workers)]
    with clock.running():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tally.outcome(clock.wall, clock.cpu)
