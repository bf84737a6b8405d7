"""Servers that mean harm: a clear error in bounded time and memory, and the next request works."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest

from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.http2 import frames
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    ProtocolViolation,
    StreamResetError,
    TransportError,
)
from tests._async.transport.support import answer, assert_at_rest, connections, get, post, soon
from tests.servers.certificates import Certificate
from tests.servers.hostile_server import OK, Attack, HostileServer, blocks, data, flood, headers, literal

BOMB = literal(b"x", b"y" * 4000, 0x40)
ATTACKS: dict[str, Attack] = {
    "an oversized frame": lambda stream: [data(stream, bytes(16_385))],
    "a frame that claims 16 MiB": lambda stream: [b"\xff\xff\xff\x00\x00" + stream.to_bytes(4)],
    "an oversized header list": lambda stream: blocks(stream, OK + literal(b"x", b"y" * 70_000)),
    "many small headers": lambda stream: [headers(stream, OK + literal(b"x", b"y") * 3_000)],
    "a compression bomb": lambda stream: [headers(stream, OK + BOMB + b"\xbe" * 12_000)],
    "CONTINUATIONs without end": lambda stream: flood(
        frames.frame(frames.CONTINUATION, 0, stream, literal(b"x", b"y")), headers(stream, OK, 0)
    ),
    "empty CONTINUATIONs without end": lambda stream: flood(
        frames.frame(frames.CONTINUATION, 0, stream), headers(stream, OK, 0)
    ),
    "a frame within a header block": lambda stream: [headers(stream, OK, 0), data(stream, b"x")],
    "the connection's window opened too far": lambda stream: [frames.window_update(0, 2**31 - 1)],
    "a window opened by nothing": lambda stream: [frames.window_update(0, 1)[:-4] + bytes(4)],
    "more data than the window": lambda stream: [headers(stream, OK), data(stream, bytes(16_384))],
    "HEADERS on stream 0": lambda stream: [headers(0, OK)],
    "DATA on stream 0": lambda stream: [data(0, b"x")],
    "a response that nobody asked for": lambda stream: [headers(stream + 2, OK)],
    "a push": lambda stream: [frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, stream, bytes(4) + OK)],
    "DATA after the end": lambda stream: [
        headers(stream, OK) + data(stream, b"x", frames.END_STREAM) + data(stream, b"x")
    ],
    "SETTINGS without end": lambda stream: flood(frames.settings({4: 65_535})),
    "PINGs without end": lambda stream: flood(frames.frame(frames.PING, 0, 0, bytes(8))),
    "empty DATA without end": lambda stream: flood(data(stream, b""), headers(stream, OK)),
    "informational answers without end": lambda stream: flood(headers(stream, literal(b":status", b"103"))),
    "unknown frames without end": lambda stream: flood(frames.frame(0xEE, 0, 0, b"x")),
    "noise": lambda stream: flood(bytes(range(256))),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack(codec: str, attack: str) -> None:
    options = TransportOptions(codec=codec, stream_window=10_000)
    with HostileServer(ATTACKS[attack]) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport:
            with pytest.raises(ProtocolViolation):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())
            assert transport.counters.bytes_received < 4 << 20
            assert await answer(transport, post(origin, "/", b"x")) == b"hello"
            assert transport.counters.retries == 0
            await assert_at_rest(transport)
        assert server.clients == 2


@pytest.mark.parametrize("code", [0, 8])
async def test_resets_without_end(codec: str, code: int) -> None:
    with HostileServer(lambda stream: flood(frames.rst_stream(stream, code))) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            with pytest.raises(TransportError):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())
            for _ in range(3):
                assert await answer(transport, get(origin)) == b"hello"
            assert transport.counters.bytes_received < 4 << 20
        assert server.clients == 2


async def test_a_body_that_is_longer_than_promised(codec: str) -> None:
    block = OK + literal(b"content-length", b"3")
    with HostileServer(lambda stream: [headers(stream, block), data(stream, b"four")]) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            with pytest.raises(TransportError, match="length"):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())


async def test_tls_that_is_cut_off(codec: str, certificate: Certificate) -> None:
    def whole(stream: int) -> Iterable[bytes]:
        return [headers(stream, OK) + data(stream, bytes(9000), frames.END_STREAM)]

    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    with HostileServer(whole, tls=certificate.server_context("h2"), cut=True) as server:
        origin = Origin("https", "localhost", server.port)
        async with AsyncTransport(options) as transport:
            with pytest.raises(ConnectionLost):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())
            assert await answer(transport, post(origin, "/", b"x")) == b"hello"


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x03\x00\x7a\x02\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(5000)]
)
async def test_tls_that_never_comes_up(codec: str, certificate: Certificate, said: bytes) -> None:
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    with HostileServer(lambda _: [], greeting=said) as server:
        origin = Origin("https", "localhost", server.port)
        async with AsyncTransport(options) as transport:
            with pytest.raises(ConnectFailed):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())


async def test_silence_where_tls_should_be(codec: str) -> None:
    options = TransportOptions(codec=codec, connect_timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = Origin("https", "localhost", listener.getsockname()[1])
        async with AsyncTransport(options) as transport:
            with pytest.raises(DeadlineExceeded) as caught:
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())
    assert caught.value.kind == "connect"
    assert not caught.value.processed


async def test_a_server_that_wants_http1_after_all(codec: str, certificate: Certificate) -> None:
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    context = certificate.server_context("h2", "http/1.1")
    with HostileServer(lambda stream: [frames.rst_stream(stream, 13)], tls=context) as server:
        async with AsyncTransport(options) as transport:
            origin = Origin("https", "a.grotte.localhost", server.port)
            for _ in range(2):
                request = Request("POST", origin, "/", body=b"x", coalesce="domain")
                assert await answer(transport, request) == b"old"
            assert transport.counters.retries == 1
        assert server.clients == 3  # one over HTTP/2, and one for each answer over HTTP/1.1


async def test_a_server_that_asks_for_calm(codec: str) -> None:
    """What it was asked is not asked again at once, and the next connection begins with half of the streams."""
    goaway = frames.frame(frames.GOAWAY, 0, 0, frames.TWO_UINT32.pack(1, 11))
    with HostileServer(lambda stream: [frames.rst_stream(stream, 11) + goaway]) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            with pytest.raises(StreamResetError) as caught:
                await transport.fetch(get(origin), deadline=soon())
            assert caught.value.error_code == 11
            assert transport.counters.retries == 0
            assert await answer(transport, get(origin)) == b"hello"
            (connection,) = connections(transport)
            assert connection.cap < 2**30
        assert server.clients == 2
