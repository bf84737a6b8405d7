"""Large bodies: no more of one lies in memory than is useful, and others get their turn beside it."""

from __future__ import annotations

import anyio
import pytest

from grotte._core.http2.channel import READ_SIZE
from grotte._core.http2.link import BATCH, CONGESTED, PIECES
from grotte._core.http2.stream import AsyncStream
from grotte._core.transport import AsyncTransport, Origin, Request
from tests._async.transport.support import answer, connections, get, post, soon
from tests.servers.http2_server import Http2Server

SIZE = 15 * 1024 * 1024


@pytest.fixture
def request_for_much(origin: Origin) -> Request:
    return Request("GET", origin, f"/bytes/{SIZE}", lane="bulk")


async def test_a_body_is_taken_in_as_it_is_read(transport: AsyncTransport, request_for_much: Request) -> None:
    """So that each read goes into memory that is in use already, although the socket holds many."""
    read = most = full_reads = 0
    async with transport.stream(request_for_much, deadline=soon()) as response:
        (connection,) = connections(transport)
        (stream,) = connection._streams.values()
        async for piece in response:
            if not read:
                await anyio.sleep(0.1)  # the socket fills
            read += len(piece)
            full_reads += connection._channel.full
            most = max(most, len(piece) + sum(len(data) for data, _ in stream.chunks))
    assert read == SIZE
    assert full_reads, "there never was as much as one read takes"
    assert most <= READ_SIZE + 16_384  # and a frame that had begun


async def test_who_reads_on_without_waiting_lets_others_run(
    transport: AsyncTransport, request_for_much: Request
) -> None:
    turns = read = 0
    of_turn: dict[int, int] = {}

    async def count() -> None:
        nonlocal turns
        while read < SIZE:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with transport.stream(request_for_much, deadline=soon()) as response, anyio.create_task_group() as group:
        async for piece in response:
            if not read:
                await anyio.sleep(0.1)  # the socket fills
                group.start_soon(count)
            read += len(piece)
            of_turn[turns] = of_turn.get(turns, 0) + len(piece)
    assert read == SIZE
    most = max(size for turn, size in of_turn.items() if turn)
    assert most > 2 * READ_SIZE - 16_384, "each read was waited for"
    # twice: trio may run one task last in one round and first in the next
    assert most <= 2 * (1 + PIECES) * READ_SIZE, "others were kept from running"


@pytest.mark.parametrize(("frame_size", "batch"), [(16_384, CONGESTED), (4 * BATCH, BATCH)])
async def test_an_upload_queues_a_large_frame_at_a_time_while_the_socket_takes_all(
    transport: AsyncTransport, frame_size: int, batch: int
) -> None:
    sizes: list[int] = []
    waiting: list[bool] = []
    with Http2Server(window=SIZE, frame_size=frame_size) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        await answer(transport, get(origin))
        (connection,) = connections(transport)
        send = connection.send_data

        def observed(stream: AsyncStream, data: memoryview, *, end: bool) -> int:
            waiting.append(bool(connection._codec.wire or connection._outbox))
            taken = send(stream, data, end=end)
            sizes.append(len(data))
            assert len(connection._codec.wire) + len(connection._outbox) <= BATCH + CONGESTED + 16_384
            return taken

        connection.send_data = observed  # type: ignore[method-assign]  # the real one is called
        assert await answer(transport, post(origin, "/count", bytes(SIZE))) == str(SIZE).encode()
    assert sizes[0] == CONGESTED, "nobody knows yet how fast the server is"
    assert max(sizes) == batch
    assert all(size <= CONGESTED for size, waited in zip(sizes, waiting, strict=True) if waited)
    assert server.violations == []
