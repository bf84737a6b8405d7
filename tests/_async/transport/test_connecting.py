"""Which address of a name is connected to (RFC 8305), and what closing does to requests under way."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from grotte._proto.transport_errors import ConnectionLost
from tests._async.transport.support import answer, assert_at_rest, get, soon


def listen(family: socket.AddressFamily, host: str, port: int = 0, backlog: int = 8) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        pytest.skip("there is no IPv6 here")
    return sock


@contextmanager
def deaf_listener() -> Iterator[int]:
    """A port of 127.0.0.1 where connection attempts are never answered: whoever listens has no room for more."""
    with ExitStack() as stack:
        port: int = stack.enter_context(listen(socket.AF_INET, "127.0.0.1", backlog=0)).getsockname()[1]
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


async def test_the_next_address_is_tried_while_one_does_not_answer() -> None:
    with deaf_listener() as port, listen(socket.AF_INET6, "::1", port):
        with await _aio.connect_tcp("any.localhost", port, soon()) as sock:
            assert sock.family == socket.AF_INET6


async def test_the_next_address_is_tried_at_once_where_nobody_listens() -> None:
    with listen(socket.AF_INET6, "::1") as listener:
        with await _aio.connect_tcp("localhost", listener.getsockname()[1], soon()) as sock:
            assert sock.family == socket.AF_INET6
    with pytest.raises(ConnectionRefusedError):
        await _aio.connect_tcp("localhost", 1, soon())


async def test_connecting_ends_at_its_deadline() -> None:
    with deaf_listener() as port:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                await _aio.connect_tcp(host, port, soon(0.05))


async def test_closing_ends_all_that_is_under_way(codec: str, origin: Origin) -> None:
    """Streams, calls, and those who wait for a slot."""
    ended: list[str] = []
    held: list[bytes] = []

    async def fetch(transport: AsyncTransport) -> None:
        with pytest.raises(ConnectionLost):
            await transport.fetch(get(origin, "/never"), deadline=soon())
        ended.append("fetch")

    async def read(transport: AsyncTransport) -> None:
        async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
            held.append(await anext(aiter(response)))
            with pytest.raises(ConnectionLost):
                await response.aread()
        ended.append("stream")

    async with AsyncTransport(TransportOptions(codec=codec, max_connections=1)) as transport:
        async with _aio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read, transport)
            while len(held) < 20:
                await _aio.sleep(0.001)
            for _ in range(100):
                nursery.start_soon(fetch, transport)
            while transport.counters.waiting < 20:
                await _aio.sleep(0.001)
            await transport.aclose()
        assert (ended.count("fetch"), ended.count("stream")) == (100, 20)
        await assert_at_rest(transport)


async def test_what_happens_is_logged_by_these_names(
    transport: AsyncTransport, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "grotte")
    assert await answer(transport, get(origin, "/goaway?signature=secret")) == b"hello"
    async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
        assert await anext(aiter(response)) == b"held"
    ours = [record for record in caplog.records if record.name.startswith("grotte")]
    assert {record.name for record in ours} == {"grotte.http2"}
    said = [record.getMessage().partition(" ")[0] for record in ours]
    assert {"connect", "goaway", "close", "cancel"} <= set(said)
    assert "secret" not in caplog.text
