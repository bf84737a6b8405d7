"""The sandboxes that live in this engine: born, found, extended, ended."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import anyio
from anyio.abc import TaskGroup

from grotte.engine.faults import ControlFault
from grotte.engine.host import Guest, HostError, Limits, SandboxHost, SandboxSpec
from grotte.engine.journal import Journals
from grotte.engine.lifecycle.booting import Booting
from grotte.engine.lifecycle.deadlines import Deadlines
from grotte.engine.lifecycle.diskguard import DiskGuard
from grotte.engine.lifecycle.ids import new_sandbox_id
from grotte.engine.lifecycle.keys import new_access_token
from grotte.engine.lifecycle.lasting import lasting, once
from grotte.engine.lifecycle.metering import Meter
from grotte.engine.lifecycle.names import Names
from grotte.engine.lifecycle.pausing import Pausing
from grotte.engine.lifecycle.rows import from_row, row_of, settings_of
from grotte.engine.lifecycle.sandbox import Life, Order, Sandbox
from grotte.engine.lifecycle.spares import Spares
from grotte.engine.lifecycle.starting import start_of
from grotte.engine.lifecycle.store import SandboxRow, Store
from grotte.engine.lifecycle.templates import Template, Templates
from grotte.engine.lifecycle.tokens import Tokens
from grotte.engine.lifecycle.volumes import VolumeMount, Volumes, mounts_of
from grotte.errors import GrotteException

log = logging.getLogger("grotte.engine")

#: How long a sandbox may take to die before the engine goes on without waiting, in seconds.
KILL_GRACE = 20.0

#: How long a sandbox goes on that could not be paused because that could not be written down, in seconds.
PAUSE_AGAIN = 30.0


class Registry:
    """All sandboxes; one task ends those whose time is up, and each guest tells when it died by itself."""

    def __init__(
        self, host: SandboxHost, store: Store, limits: Limits, max_sandboxes: int, spares: int, guard: DiskGuard
    ) -> None:
        self._host = host
        self._store = store
        self._limits = limits
        self._max_sandboxes = max_sandboxes
        self._live: dict[str, Sandbox] = {}
        self._tokens = Tokens()
        self._pending = 0
        self._created = self._ended = 0
        self._held: list[Template] = []
        self._booting = Booting(host)
        self._spares = Spares(self._booting.launch, spares, lambda: self._pending > 0, lambda: self._running() > 0)
        self._pausing = Pausing(host, store, self._lives, self._spec, self._attach_again)
        self.guard = guard
        guard.paused, guard.told, guard.end = self._is_paused, self._disk_told, self._disk_end
        self.meter = Meter(host, guard, self._all_running)
        self.names = Names(self._all_running)
        self.journals = Journals()
        self.volumes = Volumes(store.database, host.volumes, self._mounts)
        self.templates = Templates(host, store, self._templates_in_use)
        self._deadlines = Deadlines(self._live)
        self._tasks: TaskGroup

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Registry]:
        """Run the registry's tasks; on the way out what runs is killed, and what is paused is put away.

        After an error nothing is killed: the next start finds all with their files, as after a kill of the engine.
        """
        for row in self._store.paused():
            await self._restore(row)
        self._tokens.remember(self._store.ended_tokens())
        await self.templates.collect()
        await self.volumes.sweep()
        async with anyio.create_task_group() as self._tasks:
            self._booting.tasks = self._tasks
            for work in (self._expire, self._spares.keep, self.meter.keep, self.guard.keep, self.names.keep):
                self._tasks.start_soon(lasting, work)
            try:
                yield self
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self.kill_all(keep=True)
                raise
            await self.kill_all()
            self._tasks.cancel_scope.cancel()

    # -- finding -------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Something is in memory here, or is about to be."""
        return self._pending > 0 or any(sandbox.life is not None for sandbox in self._live.values())

    def _running(self) -> int:
        return sum(not sandbox.paused for sandbox in self._live.values())

    def all(self) -> list[Sandbox]:
        """All sandboxes, of all owners."""
        return list(self._live.values())

    @property
    def spares(self) -> int:
        """How many sandboxes stand ready."""
        return len(self._spares)

    @property
    def counts(self) -> tuple[int, int]:
        """How many sandboxes were created here, and how many have ended."""
        return self._created, self._ended

    def _all_running(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._live.values() if not sandbox.paused]

    def _lives(self, sandbox: Sandbox) -> bool:
        return self._live.get(sandbox.sandbox_id) is sandbox and sandbox.alive

    @property
    def no_internet(self) -> str:
        """Why no sandbox here may reach anything, or nothing."""
        return self._host.no_internet

    def find(self, sandbox_id: str) -> Sandbox | None:
        sandbox = self._live.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.alive else None

    def owned(self, sandbox_id: str, owner: str) -> Sandbox:
        """The sandbox of this owner.

        Raises:
            ControlFault: 404, there is none, or it is another's.
        """
        sandbox = self.find(sandbox_id)
        if sandbox is None or sandbox.owner != owner:
            raise ControlFault(404, f"sandbox {sandbox_id} not found")
        return sandbox

    def all_owned(self, owner: str) -> list[Sandbox]:
        return [sandbox for sandbox in self._live.values() if sandbox.owner == owner and sandbox.alive]

    def by_token(self, token: str) -> Sandbox | None:
        """The sandbox whose access token this is."""
        return self._tokens.find(token)

    def ended_by_token(self, token: str) -> str | None:
        """The id of the sandbox that had this access token and ended not long ago."""
        return self._tokens.find_ended(token)

    def secured(self) -> list[Sandbox]:
        """Sandboxes that have an access token."""
        return self._tokens.all()

    # -- birth ---------------------------------------------------------------------------------------------------

    async def create(self, order: Order) -> Sandbox:
        """Start a sandbox.

        Raises:
            ControlFault: 429, there are too many; 500, the machine could not do it; 503, the disk is full.
        """
        self.guard.admit()
        with self._one_more(), self.holding(order.template), self.volumes.holding(order.mounts):
            return await self._launch(order)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._running() + self._pending >= self._max_sandboxes:
            raise ControlFault(429, f"this engine runs at most {self._max_sandboxes} sandboxes at once")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1
            self._spares.look_again()

    async def _launch(self, order: Order) -> Sandbox:
        sandbox_id, setup = new_sandbox_id(), order.template.setup
        spec = SandboxSpec(
            sandbox_id=sandbox_id,
            layers=order.template.layers,
            hostname=sandbox_id,
            limits=setup.limits(self._limits),
            on_host_usr=setup.on_host_usr,
            egress=None if self.no_internet else await self.names.resolved(order.network.egress),
            mounts=mounts_of(order.mounts),
        )
        start = start_of(setup, order.template.template_id)
        try:
            # A spare with volumes would keep them from being deleted.
            spare = None if spec.mounts else await self._spares.take(spec, start)
            guest = spare or await self._booting.launch(spec, start)
        except HostError as error:
            log.error("event=launch_failed sandbox=%s reason=%s", sandbox_id, error)  # noqa: TRY400  (a reason, no bug)
            raise ControlFault(500, f"the sandbox could not be started: {error}") from None
        sandbox = self._adopt(guest, order)
        try:
            self._store.add(row_of(sandbox))
        except sqlite3.Error:
            await self.kill(sandbox)
            raise
        self.templates.catalogue.spawned(sandbox.template.template_id)
        self._created += 1
        log.info("event=created sandbox=%s template=%s", sandbox.sandbox_id, order.template.alias)
        sandbox.journal.add("info", "sandbox created", template=order.template.alias)
        return sandbox

    def _adopt(self, guest: Guest, order: Order) -> Sandbox:
        now = time.time_ns() // 1000
        sandbox = Sandbox(
            sandbox_id=guest.sandbox_id,
            owner=order.owner,
            template=order.template,
            life=None,
            limits=order.template.setup.limits(self._limits),
            timeout=order.timeout,
            auto_pause=order.auto_pause,
            auto_pause_memory=order.auto_pause_memory,
            auto_resume=order.auto_resume,
            mounts=order.mounts,
            started_at=now,
            end_at=now + order.timeout * 1_000_000,
            deadline=anyio.current_time() + order.timeout,
            access_token=new_access_token() if order.secure else None,
            traffic_token=None if order.network.allow_public_traffic else new_access_token(),
            network=order.network,
            metadata=order.metadata,
            envs=order.envs,
        )
        self._enter(sandbox)
        self._attach(sandbox, guest)
        self._deadlines.watch(sandbox)
        return sandbox

    def _enter(self, sandbox: Sandbox) -> None:
        self._live[sandbox.sandbox_id] = sandbox
        self.journals.begin(sandbox.sandbox_id, sandbox.owner, sandbox.journal)
        self._tokens.enter(sandbox)

    def _attach(self, sandbox: Sandbox, guest: Guest) -> None:
        sandbox.life = Life(guest, self._booting.processes(guest))
        sandbox.life.processes.journal = sandbox.journal
        sandbox.watchers.clear()
        guest.when_closed(partial(self._guest_closed, sandbox, sandbox.life))

    def _attach_again(self, sandbox: Sandbox, guest: Guest) -> None:
        self._attach(sandbox, guest)
        if wanted := start_of(sandbox.template.setup, sandbox.template.template_id):
            self._tasks.start_soon(once, self._booting.again, guest, sandbox.processes, wanted)

    async def _restore(self, row: SandboxRow) -> None:
        """Take in a sandbox of an earlier engine, of which there are only files."""
        try:
            if not self._host.has_files(row.id):
                raise ControlFault(404, "its files are gone")
            sandbox = from_row(row, self.templates.stored(row.template, row.settings.build), self._limits)
        except ControlFault as fault:
            log.error("event=lost sandbox=%s reason=%s", row.id, fault.message)  # noqa: TRY400  (a reason, no bug)
            self._store.end(row.id)
            with suppress(HostError):  # the next start removes them
                await self._host.discard(row.id)
            return
        self._enter(sandbox)
        log.info("event=recovered sandbox=%s", row.id)
        sandbox.journal.add("info", "sandbox found again, paused, after a restart of the engine")

    def _spec(self, sandbox: Sandbox) -> SandboxSpec:
        """How a sandbox goes on from its files."""
        return SandboxSpec(
            sandbox_id=sandbox.sandbox_id,
            layers=sandbox.template.layers,
            hostname=sandbox.sandbox_id,
            limits=sandbox.limits,
            on_host_usr=sandbox.template.setup.on_host_usr,
            egress=None if self.no_internet else self.names.known(sandbox.network.egress),
            on_kept_files=True,
            mounts=mounts_of(sandbox.mounts),
        )

    def _mounts(self) -> list[VolumeMount]:
        return [mount for sandbox in self._live.values() for mount in sandbox.mounts]

    def _templates_in_use(self) -> list[Template]:
        return [*self._held, *(sandbox.template for sandbox in self._live.values())]

    @contextmanager
    def holding(self, template: Template) -> Iterator[None]:
        """Something is about to stand on a template, which must not go meanwhile."""
        self._held.append(template)
        try:
            yield
        finally:
            self._held.remove(template)

    # -- pause ---------------------------------------------------------------------------------------------------

    async def pause(self, sandbox: Sandbox, *, memory: bool = True) -> None:
        """Stop all that runs in a sandbox, until it is resumed; without its memory, processes end and files stay.

        Raises:
            ControlFault: 404, it has ended; 409, it is paused; 500, the machine could not.
        """
        await self._pausing.pause(sandbox, memory=memory)
        sandbox.journal.add("info", "sandbox paused", memory=str(memory).lower())
        self._spares.look_again()

    async def resume(self, sandbox: Sandbox, seconds: float, *, memory: bool = True) -> bool:
        """Let a paused sandbox go on, for so many seconds; False if it runs. Without its memory, it starts anew.

        Raises:
            ControlFault: 400, a name that is closed to it has no address; 404, it has ended; 429, too many run; 500,
                the machine could not do it.
        """
        if not sandbox.paused:
            return False
        with self._one_more():
            await self.names.resolved(sandbox.network.egress)  # for its specification, should it need one
            resumed = await self._pausing.resume(sandbox, lambda: self.set_end(sandbox, seconds), memory=memory)
        if resumed:
            sandbox.journal.add("info", "sandbox resumed")
        return resumed

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def snapshot(self, sandbox: Sandbox, name: str | None = None, *, hidden: bool = False) -> Template:
        """Make a template of the files of a sandbox, which goes on afterwards.

        Args:
            name: Its name among people; None for one without.
            hidden: It is for those who get it from here, and goes with the last sandbox that stands on it.

        Raises:
            ControlFault: 404, the sandbox has ended; 500, the machine could not; 503, the disk is full.
        """
        self.guard.admit()
        async with self._pausing.at_rest(sandbox):
            template = await self.templates.add(sandbox, name, hidden=hidden)
        sandbox.journal.add("info", "snapshot taken", template=template.template_id)
        return template

    # -- time ----------------------------------------------------------------------------------------------------

    def set_end(self, sandbox: Sandbox, seconds: float) -> None:
        """Let the sandbox end in so many seconds from now, sooner or later than it would have."""
        end_at = time.time_ns() // 1000 + round(seconds * 1_000_000)
        self._store.set_end(sandbox.sandbox_id, end_at)
        sandbox.timeout, sandbox.end_at, sandbox.deadline = seconds, end_at, anyio.current_time() + seconds
        self._deadlines.watch(sandbox)

    def extend(self, sandbox: Sandbox, seconds: float) -> None:
        """Let the sandbox live for so many seconds from now at least."""
        if anyio.current_time() + seconds > sandbox.deadline:
            self.set_end(sandbox, seconds)

    def remember(self, sandbox: Sandbox) -> None:
        """What the sandbox was told to be has changed."""
        self._store.set_settings(sandbox.sandbox_id, settings_of(sandbox))

    async def _expire(self) -> None:
        async for sandbox in self._deadlines.over():
            log.info("event=expired sandbox=%s", sandbox.sandbox_id)
            sandbox.journal.add("info", "time to live is over")
            self._tasks.start_soon(once, self._end_in_time, sandbox)

    async def _end_in_time(self, sandbox: Sandbox) -> None:
        """Its time is up: pause it if its owner wanted that and the machine can, or end it."""
        if sandbox.auto_pause:
            try:
                await self.pause(sandbox, memory=sandbox.auto_pause_memory)
            except ControlFault as fault:
                if fault.status in (404, 409):  # somebody else was faster
                    return
                log.error("event=pause_failed sandbox=%s reason=%s", sandbox.sandbox_id, fault)  # noqa: TRY400  (no bug)
            except sqlite3.Error as error:  # a full disk: it had better lose its time than its files
                log.error("event=pause_failed sandbox=%s reason=%s", sandbox.sandbox_id, error)  # noqa: TRY400  (no bug)
                sandbox.deadline = anyio.current_time() + PAUSE_AGAIN
                self._deadlines.watch(sandbox)
                return
            else:
                return
        await self.kill(sandbox)

    # -- death ---------------------------------------------------------------------------------------------------

    async def kill(self, sandbox: Sandbox) -> bool:
        """End a sandbox; from the first moment on nobody finds it any more.

        Returns:
            False if it had ended already.
        """
        known = self._forget(sandbox)
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(KILL_GRACE):
                async with sandbox.changing:
                    await self._remove(sandbox)
                await self.templates.collect()
        except (TimeoutError, GrotteException, sqlite3.Error) as error:
            # What is left is removed at the engine's next start; nothing runs in it that anybody could reach.
            log.error("event=kill_incomplete sandbox=%s reason=%s", sandbox.sandbox_id, error)  # noqa: TRY400  (no bug)
        return known

    async def _remove(self, sandbox: Sandbox) -> None:
        if sandbox.life is not None:
            await sandbox.life.guest.kill()
        else:
            await self._host.put_away(sandbox.sandbox_id)  # if it died while it was paused
            await self._host.discard(sandbox.sandbox_id)

    async def kill_all(self, *, keep: bool = False) -> None:
        """End all that runs, at once, and keep the files of what is paused; or of everything."""
        if self._host.lost.is_set():  # nothing runs, and the next start takes all of them for paused
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._spares.close)
            for sandbox in list(self._live.values()):
                tasks.start_soon(self._put_away if sandbox.paused or keep else self.kill, sandbox)

    async def _put_away(self, sandbox: Sandbox) -> None:
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(KILL_GRACE):
                await self._pausing.put_away(sandbox)
        except (TimeoutError, GrotteException) as error:
            log.error("event=put_away_incomplete sandbox=%s reason=%s", sandbox.sandbox_id, error)  # noqa: TRY400  (no bug)

    def _guest_closed(self, sandbox: Sandbox, life: Life) -> None:
        life.processes.lose_all()
        if sandbox.life is life and self._live.get(sandbox.sandbox_id) is sandbox:
            if sandbox.paused:
                sandbox.life = None
            self._tasks.start_soon(once, self._died, sandbox)

    async def _died(self, sandbox: Sandbox) -> None:
        """It ended without anybody's wish: that is its end, unless the launcher went and took it along."""
        async with sandbox.changing:
            if self._live.get(sandbox.sandbox_id) is not sandbox or sandbox.alive != sandbox.paused:
                return
            try:
                await self._host.put_away(sandbox.sandbox_id)  # if the launcher answers, it lives
            except HostError as error:
                log.warning("event=died_incomplete sandbox=%s reason=%s", sandbox.sandbox_id, error)
        if self._host.lost.is_set():
            return
        log.warning("event=died sandbox=%s paused=%d", sandbox.sandbox_id, sandbox.paused)
        if sandbox.paused:
            sandbox.journal.add("error", "sandbox lost its memory while it was paused; its files are kept")
        else:
            sandbox.journal.add("error", "sandbox died: its first process has ended")
            sandbox.life = None
            await self.kill(sandbox)

    def _is_paused(self, sandbox_id: str) -> bool:
        sandbox = self._live.get(sandbox_id)
        return sandbox is not None and sandbox.paused

    def _disk_told(self, sandbox_id: str, reason: str) -> None:
        if (sandbox := self._live.get(sandbox_id)) is not None:
            sandbox.journal.add("error", reason)

    async def _disk_end(self, sandbox_id: str) -> bool:
        sandbox = self._live.get(sandbox_id)
        return sandbox is not None and await self.kill(sandbox)

    def _forget(self, sandbox: Sandbox) -> bool:
        if self._live.pop(sandbox.sandbox_id, None) is None:
            return False
        self._tokens.leave(sandbox)
        self._ended += 1
        self._spares.look_again()
        try:
            self._store.end(sandbox.sandbox_id)
        except sqlite3.Error:
            # The next start takes it for ended anyway.
            log.exception("event=end_not_stored sandbox=%s", sandbox.sandbox_id)
        log.info("event=ended sandbox=%s", sandbox.sandbox_id)
        sandbox.journal.add("info", "sandbox ended")
        self.journals.end(sandbox.sandbox_id)
        return True
