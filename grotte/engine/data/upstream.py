"""A server inside a sandbox, reached over a connected socket: sent to and received from on the event loop."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio

from grotte.engine.faults import PORT_NOT_OPEN, ProxyFault, sandbox_gone
from grotte.engine.host import GuestError
from grotte.engine.http import Request
from grotte.engine.lifecycle.keys import same_secret
from grotte.engine.lifecycle.sandbox import Sandbox

RawHeaders = list[tuple[bytes, bytes]]

CHUNK = 256 * 1024
#: A server that was started a moment ago may not listen yet.
CONNECT_TRIES = 5
CONNECT_PAUSE = 0.05

TRAFFIC_TOKEN_HEADERS = ("e2b-traffic-access-token", "grotte-traffic-access-token")
#: What one connection says about itself, and what was said to the engine alone.
_NOT_PASSED = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding"}
    | {b"upgrade", b"expect", b"host", b"http2-settings"}
    | {f"{client}-sandbox-{what}".encode() for client in ("grotte", "e2b") for what in ("id", "port")}
    | {name.encode() for name in TRAFFIC_TOKEN_HEADERS}
)


class Upstream:
    """One connection to a port of a sandbox."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            OSError: the server closed the connection.
        """
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self) -> bytes:
        """What comes next; nothing at the end.

        Raises:
            OSError: the connection broke.
        """
        return await self._loop.sock_recv(self._sock, CHUNK)


@asynccontextmanager
async def open_port(sandbox: Sandbox, port: int) -> AsyncIterator[Upstream]:
    """Connect to a port of a sandbox.

    Raises:
        ProxyFault: 502, nothing listens there, or the sandbox is gone.
    """
    sock = await _connect(sandbox, port)
    try:
        yield Upstream(sock)
    finally:
        sock.close()


async def _connect(sandbox: Sandbox, port: int) -> socket.socket:
    for remaining in reversed(range(CONNECT_TRIES)):
        try:
            return await sandbox.guest.connect(port)
        except GuestError:
            if not sandbox.alive:
                raise sandbox_gone(sandbox.sandbox_id) from None
            if remaining:
                await anyio.sleep(CONNECT_PAUSE)
    raise ProxyFault(502, PORT_NOT_OPEN, sandbox.sandbox_id, port)


def check_traffic(request: Request, sandbox: Sandbox) -> None:
    """Let in who shows the sandbox's traffic token, if it has one.

    Raises:
        ProxyFault: 403, it is missing or wrong.
    """
    if sandbox.traffic_token is None:
        return
    given = [request.headers[name] for name in TRAFFIC_TOKEN_HEADERS if name in request.headers]
    if not any(same_secret(token, sandbox.traffic_token) for token in given):
        what = "invalid" if given else "missing"
        message = f"Sandbox is secured with traffic access token. {what} header '{TRAFFIC_TOKEN_HEADERS[0]}'"
        raise ProxyFault(403, message, sandbox.sandbox_id)


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers that go on to the other side; without ``host``."""
    headers = list(headers)
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    dropped = _NOT_PASSED | {name.strip().lower() for name in named.split(b",")}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def request_headers(request: Request, sandbox: Sandbox, port: int) -> RawHeaders:
    """The headers that the server in the sandbox sees, beginning with ``host``."""
    host = request.headers.get("host", "localhost")
    shown = re.sub(r"\$\{PORT\}", str(port), sandbox.network.mask_request_host or host)
    found = passed_on(request.raw_headers)
    cookies = [value for name, value in found if name == b"cookie"]
    if len(cookies) > 1:  # HTTP/2 may split them, HTTP/1.1 may not
        found = [(name, value) for name, value in found if name != b"cookie"] + [(b"cookie", b"; ".join(cookies))]
    forwarded = {b"x-forwarded-host": host.encode("latin-1"), b"x-forwarded-proto": request.scheme.encode("latin-1")}
    known = {name for name, _ in found}
    found += [(name, value) for name, value in forwarded.items() if name not in known]
    return [(b"host", shown.encode("latin-1")), *found]
