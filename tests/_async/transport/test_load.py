"""Many at once: held streams, abandoned streams, servers that go away all the time, random deadlines."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from grotte._proto.transport_errors import DeadlineExceeded
from tests._async.transport.support import answer, assert_at_rest, connections, get, post, soon
from tests.servers.http2_server import Http2Server


async def test_two_thousand_held_streams(codec: str) -> None:
    with Http2Server(cap=1000) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            async with AsyncExitStack() as stack:
                for _ in range(2000):
                    await stack.enter_async_context(transport.stream(get(origin, "/hold"), deadline=soon()))
                assert await answer(transport, get(origin)) == b"hello"
                assert len(server.connections) == 3
            assert await answer(transport, get(origin)) == b"hello"
            await assert_at_rest(transport)
        assert server.violations == []


async def test_a_server_that_goes_away_all_the_time_loses_nothing(codec: str) -> None:
    count = 0
    with Http2Server(goaway_every=100) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:

            async def some() -> None:
                nonlocal count
                for _ in range(50):
                    assert await answer(transport, post(origin, "/echo", b"x")) == b"x"
                    count += 1

            async with _aio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(some)
            await assert_at_rest(transport)
        assert len(server.seen) == 2000  # none lost, none twice
        assert server.violations == []


async def test_random_deadlines_harm_nobody_else(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    kept: list[bytes] = []

    async def hurried(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(5):
            target = chance.choice(["/never", "/", "/bytes/300000", "/bytes/3000000"])
            request = chance.choice([get(origin, target), post(origin, "/count", bytes(1_000_000))])
            try:
                await transport.fetch(request, deadline=soon(0.03 * chance.random()))
            except DeadlineExceeded:
                continue

    async def patient() -> None:
        for _ in range(10):
            kept.append(await answer(transport, post(origin, "/echo", b"kept")))

    async with _aio.open_nursery() as nursery:
        for seed in range(40):
            nursery.start_soon(hurried, seed)
        for _ in range(5):
            nursery.start_soon(patient)
    assert kept == [b"kept"] * 50
    await assert_at_rest(transport)
    before = len(server.connections)
    for _ in range(120):
        assert await answer(transport, get(origin)) == b"hello"
    assert len(server.connections) == before
    assert transport.counters.retries == 0
    assert len(connections(transport)) == 1
