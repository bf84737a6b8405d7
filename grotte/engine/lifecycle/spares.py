"""Sandboxes that stand ready before anybody asked for them, so that a creation is a hand-over.

A spare is launched from the same specification as the sandboxes of the last creations, under the id that it will have
for good. There are none until somebody creates, few ever, and none again when nobody does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import anyio

from grotte.engine.host import Guest, GuestError, HostError, SandboxSpec
from grotte.engine.lifecycle.ids import new_sandbox_id
from grotte.engine.lifecycle.starting import Start

log = logging.getLogger("grotte.engine")

#: How long spares of one kind outlive the last creation of that kind, in seconds.
UNUSED = 60.0
#: How long they outlive the last sandbox of all, in seconds.
QUIET = 5.0
#: How many kinds are kept ready at once: those that were created last.
MAX_KINDS = 4
#: How long nothing is launched for spares after a launch failed, in seconds.
REST = 5.0
#: How long a spare may take to show that it lives, in seconds.
PROOF = 1.0


Launch = Callable[[SandboxSpec, Start | None], Awaitable[Guest]]
Shape = tuple[SandboxSpec, Start | None]


@dataclass(eq=False, slots=True)
class _Kind:
    """The spares of one specification.

    Attributes:
        start: What was started in them.
        wanted_at: When one of its kind was created last.
        coming: Set when the launch under way has come to its end; None if there is none.
        awaited: Somebody waits for that launch.
    """

    spec: SandboxSpec
    start: Start | None
    wanted_at: float
    ready: list[Guest] = field(default_factory=list)
    coming: anyio.Event | None = None
    awaited: bool = False


class Spares:
    """The spares of an engine.

    Args:
        launch: Launches one, and starts in it what is to be started there.
        count: How many of each kind stand ready; 0 for none at all.
        busy: Tells whether somebody waits for a creation: spares are launched when nobody does.
        in_use: Tells whether there are sandboxes.
    """

    def __init__(self, launch: Launch, count: int, busy: Callable[[], bool], in_use: Callable[[], bool]) -> None:
        self._launch = launch
        self._count = count
        self._busy = busy
        self._in_use = in_use
        self._kinds: dict[Shape, _Kind] = {}
        self._changed = anyio.Event()
        self._quiet_since: float | None = None
        self._rest_until = 0.0
        self._closed = False

    def __len__(self) -> int:
        return sum(len(kind.ready) for kind in self._kinds.values())

    async def take(self, spec: SandboxSpec, start: Start | None = None) -> Guest | None:
        """A spare that is as a sandbox of this specification would be, but for its id; None if there is none.

        Whatever the answer, there will be spares of this kind soon.
        """
        if self._count == 0 or self._closed:
            return None
        kind = self._kind_of(spec, start)
        if not kind.ready and kind.coming is not None and not kind.awaited:
            # One that is on its way is here sooner than one that would be launched now.
            kind.awaited = True
            try:
                await kind.coming.wait()
            finally:
                kind.awaited = False
        while kind.ready:
            guest = kind.ready.pop(0)
            if await self._lives(guest):
                return guest
        return None

    def _kind_of(self, spec: SandboxSpec, start: Start | None) -> _Kind:
        shape = replace(spec, sandbox_id="", hostname=""), start
        kind = self._kinds.pop(shape, None) or _Kind(*shape, 0.0)
        kind.wanted_at = anyio.current_time()
        self._kinds[shape] = kind  # last in order: wanted last
        self.look_again()
        return kind

    async def _lives(self, guest: Guest) -> bool:
        """Prove it: whoever is cancelled here leaves no spare behind that nobody has."""
        proven = False
        try:
            with anyio.move_on_after(PROOF):
                await guest.user("root")
                proven = True
        except GuestError:
            log.warning("event=spare_died sandbox=%s", guest.sandbox_id)
        finally:
            if not proven:
                await self._drop(guest)
        return proven

    def look_again(self) -> None:
        """Something that spares depend on has changed."""
        self._changed.set()

    # -- in the background -----------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Make and drop spares, for ever; to be run as a task."""
        while True:
            self._changed = anyio.Event()
            await self._drop_unneeded()
            kind = self._next()
            if kind is not None:
                await self._add(kind)
                continue
            with anyio.move_on_after(self._patience()):
                await self._changed.wait()

    def _next(self) -> _Kind | None:
        """The kind that one more should be launched of now."""
        if self._closed or self._busy() or anyio.current_time() < self._rest_until:
            return None
        lacking = [kind for kind in self._kinds.values() if len(kind.ready) < self._count]
        return lacking[-1] if lacking else None

    async def _add(self, kind: _Kind) -> None:
        sandbox_id = new_sandbox_id()
        kind.coming = anyio.Event()
        try:
            guest = await self._launch(replace(kind.spec, sandbox_id=sandbox_id, hostname=sandbox_id), kind.start)
        except (HostError, OSError) as error:  # nobody asked for it: not even a lost data directory is reported here
            log.warning("event=spare_failed reason=%s", error)
            self._rest_until = anyio.current_time() + REST
        else:
            if self._closed or kind not in self._kinds.values():
                await self._drop(guest)
                return
            kind.ready.append(guest)
            log.info("event=spare_ready sandbox=%s", sandbox_id)
        finally:
            kind.coming.set()
            kind.coming = None

    async def _drop_unneeded(self) -> None:
        now = anyio.current_time()
        if self._in_use() or self._busy():
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        quiet = self._quiet_since is not None and now - self._quiet_since >= QUIET
        unneeded = [shape for shape, kind in self._kinds.items() if quiet or now - kind.wanted_at >= UNUSED]
        unneeded += list(self._kinds)[:-MAX_KINDS]
        for kind in [kind for kind in (self._kinds.pop(shape, None) for shape in unneeded) if kind is not None]:
            await self._drop(*kind.ready)

    def _patience(self) -> float:
        """Seconds until something may have to be done although nothing changed."""
        if not self._kinds:
            return float("inf")
        now = anyio.current_time()
        times = [kind.wanted_at + UNUSED for kind in self._kinds.values()]
        if self._quiet_since is not None:
            times.append(self._quiet_since + QUIET)
        if self._rest_until > now:
            times.append(self._rest_until)
        return max(min(times) - now, 0.01)

    async def _drop(self, *guests: Guest) -> None:
        with anyio.CancelScope(shield=True):
            for guest in guests:
                try:
                    await guest.kill()
                except HostError as error:
                    log.error("event=spare_left sandbox=%s reason=%s", guest.sandbox_id, error)  # noqa: TRY400  (no bug)

    async def close(self) -> None:
        """End all spares, and make no more."""
        self._closed = True
        kinds, self._kinds = self._kinds, {}
        async with anyio.create_task_group() as tasks:
            for kind in kinds.values():
                guests, kind.ready = kind.ready, []
                for guest in guests:
                    tasks.start_soon(self._drop, guest)
