"""Requests and answers of every size, one and many at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grotte._core import _aio
from grotte._core.http2.response import AsyncHttp2Response
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions, split_url
from grotte._proto.options import Counters
from grotte._proto.transport_errors import ConnectFailed, DeadlineExceeded
from grotte.errors import InvalidArgumentException
from tests._async.transport.support import PATIENCE, answer, assert_at_rest, connections, get, post, soon
from tests.servers.http2_server import Http2Server


async def test_a_request_carries_everything(transport: AsyncTransport, origin: Origin, server: Http2Server) -> None:
    headers = [("X-Api-Key", "secret"), ("Connection", "close"), ("Host", "other.example")]
    request = Request("POST", origin, "/echo?x=1", headers, b"ping")
    response = await transport.fetch(request, deadline=soon())
    assert response.status == 200
    assert response.headers["Content-Length"] == "4"
    assert response.content == b"ping"
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.authority, bytes(seen.body)) == (
        "POST",
        "/echo?x=1",
        "other.example",
        b"ping",
    )
    assert seen.headers["x-api-key"] == "secret"
    assert seen.headers["content-length"] == "4"
    assert "connection" not in seen.headers


async def test_many_requests_share_one_connection(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    bodies: list[bytes] = []

    async def one(number: int) -> None:
        bodies.append(await answer(transport, post(origin, "/echo", b"%d" % number)))

    async with _aio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(one, number)
    assert sorted(bodies, key=int) == [b"%d" % number for number in range(60)]
    assert len(server.connections) == 1
    await assert_at_rest(transport)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_bodies_of_any_size_go_both_ways(transport: AsyncTransport, origin: Origin, size: int) -> None:
    assert await answer(transport, post(origin, "/count", bytes(size))) == b"%d" % size
    assert len(await answer(transport, get(origin, f"/bytes/{size}"))) == size
    await assert_at_rest(transport)


async def test_a_body_in_pieces(transport: AsyncTransport, origin: Origin) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(50_000)
        yield b""

    request = Request("POST", origin, "/count", body=pieces(), lane="bulk")
    assert await answer(transport, request) == b"1500000"
    assert request.taken


async def test_the_exception_of_a_body_passes_and_resets_the_stream(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise TimeoutError("of the caller")

    with pytest.raises(TimeoutError, match="of the caller"):
        await transport.fetch(Request("POST", origin, "/count", body=pieces()), deadline=soon())
    assert await answer(transport, get(origin)) == b"hello"
    assert [code for _, _, code in server.resets] == [8]
    assert len(server.connections) == 1


async def test_64_mib_both_ways_in_constant_memory(transport: AsyncTransport, origin: Origin) -> None:
    waiting: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            waiting.extend(len(each._codec.wire) for each in connections(transport))
            yield bytes(1 << 20)

    request = Request("POST", origin, "/count", body=pieces(), content_length=64 << 20, lane="bulk")
    assert await answer(transport, request) == b"67108864"
    assert max(waiting) <= 2 << 20
    size = 0
    download = Request("GET", origin, f"/bytes/{64 << 20}", lane="bulk")
    async with transport.stream(download, deadline=soon()) as response:
        assert isinstance(response, AsyncHttp2Response)
        async for chunk in response:
            size += len(chunk)
            waiting.append(sum(len(data) for data, _ in response._stream.chunks))
    assert size == 64 << 20
    assert max(waiting) <= 16 << 20


async def test_an_answer_in_pieces(transport: AsyncTransport, origin: Origin) -> None:
    size = 0
    async with transport.stream(get(origin, "/bytes/3000000"), deadline=soon()) as response:
        assert response.status == 200
        async for chunk in response:
            assert chunk
            size += len(chunk)
    assert size == 3_000_000
    async with transport.stream(get(origin, "/bytes/100000"), deadline=soon()) as response:
        assert len(await response.aread()) == 100_000
    await assert_at_rest(transport)


async def test_leaving_a_stream_early_cancels_it_alone(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    for _ in range(150):  # more than the server's cap: each slot must come back
        async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
            assert await anext(aiter(response)) == b"held"
    assert await answer(transport, get(origin)) == b"hello"
    assert len(server.connections) == 1
    assert len(server.resets) == 150


async def test_abandoned_downloads_do_not_drain_the_connection_window(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    for _ in range(100):  # 100 x 1 MiB of windows: more than the connection's 64 MiB
        async with transport.stream(get(origin, "/bytes/2000000"), deadline=soon()) as response:
            await anext(aiter(response))
    assert len(await answer(transport, get(origin, "/bytes/3000000"))) == 3_000_000
    assert len(server.connections) == 1


async def test_a_slow_reader_stalls_only_itself(transport: AsyncTransport, origin: Origin) -> None:
    async with transport.stream(get(origin, "/bytes/9000000"), deadline=soon()) as slow:
        chunks = aiter(slow)
        size = len(await anext(chunks))
        assert len(await answer(transport, get(origin, "/bytes/5000000"))) == 5_000_000
        assert isinstance(slow, AsyncHttp2Response)
        buffered = sum(len(data) for data, _ in slow._stream.chunks)
        assert buffered <= transport.options.stream_window
        async for chunk in chunks:
            size += len(chunk)
    assert size == 9_000_000
    assert len(connections(transport)) == 1


async def test_a_deadline_ends_the_request_alone(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    assert await answer(transport, get(origin)) == b"hello"  # connected, so that the request leaves in time
    with pytest.raises(DeadlineExceeded) as caught:
        await transport.fetch(get(origin, "/never"), deadline=soon(0.1))
    assert caught.value.kind == "total"
    assert caught.value.processed
    assert await answer(transport, get(origin)) == b"hello"
    assert len(server.connections) == 1


async def drain(
    transport: AsyncTransport, request: Request, deadline: float, idle_timeout: float | None = None
) -> bytes:
    async with transport.stream(request, deadline=deadline, idle_timeout=idle_timeout) as response:
        return await response.aread()


async def test_an_idle_stream_ends_and_a_busy_one_does_not(transport: AsyncTransport, origin: Origin) -> None:
    async with transport.stream(get(origin, "/hold"), deadline=soon(), idle_timeout=0.5) as response:
        chunks = aiter(response)
        assert await anext(chunks) == b"held"
        with pytest.raises(DeadlineExceeded) as caught:
            await anext(chunks)
    assert caught.value.kind == "idle"
    with pytest.raises(DeadlineExceeded) as caught:
        await drain(transport, get(origin, "/never"), deadline=soon(), idle_timeout=0.1)
    assert caught.value.kind == "read"
    with pytest.raises(DeadlineExceeded) as caught:
        await drain(transport, get(origin, "/hold"), deadline=soon(0.1))
    assert caught.value.kind == "total"


async def test_names_below_localhost_are_loopback(transport: AsyncTransport, server: Http2Server) -> None:
    origin, target = split_url(f"http://49983-abc.localhost:{server.port}/authority")
    assert await answer(transport, get(origin, target)) == f"49983-abc.localhost:{server.port}".encode()


async def test_a_unix_socket(transport: AsyncTransport, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with Http2Server(path=path):
        assert await answer(transport, post(Origin("unix", path, 0), "/echo", b"x")) == b"x"
    with pytest.raises(ConnectFailed):
        await transport.fetch(get(Origin("unix", path + ".missing", 0)), deadline=soon())


async def test_nobody_listens(transport: AsyncTransport) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await transport.fetch(get(Origin("http", "127.0.0.1", 1)), deadline=soon())
    assert not caught.value.processed
    with pytest.raises(ConnectFailed):
        await transport.fetch(get(Origin("http", "name.invalid", 80)), deadline=soon())


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\0", "\N{SNOWMAN}"])
async def test_what_cannot_travel_in_a_header_is_refused(
    transport: AsyncTransport, origin: Origin, server: Http2Server, value: str
) -> None:
    with pytest.raises(InvalidArgumentException):
        await transport.fetch(Request("GET", origin, "/", [("x", value)]), deadline=soon())
    with pytest.raises(InvalidArgumentException):
        await transport.fetch(Request("GET", origin, f"/{value}"), deadline=soon())
    assert server.seen == []


async def test_counters(codec: str) -> None:
    """What the transport counts is what the server saw."""
    with Http2Server(taps=True) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            assert transport.counters == Counters()
            await answer(transport, post(origin, "/count", bytes(100_000)))
            await answer(transport, get(origin, "/bytes/100000"))
            assert await answer(transport, get(origin, "/refuse-once")) == b"hello"
            async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
                assert await anext(aiter(response)) == b"held"
                during = transport.counters
                assert await answer(transport, Request("GET", origin, "/", lane="bulk")) == b"hello"
            await assert_at_rest(transport)
            await agree(transport, server)
            after = transport.counters
        assert (during.connections_opened, during.connections_open) == (1, 1)
        assert (during.streams_opened, during.streams_open, during.retries, during.waiting) == (5, 1, 1, 0)
        assert (after.connections_opened, after.connections_open) == (2, 2) == (len(server.connections), 2)
        assert (after.streams_opened, after.streams_open) == (6, 0) == (len(server.seen), 0)
        assert transport.counters.connections_open == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            after.retries = 0  # type: ignore[misc]
        assert server.violations == []


async def agree(transport: AsyncTransport, server: Http2Server) -> None:
    """Until the server has seen, and the client read, what is under way."""
    patience = soon()
    while True:
        counters, heard, said = transport.counters, server.traffic("heard"), server.traffic("said")
        ours = (counters.frames_sent, counters.bytes_sent), (counters.frames_received, counters.bytes_received)
        if ours == (heard, said) or _aio.clock() > patience:
            break
        for connection in connections(transport):
            with connection.lock:
                connection.refresh()
        await _aio.sleep(0.001)
    assert ours == (heard, said)


async def test_a_closed_transport_says_so(transport: AsyncTransport, origin: Origin) -> None:
    from grotte._proto.transport_errors import ConnectionLost

    await answer(transport, get(origin))
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConnectionLost):
        await transport.fetch(get(origin), deadline=soon(PATIENCE))


async def test_whoever_traces_is_told(codec: str, server: Http2Server) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    options = TransportOptions(codec=codec, trace=lambda event, details: told.append((event, dict(details))))
    origin = Origin("http", "127.0.0.1", server.port)
    async with AsyncTransport(options) as transport:
        assert await answer(transport, get(origin, "/refuse-once?secret")) == b"hello"
        async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
            assert await anext(aiter(response)) == b"held"
    assert [event for event, _ in told] == [
        *("connect.started", "connect.complete"),
        *("http2.request_sent", "http2.stream_reset", "transport.retry"),
        *("http2.request_sent", "http2.response_started", "http2.stream_ended"),
        *("http2.request_sent", "http2.response_started", "http2.stream_reset", "http2.closed"),
    ]
    assert "secret" not in str(told)
    with pytest.raises(ConnectFailed):
        async with AsyncTransport(options) as transport:
            await transport.fetch(get(Origin("http", "127.0.0.1", 1)), deadline=soon())
    assert told[-1][0] == "connect.failed"
