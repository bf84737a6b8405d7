"""The sandboxes that live in this engine: born, found, extended, ended."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from grotte.engine.faults import ControlFault
from grotte.engine.host import Guest, HostError, Limits, SandboxHost, SandboxSpec
from grotte.engine.lifecycle.ids import new_sandbox_id
from grotte.engine.lifecycle.keys import new_access_token
from grotte.engine.lifecycle.sandbox import Order, Sandbox
from grotte.engine.lifecycle.store import REMEMBERED_TOKENS, SandboxRow, Store
from grotte.engine.processes.table import ProcessTable
from grotte.errors import GrotteException

log = logging.getLogger("grotte.engine")

#: How long a sandbox may take to die before the engine goes on without waiting, in seconds.
KILL_GRACE = 20.0


class Registry:
    """All sandboxes; one task ends those whose time is up, one task each waits for a sandbox's own death."""

    def __init__(self, host: SandboxHost, store: Store, limits: Limits, max_sandboxes: int) -> None:
        self._host = host
        self._store = store
        self._limits = limits
        self._max_sandboxes = max_sandboxes
        self._live: dict[str, Sandbox] = {}
        self._by_token: dict[bytes, Sandbox] = {}
        self._ended_tokens: dict[bytes, str] = {}
        self._pending = 0
        self._deadlines: list[tuple[float, int, Sandbox]] = []
        self._order = itertools.count()
        self._sooner = anyio.Event()
        self._tasks: TaskGroup

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Registry]:
        """Run the registry's tasks; on the way out every sandbox is killed."""
        if gone := self._store.recover():
            log.warning("event=recovered ended_sandboxes=%d", gone)
        for token, sandbox_id in self._store.ended_tokens():
            self._ended_tokens[_digest(token)] = sandbox_id
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._expire)
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self.kill_all()
                self._tasks.cancel_scope.cancel()

    # -- finding -------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Something lives here, or is about to."""
        return bool(self._live) or self._pending > 0

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
        """The sandbox whose access token this is; looked up by digest, so that no timing tells tokens apart."""
        return self._by_token.get(_digest(token))

    def ended_by_token(self, token: str) -> str | None:
        """The id of the sandbox that had this access token and ended not long ago."""
        return self._ended_tokens.get(_digest(token))

    def secured(self) -> list[Sandbox]:
        """Sandboxes that have an access token."""
        return list(self._by_token.values())

    # -- birth ---------------------------------------------------------------------------------------------------

    async def create(self, order: Order) -> Sandbox:
        """Start a sandbox.

        Raises:
            ControlFault: 429, there are too many; 500, the machine could not do it.
        """
        if len(self._live) + self._pending >= self._max_sandboxes:
            raise ControlFault(429, f"this engine runs at most {self._max_sandboxes} sandboxes at once")
        self._pending += 1
        try:
            return await self._launch(order)
        finally:
            self._pending -= 1

    async def _launch(self, order: Order) -> Sandbox:
        sandbox_id = new_sandbox_id()
        spec = SandboxSpec(
            sandbox_id=sandbox_id, layers=order.template.layers, hostname=sandbox_id, limits=self._limits
        )
        try:
            guest = await self._host.launch(spec)
        except HostError as error:
            log.error("event=launch_failed sandbox=%s reason=%s", sandbox_id, error)  # noqa: TRY400  (a reason, no bug)
            raise ControlFault(500, f"the sandbox could not be started: {error}") from None
        sandbox = self._adopt(sandbox_id, guest, order)
        try:
            self._store.add(_row(sandbox))
        except sqlite3.Error:
            await self.kill(sandbox)
            raise
        log.info("event=created sandbox=%s template=%s", sandbox_id, order.template.alias)
        return sandbox

    def _adopt(self, sandbox_id: str, guest: Guest, order: Order) -> Sandbox:
        now = time.time_ns() // 1000
        sandbox = Sandbox(
            sandbox_id=sandbox_id,
            owner=order.owner,
            template=order.template,
            guest=guest,
            processes=ProcessTable(guest, self._tasks),
            limits=self._limits,
            started_at=now,
            end_at=now + order.timeout * 1_000_000,
            deadline=anyio.current_time() + order.timeout,
            access_token=new_access_token() if order.secure else None,
            traffic_token=new_access_token() if order.private_traffic else None,
            internet=order.internet,
            metadata=order.metadata,
            envs=order.envs,
        )
        self._live[sandbox_id] = sandbox
        if sandbox.access_token:
            self._by_token[_digest(sandbox.access_token)] = sandbox
        self._tasks.start_soon(self._await_death, sandbox)
        self._watch_deadline(sandbox)
        return sandbox

    # -- time ----------------------------------------------------------------------------------------------------

    def set_end(self, sandbox: Sandbox, seconds: float) -> None:
        """Let the sandbox end in so many seconds from now, sooner or later than it would have."""
        sandbox.deadline = anyio.current_time() + seconds
        sandbox.end_at = time.time_ns() // 1000 + round(seconds * 1_000_000)
        self._store.set_end(sandbox.sandbox_id, sandbox.end_at)
        self._watch_deadline(sandbox)

    def extend(self, sandbox: Sandbox, seconds: float) -> None:
        """Let the sandbox live for so many seconds from now at least."""
        if anyio.current_time() + seconds > sandbox.deadline:
            self.set_end(sandbox, seconds)

    def _watch_deadline(self, sandbox: Sandbox) -> None:
        heapq.heappush(self._deadlines, (sandbox.deadline, next(self._order), sandbox))
        if self._deadlines[0][2] is sandbox:
            self._sooner.set()

    async def _expire(self) -> None:
        while True:
            self._sooner = anyio.Event()
            now = anyio.current_time()
            while self._deadlines and self._deadlines[0][0] <= now:
                deadline, _, sandbox = heapq.heappop(self._deadlines)
                # An entry whose sandbox got another deadline is stale: that deadline has an entry of its own.
                if deadline == sandbox.deadline and sandbox.sandbox_id in self._live:
                    log.info("event=expired sandbox=%s", sandbox.sandbox_id)
                    self._tasks.start_soon(self.kill, sandbox)
            wait = self._deadlines[0][0] - now if self._deadlines else float("inf")
            with anyio.move_on_after(wait):
                await self._sooner.wait()

    # -- death ---------------------------------------------------------------------------------------------------

    async def kill(self, sandbox: Sandbox) -> bool:
        """End a sandbox; from the first moment on nobody finds it any more.

        Returns:
            False if it had ended already.
        """
        known = self._forget(sandbox)
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(KILL_GRACE):
                await sandbox.guest.kill()
        except (TimeoutError, GrotteException) as error:
            # What is left is removed at the engine's next start; nothing runs in it that anybody could reach.
            log.error("event=kill_incomplete sandbox=%s reason=%s", sandbox.sandbox_id, error)  # noqa: TRY400  (no bug)
        return known

    async def kill_all(self) -> None:
        """End all sandboxes, at once."""
        async with anyio.create_task_group() as tasks:
            for sandbox in list(self._live.values()):
                tasks.start_soon(self.kill, sandbox)

    async def _await_death(self, sandbox: Sandbox) -> None:
        await sandbox.guest.closed.wait()
        sandbox.processes.lose_all()
        if self._forget(sandbox):
            log.warning("event=died sandbox=%s", sandbox.sandbox_id)
            await self.kill(sandbox)

    def _forget(self, sandbox: Sandbox) -> bool:
        if self._live.pop(sandbox.sandbox_id, None) is None:
            return False
        if sandbox.access_token:
            digest = _digest(sandbox.access_token)
            self._by_token.pop(digest, None)
            self._ended_tokens[digest] = sandbox.sandbox_id
            while len(self._ended_tokens) > REMEMBERED_TOKENS:
                self._ended_tokens.pop(next(iter(self._ended_tokens)))
        try:
            self._store.end(sandbox.sandbox_id)
        except sqlite3.Error:
            # The next start takes it for ended anyway.
            log.exception("event=end_not_stored sandbox=%s", sandbox.sandbox_id)
        log.info("event=ended sandbox=%s", sandbox.sandbox_id)
        return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _row(sandbox: Sandbox) -> SandboxRow:
    return SandboxRow(
        id=sandbox.sandbox_id,
        owner=sandbox.owner,
        template=sandbox.template.template_id,
        started_at=sandbox.started_at,
        end_at=sandbox.end_at,
        access_token=sandbox.access_token,
        traffic_token=sandbox.traffic_token,
        metadata=sandbox.metadata,
        envs=sandbox.envs,
    )
