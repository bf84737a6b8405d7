"""How much sandboxes use, written down every few seconds."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.lowlevel

from grotte.engine.host import Guest, GuestError, SandboxHost, Usage

if TYPE_CHECKING:
    from grotte.engine.lifecycle.diskguard import DiskGuard
    from grotte.engine.lifecycle.sandbox import Sandbox

log = logging.getLogger("grotte.engine")

#: Seconds between two samples of a sandbox.
INTERVAL = 5.0
#: How many samples are kept of each: an hour.
KEPT = 720
#: A sample that is younger than so many seconds is as good as a new one.
FRESH = 1.0
#: A guest that adds its processes up itself has so many seconds for it.
PATIENCE = 2.0


class Sample(NamedTuple):
    """What a sandbox used at one moment; sizes in bytes.

    Attributes:
        at: Unix seconds.
        cpu_percent: Of all its processors together, since the sample before.
    """

    at: float
    cpu_percent: float
    memory: int
    cache: int
    disk_used: int
    disk_total: int


_WIDTH = len(Sample._fields)


class History:
    """The last samples of one sandbox, as numbers in a row: there are many sandboxes."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._cpu_before: tuple[Guest, float, float] | None = None

    def __iter__(self) -> Iterator[Sample]:
        for start in range(max(0, len(self._numbers) - KEPT * _WIDTH), len(self._numbers), _WIDTH):
            yield self._sample(start)

    @property
    def last(self) -> Sample | None:
        return self._sample(len(self._numbers) - _WIDTH) if self._numbers else None

    def _sample(self, start: int) -> Sample:
        at, percent, *sizes = self._numbers[start : start + _WIDTH]
        return Sample(at, percent, *map(int, sizes))

    def add(self, sample: Sample) -> None:
        """Write one down, and forget the oldest now and then."""
        self._numbers.extend(sample)
        if len(self._numbers) >= 2 * KEPT * _WIDTH:
            del self._numbers[: KEPT * _WIDTH]

    def cpu_percent(self, guest: Guest, cpu_seconds: float, cpus: float, began: float) -> float:
        """The share of its processors that a sandbox has used since the last time, or since it began."""
        now = time.monotonic()
        before, self._cpu_before = self._cpu_before, (guest, now, cpu_seconds)
        if before is not None and before[0] is guest:
            seconds, used = now - before[1], cpu_seconds - before[2]
        else:
            seconds, used = time.time() - began, cpu_seconds
        return round(min(max(used / max(seconds, 0.01) / cpus * 100, 0.0), 100.0), 2)


class Meter:
    """Takes the samples.

    Args:
        guard: Knows what they hold of the disk.
        running: The sandboxes that run.
    """

    def __init__(self, host: SandboxHost, guard: DiskGuard, running: Callable[[], list[Sandbox]]) -> None:
        self._host = host
        self._guard = guard
        self._running = running

    async def keep(self) -> None:
        """Sample all that runs, every few seconds, for ever."""
        while True:
            await anyio.sleep(INTERVAL)
            await self._sample_all()

    async def _sample_all(self) -> None:
        for sandbox in self._running():
            await anyio.lowlevel.checkpoint()  # many sandboxes are no reason to let requests wait
            await self._sample(sandbox)

    async def now(self, sandbox: Sandbox) -> Sample | None:
        """What a sandbox uses; if it is paused, what it used last."""
        last = sandbox.history.last
        if last is None or time.time() - last.at > FRESH:
            await self._sample(sandbox, fresh=True)
        return sandbox.history.last

    async def _sample(self, sandbox: Sandbox, *, fresh: bool = False) -> None:
        life = sandbox.life
        if life is None or sandbox.paused:
            return
        try:
            with anyio.move_on_after(PATIENCE):
                usage = await self._host.usage(life.guest)
                disk = await self._guard.used(life.guest, fresh=fresh)
                self._write_down(sandbox, life.guest, usage, disk)
        except GuestError as error:
            log.debug("event=not_sampled sandbox=%s reason=%s", sandbox.sandbox_id, error)

    def _write_down(self, sandbox: Sandbox, guest: Guest, usage: Usage, disk: tuple[int, int]) -> None:
        began = sandbox.started_at / 1_000_000
        percent = sandbox.history.cpu_percent(guest, usage.cpu_seconds, sandbox.limits.cpus, began)
        sandbox.history.add(Sample(time.time(), percent, usage.memory, usage.cache, *disk))
