"""The data plane: a request has come for a sandbox."""

from __future__ import annotations

import os

from grotte.engine.data import filesystem_service, process_service, watch_service
from grotte.engine.data.access import basic_user, check_file_access, check_token, cors, preflight
from grotte.engine.data.compose import PATH as COMPOSE
from grotte.engine.data.compose import Composition, compose, read_composition
from grotte.engine.data.downloads import send_file
from grotte.engine.data.filesystem_service import check_path
from grotte.engine.data.ports import serve_port
from grotte.engine.data.routing import INTERNAL_PATHS, find_port, find_sandbox, is_for_port, wake
from grotte.engine.data.rpc import Call, serve_rpc
from grotte.engine.data.uploads import receive_files
from grotte.engine.data.upstream import check_traffic
from grotte.engine.data.websockets import serve_websocket
from grotte.engine.faults import (
    Fault,
    ProxyFault,
    RpcFault,
    TextFault,
    plain_fault,
    sandbox_gone,
)
from grotte.engine.host import GuestError
from grotte.engine.http import Receive, Request, Scope, Send
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Sandbox

_METHODS = process_service.METHODS | filesystem_service.METHODS | watch_service.METHODS
#: The plain routes, and how they may be asked.
_PLAIN = {"/files": "GET, POST", COMPOSE: "POST", "/health": "GET", "/metrics": "GET", "/envs": "GET"}
_ROUTES = frozenset({*_METHODS, *_PLAIN})


class DataPlane:
    """Commands and files of the sandboxes of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def serve(self, request: Request) -> None:
        """Answer one request.

        Raises:
            Fault: it ends in an error; the caller sends it.
            ClientGone: the client left.
        """
        if is_for_port(request):
            request.route = "port"
            sandbox, port = find_port(request, self._registry)
            if sandbox.paused:
                check_traffic(request, sandbox)
                await wake(sandbox, self._registry)
            return await serve_port(request, sandbox, port)
        request.route = request.path if request.path in _ROUTES else "daemon"
        if (answer := preflight(request)) is not None:
            return await request.reply(204, headers=answer)
        found = find_sandbox(request, self._registry)
        if found is None:
            return await self._serve_unaddressed(request)
        sandbox, _ = found
        if request.path in INTERNAL_PATHS:
            raise ProxyFault(404, "not found", sandbox.sandbox_id)
        check_token(request, sandbox)
        if sandbox.paused:
            await wake(sandbox, self._registry)
        return await _serve_daemon(request, sandbox, self._registry)

    async def serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Join a WebSocket to a port of a sandbox."""
        await serve_websocket(scope, receive, send, self._registry)

    async def _serve_unaddressed(self, request: Request) -> None:
        """A request that names no sandbox, on an address that all sandboxes share."""
        if "x-access-token" in request.headers:
            raise Fault(401, "unauthorized access: no sandbox has this X-Access-Token")
        if (request.method, request.path) == ("GET", "/health"):
            return await request.reply(204, headers=[("cache-control", "no-store")])
        if "signature" in request.query:
            raise Fault(401, "invalid signature")
        raise TextFault(400, "missing header: name the sandbox by routing headers, by host, or by its access token")


async def _serve_daemon(request: Request, sandbox: Sandbox, registry: Registry) -> None:
    method = _METHODS.get(request.path)
    if method is not None:
        call = Call(request, sandbox, cors(request), sandbox.template.setup.user)
        return await serve_rpc(method, call, basic_user(request))
    match request.method, request.path:
        case "GET", "/health":
            return await request.reply(204, headers=[("cache-control", "no-store"), *cors(request)])
        case "GET" | "POST", "/files":
            return await _serve_files(request, sandbox)
        case "GET", "/envs":
            return await request.reply_json(200, sandbox.global_envs(), cors(request))
        case "GET", "/metrics":
            return await request.reply_json(200, await _metrics(sandbox, registry), cors(request))
        case "POST", "/files/compose":
            return await _serve_files(request, sandbox, await read_composition(request))
    if (allowed := _PLAIN.get(request.path)) is not None:
        raise Fault(405, "method not allowed", [("allow", allowed)])
    raise Fault(404, "not found")


async def _metrics(sandbox: Sandbox, registry: Registry) -> dict[str, float]:
    """What a sandbox uses, as its daemon would tell it."""
    sample = await registry.meter.now(sandbox)
    if sample is None:
        raise Fault(500, "this sandbox does not tell what it uses")
    return {
        "ts": int(sample.at),
        "cpu_count": sandbox.cpu_count,
        "cpu_used_pct": sample.cpu_percent,
        "mem_total": sandbox.limits.memory_bytes,
        "mem_used": sample.memory,
        "mem_cache": sample.cache,
        "mem_total_mib": sandbox.limits.memory_bytes >> 20,
        "mem_used_mib": sample.memory >> 20,
        "disk_used": sample.disk_used,
        "disk_total": sample.disk_total,
    }


async def _serve_files(request: Request, sandbox: Sandbox, wanted: Composition | None = None) -> None:
    check_file_access(request, sandbox)
    named = wanted.username if wanted else request.query.get("username")
    # A signature is for the user that it was made for: whoever has no more than that chooses none.
    signed = sandbox.access_token is not None and "x-access-token" not in request.headers
    basic = None if signed else basic_user(request)
    user = named or basic or sandbox.template.setup.user
    try:
        # A user that does not exist is refused wherever it is named, also where it has no say.
        for name in {user, basic or user}:
            await sandbox.guest.user(name)
        if wanted is not None:
            return await request.reply_json(200, await compose(wanted, sandbox.guest, user), cors(request))
        if request.method == "POST":
            written = await receive_files(request, sandbox.guest, user)
            return await request.reply_json(200, written, cors(request))
        return await _download(request, sandbox, user)
    except GuestError as error:
        if not sandbox.alive or (sandbox.paused and error.code == "unavailable"):
            raise sandbox_gone(sandbox.sandbox_id) from None
        raise plain_fault(error.code, error.message) from None


async def _download(request: Request, sandbox: Sandbox, user: str) -> None:
    path = request.query.get("path", "")
    try:
        check_path(path)
    except RpcFault as fault:
        raise plain_fault(fault.code, fault.message) from None
    file = await sandbox.guest.open_read(path, user)
    try:
        await send_file(request, file, cors(request))
    finally:
        os.close(file.fd)
