"""A server inside a sandbox, reached over a connected socket: sent to and received from on the event loop."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio

from grotte.engine.data.upstream_tls import CHUNK, Stream, TlsStream
from grotte.engine.faults import PORT_NOT_OPEN, ProxyFault, sandbox_gone
from grotte.engine.host import GuestError
from grotte.engine.http import Request
from grotte.engine.lifecycle.keys import same_secret
from grotte.engine.lifecycle.sandbox import Sandbox

RawHeaders = list[tuple[bytes, bytes]]

#: A server that was started a moment ago may not listen yet.
CONNECT_TRIES = 5
CONNECT_PAUSE = 0.05
#: To all ports of a sandbox at a time. A server that does not read holds them, and the engine's descriptors with them:
#: nobody can tell that a client has left before what it sent is read.
MAX_CONNECTIONS = 4096
_open: Counter[str] = Counter()
NOT_TLS = "The sandbox is running but its port does not answer in HTTPS"

_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
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
        await asyncio.sleep(0)  # what is there already would be taken at once, again and again
        return await self._loop.sock_recv(self._sock, CHUNK)


@asynccontextmanager
async def open_port(sandbox: Sandbox, port: int) -> AsyncIterator[Stream]:
    """Connect to a port of a sandbox, by TLS if its owner said that it speaks that.

    Raises:
        ProxyFault: 502, nothing listens there, or the sandbox is gone, or it does not speak TLS; 503, it has too many.
    """
    if _open[sandbox.sandbox_id] >= MAX_CONNECTIONS:
        raise ProxyFault(503, f"The sandbox has {MAX_CONNECTIONS} connections already", sandbox.sandbox_id, port)
    _open[sandbox.sandbox_id] += 1
    try:
        sock = await _connect(sandbox, port)
        try:
            stream = Upstream(sock)
            yield stream if port not in sandbox.network.https_ports else await _encrypted(stream, sandbox, port)
        finally:
            sock.close()
    finally:
        _open[sandbox.sandbox_id] -= 1
        if not _open[sandbox.sandbox_id]:
            del _open[sandbox.sandbox_id]


async def _encrypted(stream: Stream, sandbox: Sandbox, port: int) -> TlsStream:
    encrypted = TlsStream(stream)
    try:
        await encrypted.begin()
    except OSError:
        raise ProxyFault(502, NOT_TLS, sandbox.sandbox_id, port) from None
    return encrypted


async def _connect(sandbox: Sandbox, port: int) -> socket.socket:
    for remaining in reversed(range(CONNECT_TRIES)):
        try:
            return await sandbox.guest.connect(port)
        except GuestError:
            if not sandbox.alive or sandbox.paused:
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


def is_clean(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether headers can be sent on; what they must not hold some readers let through."""
    return not any(_CONTROLS.search(value) for _, value in headers)


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers that go on to the other side; without ``host``."""
    headers = list(headers)
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    dropped = _NOT_PASSED | {name.strip().lower() for name in named.split(b",")}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _is_token(field: tuple[bytes, bytes], sandbox: Sandbox) -> bool:
    """Whether a header shows the token of the sandbox itself, with which whoever gets it can be root there."""
    name, value = field
    return name == b"x-access-token" and same_secret(value.decode("latin-1"), sandbox.access_token or "")


def request_headers(request: Request, sandbox: Sandbox, port: int) -> RawHeaders:
    """The headers that the server in the sandbox sees, beginning with ``host``."""
    host = request.headers.get("host", "localhost")
    shown = re.sub(r"\$\{PORT\}", str(port), sandbox.network.mask_request_host or host)
    found = [field for field in passed_on(request.raw_headers) if not _is_token(field, sandbox)]
    cookies = [value for name, value in found if name == b"cookie"]
    if len(cookies) > 1:  # HTTP/2 may split them, HTTP/1.1 may not
        found = [(name, value) for name, value in found if name != b"cookie"] + [(b"cookie", b"; ".join(cookies))]
    forwarded = {b"x-forwarded-host": host.encode("latin-1"), b"x-forwarded-proto": request.scheme.encode("latin-1")}
    known = {name for name, _ in found}
    found += [(name, value) for name, value in forwarded.items() if name not in known]
    return [(b"host", shown.encode("latin-1")), *found]
