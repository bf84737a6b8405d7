"""From an origin to a connected channel: name, TCP, proxy, TLS with ALPN."""

from __future__ import annotations

import contextlib
import socket
import ssl

from grotte._core import _aio
from grotte._core.http2.channel import Channel
from grotte._proto.http import Origin
from grotte._proto.proxy import Proxy, Tunnel, open_tunnel
from grotte._proto.tls import TlsPump
from grotte._proto.transport_errors import ConnectFailed

#: A peer that vanished is noticed by the kernel too, in ms, should nobody be waiting.
USER_TIMEOUT = 45_000


class NoHttp2(Exception):
    """The peer speaks HTTP/1.1 only; nothing was asked of it."""

    def __init__(self, forever: bool) -> None:
        super().__init__("the server speaks HTTP/1.1 only")
        #: ALPN said so, as opposed to silence.
        self.forever = forever


async def dial(
    origin: Origin, context: ssl.SSLContext | None, deadline: float | None, proxy: Proxy | None = None
) -> Channel:
    """Connect, through the proxy if there is one, and agree on HTTP/2 where TLS can.

    Raises:
        ConnectFailed: the name, TCP or TLS failed.
        TimeoutError: the deadline passed.
        NoHttp2: TLS is up, and the server chose HTTP/1.1.
    """
    tunnel = None if proxy is None else open_tunnel(proxy, origin)
    try:
        sock = await _connect(origin if proxy is None else proxy.origin, deadline)
    except OSError as error:  # socket.gaierror is one
        if is_deadline(error):
            raise
        whom = origin if proxy is None else f"the proxy {proxy}"
        raise ConnectFailed(f"cannot connect to {whom}: {error.strerror or error}") from error
    try:
        sock.getpeername()  # a connection that is reset by now has none
        if tunnel is not None:
            await _dig(sock, tunnel, deadline)
        tls = None if context is None else await _handshake(sock, context, origin, deadline)
    except OSError as error:
        sock.close()
        if is_deadline(error):
            raise
        raise ConnectFailed(f"cannot connect to {origin}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise
    return Channel(sock, tls)


async def _connect(origin: Origin, deadline: float | None) -> socket.socket:
    if origin.scheme == "unix":
        return await _aio.connect_unix(origin.host, deadline)
    sock = await _aio.connect_tcp(origin.host, origin.port, deadline)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
    return sock


async def _dig(sock: socket.socket, tunnel: Tunnel, deadline: float | None) -> None:
    """Talk to the proxy until its end of the connection is the origin."""
    channel = Channel(sock, None)
    while tunnel.wanted:
        sent = channel.send(tunnel.outgoing)
        await _aio.wait_socket(sock, not sent, deadline)
        with contextlib.suppress(BlockingIOError):
            data = sock.recv(tunnel.wanted)
            if not data:
                raise ConnectFailed("the proxy closed the connection")
            tunnel.receive(data)


async def _handshake(sock: socket.socket, context: ssl.SSLContext, origin: Origin, deadline: float | None) -> TlsPump:
    tls = TlsPump(context, origin.host)
    channel = Channel(sock, None)
    try:
        while True:
            try:
                done = tls.handshake()
            finally:
                sent = channel.send(tls.unsent)  # an alert, too, should reach the peer
            if done:
                break
            await _aio.wait_socket(sock, not sent, deadline)
            for data in channel.receive():
                tls.receive(data)
            if channel.ended:
                raise ConnectFailed(f"cannot set up TLS with {origin}: the server closed the connection")
    except OSError as error:  # ssl.SSLError and ssl.CertificateError are
        if is_deadline(error):
            raise
        raise ConnectFailed(f"cannot set up TLS with {origin}: {_tls_reason(error)}") from error
    if tls.protocol != "h2":
        raise NoHttp2(forever=True)
    return tls


def is_deadline(error: OSError) -> bool:
    """Our deadline, as opposed to the kernel's ETIMEDOUT, which Python gives the same class."""
    return isinstance(error, TimeoutError) and error.errno is None


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return error.strerror or str(error)
