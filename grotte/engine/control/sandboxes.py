"""Create, find, extend and kill sandboxes."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import anyio
import msgspec

from grotte._proto import control
from grotte.engine.control.creation import check_timeout, read_flag, read_json, read_order
from grotte.engine.control.handover import Handover
from grotte.engine.control.listing import read_listing, read_metadata
from grotte.engine.control.network import change_network, read_update, shown
from grotte.engine.control.routes import Routes
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Order, Sandbox, rfc3339

#: The daemon whose behaviour this engine's data plane has.
ENVD_VERSION = "0.6.4"
CLIENT_ID = "local"
#: The longest body of a control call, in bytes.
MAX_BODY = 1024 * 1024
V1_TIMEOUT = 15
V2_TIMEOUT = 300
MIN_REFRESH = 15
MAX_REFRESH = 3600
MIB = 1024 * 1024
#: So many sandboxes are launched at once: more only make each other slower.
LAUNCHES = max(16, 8 * (os.cpu_count() or 1))


class _Detail(control.SandboxDetail, kw_only=True):
    """With what only some clients read."""

    pause_mode: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="pauseMode")


class Sandboxes:
    """The handlers behind ``/sandboxes`` and ``/v2/sandboxes``."""

    def __init__(self, registry: Registry, handover: Handover, *, max_timeout: int, domain: str | None) -> None:
        self._registry = registry
        self._handover = handover
        self._max_timeout = max_timeout
        self._domain = domain
        self._turns = anyio.Semaphore(LAUNCHES)

    def routes(self) -> Routes:
        return {
            "POST /sandboxes": self.create_v1,
            "GET /sandboxes": self.list_v1,
            "POST /v2/sandboxes": self.create_v2,
            "GET /v2/sandboxes": self.list_v2,
            "GET /sandboxes/{id}": self.get,
            "DELETE /sandboxes/{id}": self.kill,
            "POST /sandboxes/{id}/connect": self.connect_v1,
            "POST /v2/sandboxes/{id}/connect": self.connect_v2,
            "POST /sandboxes/{id}/pause": self.pause,
            "POST /sandboxes/{id}/resume": self.resume,
            "POST /sandboxes/{id}/timeout": self.set_timeout,
            "POST /sandboxes/{id}/refreshes": self.refresh,
            "PUT /sandboxes/{id}/network": self.set_network,
        }

    # -- create --------------------------------------------------------------------------------------------------

    async def create_v1(self, request: Request, owner: str) -> None:
        await self._create(request, owner, default_timeout=V1_TIMEOUT, always_secure=False)

    async def create_v2(self, request: Request, owner: str) -> None:
        await self._create(request, owner, default_timeout=V2_TIMEOUT, always_secure=True)

    async def _create(self, request: Request, owner: str, *, default_timeout: int, always_secure: bool) -> None:
        body = await request.body(MAX_BODY)
        fields = read_json(body)
        order = read_order(
            fields,
            owner,
            self._registry.templates,
            self._registry.volumes,
            default_timeout=default_timeout,
            max_timeout=self._max_timeout,
            always_secure=always_secure,
        )
        await self._handover.answer(request, owner, fields, partial(self._make, order))

    async def _make(self, order: Order, made: list[Sandbox]) -> bytes:
        """Create, and see it through: what is made must be known."""
        # a client that leaves while it waits for its turn leaves nothing that is to be ended
        async with self._turns:
            with anyio.CancelScope(shield=True):
                made.append(await self._registry.create(order))
        return self.describe(made[0])

    # -- find ----------------------------------------------------------------------------------------------------

    async def get(self, request: Request, owner: str, sandbox_id: str) -> None:
        sandbox = self._registry.owned(sandbox_id, owner)
        detail = _Detail(
            **_listed_fields(sandbox),
            envd_access_token=sandbox.access_token,
            allow_internet_access=sandbox.internet,
            domain=self._domain,
            network=shown(sandbox.network),
            lifecycle=_lifecycle(sandbox),
            pause_mode=("filesystem" if sandbox.life is None else "full") if sandbox.paused else msgspec.UNSET,
        )
        await request.reply_json(200, detail)

    async def list_v1(self, request: Request, owner: str) -> None:
        wanted = read_metadata(request.query.get("metadata"))
        matching = [s for s in self._registry.all_owned(owner) if not s.paused and wanted.items() <= s.metadata.items()]
        matching.sort(key=lambda sandbox: sandbox.started_at, reverse=True)
        await request.reply_json(200, [control.ListedSandbox(**_listed_fields(s)) for s in matching])

    async def list_v2(self, request: Request, owner: str) -> None:
        listing = read_listing({**request.query, "state": ",".join(filter(None, request.every("state")))})
        matching = [s for s in self._registry.all_owned(owner) if listing.matches(s)]
        page, token = listing.page(matching)
        running = sum(not sandbox.paused for sandbox in matching)
        headers = [("x-total-running", str(running))] if "running" in listing.states else []
        if token is not None:
            headers.append(("x-next-token", token))
        await request.reply_json(200, [control.ListedSandbox(**_listed_fields(s)) for s in page], headers)

    # -- live and die --------------------------------------------------------------------------------------------

    async def kill(self, request: Request, owner: str, sandbox_id: str) -> None:
        # a client that does not know which sandbox its request made, or whether it made one, names the request's key
        by_key = request.headers.get("idempotency-key") == sandbox_id
        if not (by_key and await self._handover.give_up(owner, sandbox_id)):
            await self._registry.kill(self._registry.owned(sandbox_id, owner))
        await request.reply(204)

    async def connect_v1(self, request: Request, owner: str, sandbox_id: str) -> None:
        await self._connect(request, owner, sandbox_id, default=None)

    async def connect_v2(self, request: Request, owner: str, sandbox_id: str) -> None:
        await self._connect(request, owner, sandbox_id, default=V2_TIMEOUT)

    async def _connect(self, request: Request, owner: str, sandbox_id: str, *, default: int | None) -> None:
        fields = read_json(await request.body(MAX_BODY), required=default is None)
        seconds = check_timeout(_integer(fields, "timeout", default), self._max_timeout)
        memory = read_flag(fields, "memory")
        sandbox = self._registry.owned(sandbox_id, owner)
        resumed = await self._registry.resume(sandbox, seconds, memory=memory is not False)
        if not resumed:
            self._registry.extend(sandbox, seconds)
        await request.reply(201 if resumed else 200, self.describe(sandbox))

    async def pause(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY), required=False)
        memory, healthy = read_flag(fields, "memory"), read_flag(fields, "requireHealthyGuest")
        sandbox = self._registry.owned(sandbox_id, owner)
        if healthy and not sandbox.paused and not await sandbox.answers() and not sandbox.paused:
            raise ControlFault(503, f"sandbox {sandbox_id} does not answer, so it was not paused")
        await self._registry.pause(sandbox, memory=memory is not False)
        await request.reply(204)

    async def resume(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY), required=False)
        seconds = check_timeout(_integer(fields, "timeout", V1_TIMEOUT), self._max_timeout)
        memory, pauses = read_flag(fields, "memory"), read_flag(fields, "autoPause")
        sandbox = self._registry.owned(sandbox_id, owner)
        if not await self._registry.resume(sandbox, seconds, memory=memory is not False):
            raise ControlFault(409, f"sandbox {sandbox_id} is already running")
        if pauses is not None:
            sandbox.auto_pause = pauses
            self._registry.remember(sandbox)
        await request.reply(201, self.describe(sandbox))

    async def set_timeout(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY))
        seconds = min(max(_integer(fields, "timeout", None), 0), self._max_timeout)
        self._registry.set_end(self._running(sandbox_id, owner), seconds)
        await request.reply(204)

    async def refresh(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY), required=False)
        seconds = _integer(fields, "duration", MIN_REFRESH)
        if not 0 <= seconds <= MAX_REFRESH:
            raise ControlFault(400, f"duration must be between 0 and {MAX_REFRESH} seconds")
        self._registry.extend(self._running(sandbox_id, owner), max(seconds, MIN_REFRESH))
        await request.reply(204)

    async def set_network(self, request: Request, owner: str, sandbox_id: str) -> None:
        update = read_update(read_json(await request.body(MAX_BODY)))  # none at all would open what is closed
        sandbox = self._registry.owned(sandbox_id, owner)
        if sandbox.paused:
            raise ControlFault(409, f"sandbox {sandbox_id} is paused")
        await change_network(sandbox, update, self._registry.names, self._registry.no_internet)
        sandbox.journal.add("info", "network changed", internet=str(sandbox.internet).lower())
        self._registry.remember(sandbox)
        await request.reply(204)

    def _running(self, sandbox_id: str, owner: str) -> Sandbox:
        sandbox = self._registry.owned(sandbox_id, owner)
        if sandbox.paused:
            raise ControlFault(404, f"sandbox {sandbox_id} is paused")
        return sandbox

    def describe(self, sandbox: Sandbox) -> bytes:
        """A sandbox as the answers of create, connect and resume have it."""
        return msgspec.json.encode(
            control.Sandbox(
                template_id=sandbox.template.template_id,
                sandbox_id=sandbox.sandbox_id,
                client_id=CLIENT_ID,
                envd_version=ENVD_VERSION,
                alias=_alias(sandbox),
                envd_access_token=sandbox.access_token,
                traffic_access_token=sandbox.traffic_token,
                domain=self._domain,
            )
        )


def _alias(sandbox: Sandbox) -> str | msgspec.UnsetType:
    """The name of its template, which a snapshot need not have."""
    template = sandbox.template
    return msgspec.UNSET if template.alias == template.template_id else template.alias


def _lifecycle(sandbox: Sandbox) -> control.Lifecycle:
    return control.Lifecycle(auto_resume=sandbox.auto_resume, on_timeout="pause" if sandbox.auto_pause else "kill")


def _listed_fields(sandbox: Sandbox) -> dict[str, Any]:
    """The fields that a list and a detail share."""
    return {
        "template_id": sandbox.template.template_id,
        "sandbox_id": sandbox.sandbox_id,
        "client_id": CLIENT_ID,
        "started_at": rfc3339(sandbox.started_at),
        "end_at": rfc3339(sandbox.end_at),
        "state": sandbox.state,
        "cpu_count": sandbox.cpu_count,
        "memory_mb": sandbox.limits.memory_bytes // MIB,
        "disk_size_mb": sandbox.limits.disk_bytes // MIB,
        "envd_version": ENVD_VERSION,
        "alias": _alias(sandbox),
        "metadata": sandbox.metadata,
        "volume_mounts": [control.VolumeMount(name=mount.name, path=mount.path) for mount in sandbox.mounts],
    }


def _integer(fields: dict[str, Any], name: str, default: int | None) -> int:
    value = fields.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool):
        raise ControlFault(400, f"{name} must be a whole number of seconds")
    return value
