"""From an origin to a connected channel: name, TCP, proxy, TLS with ALPN."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from grotte._core import _aio
from grotte._core.http2.channel import Channel
from grotte._proto.http import Origin
from grotte._proto.proxy import Proxy, Tunnel, open_tunnel
from grotte._proto.transport_errors import ConnectFailed

if TYPE_CHECKING:
    import ssl

    from grotte._proto.tls import TlsPump

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
        channel = Channel(sock, None)
        if proxy is not None and tunnel is not None:
            channel = await _dig(sock, context, proxy, tunnel, deadline)
        return channel if context is None else await _secure(channel, context, origin, deadline)
    except OSError as error:
        sock.close()
        if is_deadline(error):
            raise
        raise ConnectFailed(f"cannot connect to {origin}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise


async def _connect(origin: Origin, deadline: float | None) -> socket.socket:
    if origin.scheme == "unix":
        return await _aio.connect_unix(origin.host, deadline)
    sock = await _aio.connect_tcp(origin.host, origin.port, deadline)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
    return sock


async def _dig(
    sock: socket.socket, context: ssl.SSLContext | None, proxy: Proxy, tunnel: Tunnel, deadline: float | None
) -> Channel:
    """Talk to the proxy until its end of the connection is the origin."""
    tls = None
    if proxy.scheme == "https":
        assert context is not None  # only connections with TLS are asked for with CONNECT
        from grotte._proto.tls import FOR_PROXIES, TlsPump  # as below

        tls = TlsPump(context, proxy.host, FOR_PROXIES)
        await _shake_hands(sock, tls, f"the proxy {proxy}", deadline)
    channel = Channel(sock, tls)
    while tunnel.wanted:
        sent = channel.send(tunnel.outgoing)
        await _aio.wait_socket(sock, not sent, deadline)
        for piece in _hear(channel, tunnel.wanted):
            if not tunnel.wanted:
                raise ConnectFailed(f"the proxy {proxy} does not answer as a proxy does")
            tunnel.receive(piece)
        if channel.ended and tunnel.wanted:
            raise ConnectFailed("the proxy closed the connection")
    return channel


def _hear(channel: Channel, wanted: int) -> Iterator[bytes]:
    """What a proxy says: no more than is wanted, so that the origin's bytes stay, or, out of TLS, byte by byte.

    Nothing can follow there: a server with TLS does not speak first.
    """
    if channel.tls is not None:
        yield from (bytes([byte]) for byte in channel.receive())
        return
    with contextlib.suppress(BlockingIOError):
        data = channel.socket.recv(wanted)
        channel.ended = not data
        if data:
            yield data


async def _secure(channel: Channel, context: ssl.SSLContext, origin: Origin, deadline: float | None) -> Channel:
    """TLS with the origin, and HTTP/2."""
    from grotte._proto.tls import TlsPump, TunnelledTls  # here: the ssl module takes more memory than all of ours

    tls = TlsPump(context, origin.host) if channel.tls is None else TunnelledTls(context, origin.host, channel.tls)
    await _shake_hands(channel.socket, tls, str(origin), deadline)
    if tls.protocol != "h2":
        raise NoHttp2(forever=True)
    return Channel(channel.socket, tls)


async def _shake_hands(sock: socket.socket, tls: TlsPump, whom: str, deadline: float | None) -> None:
    channel = Channel(sock, None)
    try:
        while True:
            try:
                done = tls.handshake()
            finally:
                sent = channel.send(tls.unsent)  # an alert, too, should reach the peer
            if done:
                return
            await _aio.wait_socket(sock, not sent, deadline)
            tls.receive(channel.receive())
            if channel.ended:
                raise ConnectFailed(f"cannot set up TLS with {whom}: the peer closed the connection")
    except OSError as error:  # ssl.SSLError and ssl.CertificateError are
        if is_deadline(error):
            raise
        raise ConnectFailed(f"cannot set up TLS with {whom}: {_tls_reason(error)}") from error


def is_deadline(error: OSError) -> bool:
    """Our deadline, as opposed to the kernel's ETIMEDOUT, which Python gives the same class."""
    return isinstance(error, TimeoutError) and error.errno is None


def _tls_reason(error: OSError) -> str:
    reason = getattr(error, "verify_message", None)  # of an ssl.SSLCertVerificationError
    return str(reason or error.strerror or error)
