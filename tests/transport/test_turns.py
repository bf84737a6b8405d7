"""What many requests at once cost: what they say leaves together, and what came for them leaves nothing behind."""

from __future__ import annotations

import gc

import anyio
import pytest

from grotte._core.http2.stream import AsyncStream
from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from grotte._proto.transport_errors import ConnectionLost
from tests._async.transport.support import answer, connections, get, post, soon
from tests.servers.http2_server import Http2Server


async def test_what_is_said_in_one_turn_leaves_with_one_system_call(transport: AsyncTransport, origin: Origin) -> None:
    await answer(transport, get(origin))
    (connection,) = connections(transport)
    sizes: list[int] = []
    send = connection._channel.send

    def counted(wire: bytearray) -> bool:
        sizes.append(len(wire))
        return send(wire)

    connection._channel.send = counted  # type: ignore[method-assign]  # the real one is called
    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(answer, transport, get(origin))
    # The first finds nobody who sends for it.
    assert len(sizes) <= 4
    assert transport.counters.streams_opened == 61


def streams() -> list[AsyncStream]:
    """All that there are, those of other tests included."""
    return [thing for thing in gc.get_objects() if isinstance(thing, AsyncStream)]


async def test_a_request_leaves_nothing_to_the_garbage_collector(transport: AsyncTransport, origin: Origin) -> None:
    gc.collect()
    gc.disable()
    try:
        before = streams()
        for target in ("/", "/bytes/100000"):
            await answer(transport, get(origin, target))
        assert len(streams()) <= len(before)
    finally:
        gc.enable()


async def test_a_failure_while_others_sleep_is_raised_by_who_reads(codec: str, server: Http2Server) -> None:
    """On asyncio the loop itself takes in what comes: what fails there must not be lost there."""
    failures = [RuntimeError("the tracer failed")]

    def trace(event: str, details: object) -> None:
        if event == "http2.stream_ended" and failures:
            raise failures.pop()

    origin = Origin("http", "127.0.0.1", server.port)
    async with AsyncTransport(TransportOptions(codec=codec, trace=trace)) as transport:
        with pytest.raises(RuntimeError, match="the tracer failed"):
            await transport.fetch(get(origin), deadline=soon())
        assert await answer(transport, get(origin)) == b"hello"


async def test_a_connection_that_ends_while_all_sleep_ends_all_of_them(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    lost: list[ConnectionLost] = []

    async def ask() -> None:
        try:
            await transport.fetch(post(origin, "/never", b"x"), deadline=soon())
        except ConnectionLost as error:
            lost.append(error)

    await answer(transport, get(origin))
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        while len(server.seen) < 6:
            await anyio.sleep(0.001)
        server.connections[0].close()
    assert [error.processed for error in lost] == [True] * 5
