"""How a fleet makes its sandboxes, keeps them alive, and ends them: all that it says to the control plane."""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from grotte._budget import Slot, SlotNote
from grotte._core import _aio
from grotte._core.fleet.lease import AsyncLease
from grotte._core.sandbox import AsyncSandbox
from grotte._proto.fleet.verdicts import creation_failure
from grotte._proto.sandboxes import MAX_REFRESH
from grotte.config import ApiParams
from grotte.errors import GrotteException, SandboxException, SandboxNotFoundException, TimeoutException
from grotte.models import SandboxNetworkOpts, SandboxQuery

logger = logging.getLogger("grotte.fleet")

#: The metadata by which the sandboxes of a fleet, and each of them, are found.
FLEET_KEY = "grotte.fleet"
MARK_KEY = "grotte.mark"
#: How long it may take to kill one sandbox, in seconds.
KILL_SECONDS = 10.0
#: How long after it was asked for a sandbox may still come into being, in seconds.
CREATE_SECONDS = 60.0

#: Brings a sandbox into the state that its users expect.
Prepare: TypeAlias = Callable[[AsyncSandbox], _aio.Eventually[object]]


@dataclass(frozen=True, kw_only=True)
class SandboxKind:
    """What `AsyncSandbox.create` is called with.

    Attributes:
        sandboxes: The class: the package's own, or that of a client.
        timeout: How long a sandbox lives unless its life is extended, in seconds.
    """

    sandboxes: type[AsyncSandbox]
    template: str | None
    timeout: float
    metadata: Mapping[str, str]
    envs: Mapping[str, str] | None
    secure: bool
    allow_internet_access: bool
    network: SandboxNetworkOpts | None
    volume_mounts: Mapping[str, str] | None
    options: ApiParams = field(repr=False)


class AsyncRecipe:
    """Makes sandboxes of one kind."""

    def __init__(self, kind: SandboxKind, prepare: Prepare | None) -> None:
        self._kind = kind
        self._prepare = prepare
        self._numbers = itertools.count(1)
        self._snapshot: str | None = None
        self.fleet_id = secrets.token_hex(8)
        self._sandboxes = kind.sandboxes
        #: The options are checked here, before anything is started.
        self.api_url = kind.sandboxes._configured(kind.options).api_url  # noqa: SLF001 - as its own calls do

    async def copy(self, lease: AsyncLease) -> None:
        """Make all others from a snapshot of this one, which is prepared, if the server has snapshots."""
        try:
            snapshot = await lease.sandbox.create_snapshot()
        except SandboxException as error:
            if error.status_code != 501:
                raise
            logger.info("snapshots are not offered here: every sandbox is prepared by itself")
            return
        self._snapshot, self._prepare = snapshot.snapshot_id, None
        self._kind = replace(self._kind, template=snapshot.snapshot_id)

    async def forget(self) -> None:
        """Delete the snapshot, if there is one."""
        if self._snapshot is not None:
            await self._sandboxes.delete_snapshot(self._snapshot, **self._brief())

    @property
    def needs_preparing(self) -> bool:
        """Whether sandboxes are to be prepared, and are not yet."""
        return self._prepare is not None

    async def create(self, slot: Slot | None) -> AsyncSandbox:
        """Make one; if that fails in a way that leaves open whether there is one now, it is looked for and killed.

        The slot says which sandbox to look for, before there is any, and from then on.
        """
        note = self._note()
        if slot is not None:
            slot.write(note)
        try:
            sandbox = await self._create(note.mark)
        except Exception as error:
            if creation_failure(error) == "broken" and not await self._kill_marked(note.mark) and slot is not None:
                slot.abandon()
            raise
        if slot is not None:
            slot.write(replace_id(note, sandbox.sandbox_id))
        return sandbox

    async def _create(self, mark: str) -> AsyncSandbox:
        kind = self._kind
        sandbox = await kind.sandboxes.create(
            kind.template,
            kind.timeout,
            {**kind.metadata, FLEET_KEY: self.fleet_id, MARK_KEY: mark},
            kind.envs,
            kind.secure,
            kind.allow_internet_access,
            network=kind.network,
            volume_mounts=kind.volume_mounts,
            **kind.options,
        )
        if self._prepare is not None:
            try:
                await self._prepare(sandbox)
            except BaseException:
                await self.kill(sandbox)
                raise
        return sandbox

    async def kill(self, sandbox: AsyncSandbox) -> Exception | None:
        """End a sandbox, whatever happens to the caller meanwhile; why it could not be done, or None."""
        failure: Exception | None = TimeoutException(
            f"the sandbox could not be killed within {KILL_SECONDS:g} s", sandbox_id=sandbox.sandbox_id
        )
        with _aio.shield(KILL_SECONDS):
            try:
                await sandbox.kill(request_timeout=KILL_SECONDS)
                failure = None
                await sandbox._envd.aclose()  # noqa: SLF001 - as leaving the sandbox's own block does
            except GrotteException as refusal:
                failure = failure and refusal
        return failure

    async def refresh(self, lease: AsyncLease) -> None:
        """Give it its time anew."""
        if lease.slot is not None:
            lease.slot.write(replace_id(self._note(), lease.sandbox.sandbox_id))
        await lease.sandbox.refresh_ttl(min(self._kind.timeout, MAX_REFRESH), request_timeout=KILL_SECONDS)

    async def has_ended(self, note: SlotNote) -> bool:
        """See to it that the sandbox of a fleet that was killed is gone; False: not yet."""
        if note.api_url != self.api_url or not note.mark:
            return False
        try:
            if note.sandbox_id is not None:
                await self._sandboxes.kill(note.sandbox_id, **self._brief())
                return True
            found = await self._kill_all_marked(note.mark)
        except GrotteException:
            return False
        return found or time.time() > note.created + CREATE_SECONDS

    async def _kill_marked(self, mark: str) -> bool:
        """Whether it could be done."""
        with _aio.shield(KILL_SECONDS), contextlib.suppress(GrotteException):
            await self._kill_all_marked(mark)
            return True
        return False

    async def _kill_all_marked(self, mark: str) -> bool:
        found = False
        async for info in self._sandboxes.list(SandboxQuery(metadata={MARK_KEY: mark}), **self._brief()):
            with contextlib.suppress(SandboxNotFoundException):
                await self._sandboxes.kill(info.sandbox_id, **self._brief())
            found = True
        return found

    def _note(self) -> SlotNote:
        now = time.time()
        mark = f"{self.fleet_id}-{next(self._numbers)}"
        until = now + self._kind.timeout + CREATE_SECONDS
        return SlotNote(api_url=self.api_url, mark=mark, created=now, until=until)

    def _brief(self) -> ApiParams:
        """The options, with a time limit for clean-up."""
        return {**self._kind.options, "request_timeout": KILL_SECONDS}


def replace_id(note: SlotNote, sandbox_id: str) -> SlotNote:
    """The same once the sandbox is known."""
    return SlotNote(api_url=note.api_url, mark=note.mark, sandbox_id=sandbox_id, created=note.created, until=note.until)
