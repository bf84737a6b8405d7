"""What sandboxes hold of the disk that they share: measured, bounded, and never all of it.

One look at the whole disk costs a microsecond, so that comes often. Sandboxes are measured one after the other, at the
lowest priority, those that did nothing since the last time left out; soon after the disk lost much, and in turn while
nothing presses. Whoever holds more than it may has all its processes killed, and cannot write until files are removed.
If the disk runs low all the same, nothing new is taken in, and who still takes the most of it is stopped in the same
way; if that came too late to leave half of what is kept back, it ends, files and all.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio

from grotte.engine.faults import ControlFault
from grotte.engine.host import Guest, GuestError, HostError, SandboxHost
from grotte.engine.host.gauge import DiskUse, Held
from grotte.engine.host.spec import BYTES_PER_FILE, MIB, Limits

log = logging.getLogger("grotte.engine")

#: Seconds between two looks at the whole disk, while it takes little and while it takes much.
POLL, FAST_POLL = 0.25, 0.05
#: Seconds between two looks at one sandbox, and at any, while nothing presses.
INTERVAL, CALM = 5.0, 1.0
#: The share of one processor that measuring may take while nothing presses.
SHARE = 0.05
#: What may leave the disk before sandboxes are looked at, and before that cannot wait.
SOME, MUCH = DiskUse(MIB, 64), DiskUse(256 * MIB, 20_000)
#: What it loses between two looks when it is looked at more often.
FAST = DiskUse(MUCH.bytes // 8, MUCH.files // 8)
#: What a sandbox must have grown by to be what fills the disk.
GROWTH = DiskUse(8 * MIB, 500)
#: What is kept free: so much of the disk, at most these bytes, and these files.
PART, MOST_BYTES, MOST_FILES = 20, 256 * MIB, 10_000
#: How long killing all processes of a sandbox may take before the sandbox itself goes, in seconds.
PATIENCE = 5.0
#: A client that was refused may come again after so many seconds.
RETRY_AFTER = "5"
#: A measure that is younger, in seconds, is as good as a new one.
FRESH = 0.5
#: While the disk is low, or loses much, measuring takes a third of the time at most.
PAUSE = 2
NOTHING, UNBOUNDED = DiskUse(), DiskUse(1 << 62, 1 << 62)


@dataclass(slots=True)
class Seen:
    """What is known of a sandbox.

    Attributes:
        use: What it held at the last look.
        at: When that was; 0 for never.
        took: How long that look took, in seconds.
        cpu: What it had used of the processor by then, where that is counted.
        written: What the engine had written for it by then.
        before: What it held when the disk was last not low.
    """

    use: DiskUse = NOTHING
    at: float = 0.0
    took: float = 0.0
    cpu: float | None = None
    written: int = -1
    before: DiskUse = NOTHING


class DiskGuard:
    """Keeps the sandboxes of a host from filling its disk.

    Args:
        limits: What each of them may hold.
        reserve: Bytes that stay free, whatever they may hold; None for a part of the disk, 0 for none.

    Attributes:
        free: What the disk had left at the last look.
        seen: What is known of each sandbox, by id.
        stops: How many sandboxes were stopped.
        paused: Tells whether a sandbox is, and so cannot do what it is asked.
        told: Called with the id of a sandbox that may write no more, and the reason.
        end: Ends a sandbox; tells whether it knew it.
    """

    def __init__(self, host: SandboxHost, limits: Limits, reserve: int | None = None) -> None:
        self._host = host
        self._limit = DiskUse(limits.disk_bytes, limits.disk_files) if limits.disk_bytes else UNBOUNDED
        self._much = DiskUse(min(MUCH.bytes, self._limit.bytes // 4), min(MUCH.files, self._limit.files // 4))
        self._wanted = reserve
        self._reserve = NOTHING
        self.stops = 0
        self.paused: Callable[[str], bool] = lambda sandbox_id: False
        self.told: Callable[[str, str], None] = lambda sandbox_id, reason: None
        self.end: Callable[[str], Awaitable[bool]] | None = None
        self.free = self._look()
        self._baseline = self.free
        self.seen: dict[str, Seen] = {}
        self._volumes: dict[str, Seen] = {}
        self._held: dict[str, Held] = {}
        self._rest_until = self._short_rest_until = 0.0
        self._postponed = False
        self._measuring = anyio.Lock()
        if self.limit:
            host.room.limit = self.limit

    def _look(self) -> DiskUse:
        found = os.statvfs(self._host.data_dir)
        size = found.f_blocks * found.f_frsize
        least = min(size // PART, MOST_BYTES) if self._wanted is None else self._wanted
        self._reserve = DiskUse(least, 0 if self._wanted == 0 else min(found.f_files // PART, MOST_FILES))
        # Some file systems make inodes as they are needed, and say that there are none.
        return DiskUse(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else UNBOUNDED.files)

    # -- what others ask ---------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """How many bytes a sandbox may hold; 0 for any number."""
        return 0 if self._limit is UNBOUNDED else self._limit.bytes

    def admit(self) -> None:
        """Let something begin that takes space.

        Raises:
            ControlFault: 503, too little is left.
        """
        if self._host.room.low:
            raise ControlFault(503, self._host.room.low, [("retry-after", RETRY_AFTER)], retry=True)

    async def used(self, guest: Guest, *, fresh: bool = False) -> tuple[int, int]:
        """Bytes that a sandbox holds, and how many it may; of the whole disk where nobody set a limit.

        Args:
            guest: Which one.
            fresh: A look of some time ago will not do.
        """
        if own := self._host.own_disk(guest.sandbox_id):
            return own
        if not self.limit:
            found = os.statvfs(self._host.data_dir)
            return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_blocks * found.f_frsize
        if fresh or guest.sandbox_id not in self.seen:
            await self._look_again(guest)
        seen = self.seen.get(guest.sandbox_id)
        return (seen.use.bytes if seen else 0), self.limit

    async def _look_again(self, guest: Guest) -> None:
        seen = self.seen.get(guest.sandbox_id)
        if seen is None or time.monotonic() - seen.at > max(FRESH, seen.took / SHARE):
            await self._measure(guest)

    # -- in the background -------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Watch the disk, for ever; to be run as a task."""
        while True:
            await anyio.sleep(FAST_POLL if self._fast() or self._host.room.low else POLL)
            try:
                await self._turn(time.monotonic())
            except (GuestError, OSError) as error:
                log.warning("event=disk_not_measured reason=%s", error)

    def _fast(self) -> bool:
        """Whether the disk is losing much."""
        before = self.free
        with suppress(OSError):  # the data directory has gone: it is the turn that says so
            self.free = self._look()
        return (before - self.free).beyond(FAST)

    async def _turn(self, now: float) -> None:
        """Do what the disk's state asks for."""
        for sandbox_id in self.seen.keys() - {guest.sandbox_id for guest in self._host.guests}:
            del self.seen[sandbox_id]
        free = self._look()
        self._note_low(free)
        lost = self._baseline - free
        if self._host.room.low:
            if now < self._short_rest_until or not lost.beyond(NOTHING):
                return
            await self._round(self._active(now, 0.0))
            await self._stop_growing()
        elif lost.beyond(self._much):
            await self._round(self._active(now, 0.0))
        elif now >= self._rest_until and max(abs(lost.bytes) - SOME.bytes, abs(lost.files) - SOME.files) > 0:
            await self._round(self._active(now, INTERVAL))
        else:
            return
        if not self._postponed:
            self._baseline = free

    def _note_low(self, free: DiskUse) -> None:
        """Take note whether the disk is low; it stays so until there is a little more than what makes it so."""
        room, low = self._host.room, self._reserve.beyond(free)
        if low and not room.low:
            log.error("event=disk_low free_mib=%d free_files=%d", free.bytes // MIB, free.files)
            for seen in (*self.seen.values(), *self._volumes.values()):
                seen.before = seen.use
        if low:
            left, kept = (f"{use.bytes // MIB} MiB and {use.files} files" for use in (free, self._reserve))
            room.low = f"not enough disk space available: the engine's disk has {left} left, and keeps {kept} back"
        elif not DiskUse(self._reserve.bytes * 5 // 4, self._reserve.files * 5 // 4).beyond(free):
            room.low = ""

    def _active(self, now: float, interval: float) -> list[Guest]:
        """Sandboxes that may have written since they were measured, and not just now; the busiest first."""
        found, self._postponed = [], False
        for guest in self._host.guests:
            seen = self.seen.setdefault(guest.sandbox_id, Seen())
            if seen.at and now - seen.at < max(interval, PAUSE * seen.took):
                self._postponed = True
                continue
            cpu = self._host.cpu_seconds(guest.sandbox_id)
            if cpu is None or cpu != seen.cpu or guest.quota.written != seen.written:
                found.append((0.0 if cpu is None else cpu - (seen.cpu or 0.0), guest))
        return [guest for _, guest in sorted(found, key=lambda pair: -pair[0])]

    async def _round(self, guests: list[Guest]) -> None:
        began = time.monotonic()
        self._rest_until = began + CALM
        if not guests:
            return
        self._held = await self._host.gauge.removed_but_open()
        for guest in guests:
            await self._measure(guest)
        await self._measure_volumes(guests)
        took = time.monotonic() - began
        self._rest_until = began + max(CALM, took / SHARE)
        self._short_rest_until = began + took * (1 + PAUSE)

    async def _measure(self, guest: Guest) -> None:
        if not guest.closed.is_set():  # it lets go of this when it ends
            guest.quota.look_again = partial(self._look_again, guest)
        async with self._measuring:
            began = time.monotonic()
            seen = self.seen.setdefault(guest.sandbox_id, Seen())
            cpu, written = self._host.cpu_seconds(guest.sandbox_id), guest.quota.written
            use = await self._weigh(guest)
            if use is None:
                return
            if not seen.at and guest.quota.had_files:
                seen.before = use
            seen.use, seen.cpu, seen.written = use, cpu, written
            seen.at = time.monotonic()
            seen.took = seen.at - began
        await self._judge(guest, seen.use)

    async def _measure_volumes(self, guests: list[Guest]) -> None:
        """Look at the volumes of sandboxes that may have written to them: these have no limit of their own."""
        for volume in self._volumes.keys() - _volumes_of(self._host.guests):
            del self._volumes[volume]
        share = 1 / PAUSE if self._host.room.low else SHARE
        for volume in _volumes_of(guests):
            seen = self._volumes.setdefault(volume, Seen())
            began = time.monotonic()
            if seen.at and began - seen.at < seen.took / share:
                self._postponed = True
                continue
            try:
                use = await self._host.gauge.lying(f"volumes/{volume}", UNBOUNDED)
            except GuestError as error:
                if error.code != "out_of_range":
                    continue
                use = UNBOUNDED  # made so that nobody can tell: if the disk runs low, it is why
            seen.before = seen.before if seen.at else use
            seen.use, seen.at = use, time.monotonic()
            seen.took = seen.at - began

    async def _weigh(self, guest: Guest) -> DiskUse | None:
        """What a sandbox holds; None if it is gone, or is about to be."""
        if own := self._host.own_disk(guest.sandbox_id):
            return DiskUse(own[0], 0)
        try:
            lying = await self._host.gauge.lying(f"sandboxes/{guest.sandbox_id}", self._limit)
        except GuestError as error:
            if error.code != "out_of_range" or guest.closed.is_set():
                return None
            log.warning("event=unmeasurable sandbox=%s reason=%s", guest.sandbox_id, error)
            return self._limit + DiskUse(0, 1)
        return lying + self._held.get(guest.sandbox_id, Held()).use

    # -- consequences ------------------------------------------------------------------------------------------------

    async def _judge(self, guest: Guest, use: DiskUse) -> None:
        quota = guest.quota
        quota.left = max(0, self._limit.bytes - use.bytes)
        if use.beyond(self._limit):
            if not quota.full:
                more = use.bytes > self._limit.bytes
                most = f"{self._limit.bytes // MIB} MiB" if more else f"{self._limit.files} files"
                await self._stop(guest, f"disk limit: this sandbox holds more than {most}: remove some of it")
        elif quota.full and not self._host.room.low:
            quota.full = ""
            log.info("event=may_write_again sandbox=%s", guest.sandbox_id)

    async def _stop_growing(self) -> None:
        """Stop the sandbox that has taken the most of the disk since it is low; end it if it left too little."""
        if await self._stop_hiding():
            return
        guests = [guest for guest in self._host.guests if not guest.quota.full]
        grown = [(self._growth(guest), guest) for guest in guests]
        growth, guest = max(grown, key=lambda pair: sum(map(_weight, pair[0])), default=((NOTHING, NOTHING), None))
        own, of_volumes = growth
        if guest is None or not (own + of_volumes).beyond(GROWTH):
            return
        await self._stop(guest, f"disk full: this sandbox was taking the most; {self._host.room.low}")
        half = DiskUse(self._reserve.bytes // 2, self._reserve.files // 2)
        if own.beyond(GROWTH) and half.beyond(self._look()):
            self.told(guest.sandbox_id, "disk full: there is too little left to keep the files of this sandbox")
            await self._end(guest)

    def _growth(self, guest: Guest) -> tuple[DiskUse, DiskUse]:
        """By how much a sandbox and its volumes have grown since the disk is low."""
        seen = self.seen.get(guest.sandbox_id)
        own = NOTHING if seen is None or not seen.at else seen.use - seen.before
        volumes = [self._volumes[volume] for volume in guest.quota.volumes if volume in self._volumes]
        return own, sum((volume.use - volume.before for volume in volumes), NOTHING)

    async def _stop_hiding(self) -> bool:
        """Stop those of whom nobody can tell what they hold: others must not pay for them."""
        hiding = [guest for guest in self._host.guests if self._held.get(guest.sandbox_id, Held()).unseen]
        for guest in hiding:
            await self._stop(guest, f"disk full: what this sandbox holds cannot be measured; {self._host.room.low}")
        return bool(hiding)

    async def _stop(self, guest: Guest, reason: str) -> None:
        """Let nothing run in a sandbox that could write."""
        guest.quota.full = reason
        self.stops += 1
        log.warning("event=disk_stop sandbox=%s reason=%s", guest.sandbox_id, reason)
        self.told(guest.sandbox_id, reason)
        self._held.pop(guest.sandbox_id, None)
        try:
            with anyio.fail_after(PATIENCE):
                await guest.kill_all()
        except (TimeoutError, GuestError):
            if not self.paused(guest.sandbox_id):  # one that is does so before anything else when it goes on
                await self._end(guest)

    async def _end(self, guest: Guest) -> None:
        try:
            if self.end is None or not await self.end(guest.sandbox_id):
                await guest.kill()
        except HostError as error:
            log.error("event=disk_stop_failed sandbox=%s reason=%s", guest.sandbox_id, error)  # noqa: TRY400  (no bug)


def _volumes_of(guests: Iterable[Guest]) -> set[str]:
    return {volume for guest in guests for volume in guest.quota.volumes}


def _weight(use: DiskUse) -> int:
    return max(use.bytes, use.files * BYTES_PER_FILE)
