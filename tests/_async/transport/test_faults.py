"""What servers and networks do to requests, and what becomes of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from grotte._core import _aio
from grotte._core.http2.response import AsyncExchange, request_headers
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    StreamResetError,
    TransportError,
)
from tests._async.transport.support import answer, assert_at_rest, connections, get, post, soon
from tests.servers.http2_server import Http2Server


async def test_goaway_lets_what_is_under_way_finish(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    for _ in range(5):
        assert await answer(transport, get(origin, "/goaway")) == b"hello"
    assert len(server.connections) == 5
    assert len(server.seen) == 5
    assert transport.counters.retries == 0


async def test_streams_above_the_last_id_of_a_goaway_are_sent_again(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    bodies: list[bytes] = []

    async def one(target: str) -> None:
        bodies.append(await answer(transport, post(origin, target, b"x")))

    async with transport.stream(get(origin, "/bytes/2000000"), deadline=soon()) as download:
        chunks = aiter(download)
        size = len(await anext(chunks))
        async with _aio.open_nursery() as nursery:
            nursery.start_soon(one, "/goaway-before")
            for _ in range(20):
                nursery.start_soon(one, "/")
        async for chunk in chunks:  # the drained connection serves on
            size += len(chunk)
    assert size == 2_000_000
    assert bodies == [b"hello"] * 21
    assert transport.counters.retries >= 1
    assert len(server.seen) == 22  # nothing was acted on twice
    assert len(server.connections) == 2


async def test_refused_streams_are_sent_again(transport: AsyncTransport, origin: Origin, server: Http2Server) -> None:
    assert await answer(transport, post(origin, "/refuse-once", b"x")) == b"hello"
    assert transport.counters.retries == 1
    async with transport.stream(get(origin, "/refuse-once/b"), deadline=soon()) as response:
        assert await response.aread() == b"hello"


async def test_a_body_whose_pieces_are_gone_is_not_sent_again(transport: AsyncTransport, origin: Origin) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(StreamResetError) as caught:
        await transport.fetch(Request("POST", origin, "/refuse-once", body=pieces()), deadline=soon())
    assert not caught.value.processed
    assert caught.value.error_code == 7


@pytest.mark.parametrize("code", [0, 2, 8])
async def test_other_resets_are_reported(
    transport: AsyncTransport, origin: Origin, server: Http2Server, code: int
) -> None:
    for target in (f"/reset/{code}", f"/reset-midway/{code}"):
        with pytest.raises(StreamResetError) as caught:
            await transport.fetch(post(origin, target, b"x"), deadline=soon())
        assert caught.value.error_code == code
        assert caught.value.processed
    assert await answer(transport, get(origin)) == b"hello"
    assert len(server.seen) == 3
    assert len(server.connections) == 1
    await assert_at_rest(transport)


async def test_what_arrived_before_a_reset_is_delivered(transport: AsyncTransport, origin: Origin) -> None:
    received = []
    with pytest.raises(StreamResetError):
        async with transport.stream(get(origin, "/reset-midway/2"), deadline=soon()) as response:
            async for chunk in response:
                received.append(chunk)
    assert received == [b"part"]


async def test_an_answer_before_the_request_is_complete(transport: AsyncTransport, origin: Origin) -> None:
    """RST_STREAM(NO_ERROR) after a complete answer means: spare me the rest."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(30_000)

    for _ in range(3):
        response = await transport.fetch(Request("POST", origin, "/early", body=endless()), deadline=soon())
        assert response.content == b"early"
        response = await transport.fetch(post(origin, "/early-error", bytes(10_000_000)), deadline=soon())
        assert (response.status, response.content) == (413, b"too large")
    assert await answer(transport, get(origin)) == b"hello"
    assert len(connections(transport)) == 1


async def test_the_cap_falls_below_what_is_under_way(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    async with transport.stream(get(origin, "/hold"), deadline=soon()) as held:
        assert await anext(aiter(held)) == b"held"
        assert await answer(transport, get(origin, "/cap/1")) == b"hello"
        assert await answer(transport, get(origin)) == b"hello"
    for _ in range(3):
        assert await answer(transport, get(origin)) == b"hello"
    assert transport.counters.retries == 0
    await assert_at_rest(transport)


async def test_the_cap_falls_between_the_promise_of_a_slot_and_its_use(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    assert await answer(transport, get(origin)) == b"hello"
    (route,) = transport._pool._routes.values()
    promised = await route.acquire(soon(), held=False)
    async with transport.stream(get(origin, "/hold"), deadline=soon()) as held:
        assert await anext(aiter(held)) == b"held"
        assert await answer(transport, get(origin, "/cap/1")) == b"hello"
        late = get(origin)
        with pytest.raises(ConnectionLost) as caught:
            AsyncExchange(late, request_headers(late), transport.options).open(promised, eager=True)
        assert not caught.value.processed
    assert await answer(transport, get(origin)) == b"hello"
    await assert_at_rest(transport)


async def test_an_upload_that_the_server_never_reads(origin: Origin, codec: str) -> None:
    async with AsyncTransport(TransportOptions(codec=codec, write_timeout=0.2)) as transport:
        with pytest.raises(DeadlineExceeded) as caught:
            await transport.fetch(post(origin, "/zero-window", bytes(1_000_000)), deadline=soon())
        assert caught.value.kind == "write"
        with pytest.raises(DeadlineExceeded) as caught:
            await transport.fetch(post(origin, "/zero-window", bytes(1_000_000)), deadline=soon(0.1))
        assert caught.value.kind == "total"


async def test_windows_of_a_few_bytes(transport: AsyncTransport) -> None:
    with Http2Server(window=7) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        assert await answer(transport, post(origin, "/echo", b"a" * 500)) == b"a" * 500


async def test_one_byte_at_a_time(transport: AsyncTransport) -> None:
    with Http2Server(drip=True, read_size=1) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        assert await answer(transport, post(origin, "/count", bytes(300))) == b"300"
        assert await answer(transport, get(origin, "/bytes/300")) == bytes(300)


async def test_the_connection_closes_within_a_frame(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    with pytest.raises(ConnectionLost) as caught:
        await transport.fetch(post(origin, "/half", b"x"), deadline=soon())
    assert caught.value.processed
    assert len(server.seen) == 1
    assert await answer(transport, get(origin)) == b"hello"


async def test_only_what_may_be_repeated_is_repeated_when_the_connection_is_lost(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    assert await answer(transport, get(origin, "/close-once")) == b"hello"
    assert len(server.seen) == 2
    with pytest.raises(ConnectionLost) as caught:
        await transport.fetch(post(origin, "/close-once/b", b"x"), deadline=soon())
    assert caught.value.processed
    assert len(server.seen) == 3
    again = Request("POST", origin, "/close-once/c", body=b"x", idempotent=True)
    assert await answer(transport, again) == b"hello"
    with pytest.raises(ConnectionLost):
        await transport.fetch(get(origin, "/close"), deadline=soon())


async def test_all_streams_of_a_lost_connection_end(transport: AsyncTransport, origin: Origin) -> None:
    lost: list[TransportError] = []
    held: list[int] = []

    async def hold() -> None:
        try:
            async with transport.stream(post(origin, "/hold", b"x"), deadline=soon()) as response:
                await anext(aiter(response))
                held.append(1)
                await response.aread()
        except ConnectionLost as error:
            lost.append(error)

    async def cut() -> None:
        async with transport.stream(post(origin, "/hold", b"x"), deadline=soon()) as response:
            await anext(aiter(response))
            while len(held) < 20:
                await _aio.sleep(0.001)
            with pytest.raises(ConnectionLost):
                await transport.fetch(post(origin, "/close", b"x"), deadline=soon())

    async with _aio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hold)
        nursery.start_soon(cut)
    assert len(lost) == 20
    await assert_at_rest(transport)


async def test_a_silent_server_is_found_out(origin: Origin, codec: str) -> None:
    options = TransportOptions(codec=codec, ping_after=0.1, ping_timeout=1)
    async with AsyncTransport(options) as transport:
        with pytest.raises(ConnectionLost, match="silent"):
            await transport.fetch(post(origin, "/silent", b"x"), deadline=soon())
        assert await answer(transport, get(origin)) == b"hello"


async def test_a_slow_server_that_answers_pings_is_waited_for(origin: Origin, codec: str, server: Http2Server) -> None:
    options = TransportOptions(codec=codec, ping_after=0.05, ping_timeout=5)
    async with AsyncTransport(options) as transport:
        patience = soon()
        while server.pings < 2 and _aio.clock() < patience:
            with pytest.raises(DeadlineExceeded):
                await transport.fetch(get(origin, "/never"), deadline=soon(0.4))
    assert server.pings >= 2


async def test_a_server_that_breaks_the_protocol(transport: AsyncTransport) -> None:
    settings = bytes.fromhex("000000040000000000")
    headers_on_stream_zero = bytes.fromhex("00000101040000000088")
    with Http2Server(preamble=settings + headers_on_stream_zero) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        with pytest.raises(ConnectFailed, match="broke HTTP/2"):
            await transport.fetch(post(origin, "/", b"x"), deadline=soon())
    assert connections(transport) == []
