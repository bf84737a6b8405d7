"""Streamed requests that are dropped without leaving their block."""

from __future__ import annotations

import gc

from grotte._core.transport import AsyncTransport, Origin
from tests._async.transport.support import answer, assert_at_rest, get, soon
from tests.servers.http1_server import serve_http1

DROPPED = 8
#: More than a stream's window, so that it cannot end before somebody reads.
LARGE = "/bytes/1500000"


async def drop_some(transport: AsyncTransport, origin: Origin, target: str) -> None:
    """Enter the blocks of some requests, and leave them to the garbage collector, in cycles as in real programs."""
    gc.disable()  # all at once, below
    for _ in range(DROPPED):
        block = transport.stream(get(origin, target), deadline=soon())
        cycle: list[object] = [block]
        cycle.append(cycle)
        await block.__aenter__()
        del block, cycle
    gc.enable()
    gc.collect()


async def test_the_garbage_collector_closes_nothing_itself(transport: AsyncTransport, origin: Origin) -> None:
    await drop_some(transport, origin, LARGE)
    assert transport.counters.streams_open == DROPPED
    assert await answer(transport, get(origin)) == b"hello"
    await assert_at_rest(transport)


async def test_over_http1_too(transport: AsyncTransport) -> None:
    with serve_http1() as server:
        origin = Origin("http", "127.0.0.1", server.port)
        await drop_some(transport, origin, "/chunks")
        assert len(transport._dropped) == DROPPED
        assert await answer(transport, get(origin)) == b"old"
        assert not transport._dropped
        assert not transport._blocks


async def test_closing_ends_what_was_dropped(transport: AsyncTransport, origin: Origin) -> None:
    await drop_some(transport, origin, LARGE)
    await transport.aclose()
    assert transport.counters.streams_open == 0
    assert not transport._blocks
