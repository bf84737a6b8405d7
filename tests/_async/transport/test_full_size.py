"""As many streams, hosts, abandoned requests and GOAWAYs as a large fleet sees, counted to the last one."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from tests._async.transport.support import answer, assert_at_rest, connections, get, post, soon
from tests.servers.certificates import Certificate
from tests.servers.fast_server import FastServer

#: Threads, or tasks, that make requests at once.
WORKERS = 200


@pytest.mark.parametrize(("cap", "expected"), [(1000, 3), (100, 25)])
async def test_calls_are_answered_beside_two_thousand_held_streams(cap: int, expected: int) -> None:
    """With the defaults: each connection is filled, but for its reserve, before the next one is opened."""
    answers = 0
    held = 0
    with FastServer(cap=cap) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport() as transport:
            async with AsyncExitStack() as stack:
                for _ in range(2000):
                    response = await stack.enter_async_context(transport.stream(get(origin, "/hold"), deadline=None))
                    assert await anext(aiter(response)) == b"held"
                assert transport.counters.streams_open == 2000

                async def hold() -> None:
                    """As those that are read all the time: parked, with one of them reading for all."""
                    nonlocal held
                    async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
                        await anext(aiter(response))
                        held += 1
                        while held < 50 or answers < 1000:
                            await _aio.sleep(0.01)

                async def call() -> None:
                    nonlocal answers
                    for _ in range(50):
                        assert await answer(transport, get(origin)) == b"hello"
                        answers += 1

                async with _aio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(hold)
                    for _ in range(20):
                        nursery.start_soon(call)
                assert transport.counters.streams_open == 2000
            await assert_at_rest(transport)
    assert answers == 1000
    assert len(server.connections) == expected
    assert server.answered == 2000 + 50 + 1000


async def test_three_hundred_hosts_over_eight_connections_at_most(certificate: Certificate) -> None:
    options = TransportOptions(ssl_context=certificate.client_context())
    context = certificate.server_context("h2")
    context.num_tickets = 200  # connections are looked at by those who would share them while they take these in
    with FastServer(tls=context) as server:
        async with AsyncTransport(options) as transport:

            async def ask(number: int) -> None:
                origin = Origin("https", f"49983-{number}.grotte.localhost", server.port)
                for _ in range(3):
                    assert await answer(transport, Request("GET", origin, "/", coalesce="domain")) == b"hello"

            async with _aio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(ask, number)
            await assert_at_rest(transport)
    assert server.answered == 900
    assert len(server.connections) <= 8


async def test_a_thousand_abandoned_streams_cost_no_connection() -> None:
    with FastServer() as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport() as transport:

            async def abandon() -> None:
                for _ in range(50):
                    async with transport.stream(get(origin, "/bytes"), deadline=soon()) as response:
                        assert await anext(aiter(response))

            async with _aio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(abandon)
            before = len(server.connections)
            for _ in range(300):
                assert await answer(transport, get(origin)) == b"hello"
            assert len(await answer(transport, get(origin, "/bytes"))) == 2_000_000
            assert len(server.connections) == before == len(connections(transport))
            assert transport.counters.retries == 0
            await assert_at_rest(transport)
    assert server.resets == 1000


async def test_a_goaway_every_five_hundred_requests_loses_none_of_twenty_thousand() -> None:
    answers = [0] * WORKERS
    with FastServer(goaway_every=500) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport() as transport:

            async def work(number: int) -> None:
                for _ in range(20_000 // WORKERS):
                    assert await answer(transport, post(origin, "/", b"x")) == b"hello"
                    answers[number] += 1

            async with _aio.open_nursery() as nursery:
                for number in range(WORKERS):
                    nursery.start_soon(work, number)
            await assert_at_rest(transport)
    assert answers == [20_000 // WORKERS] * WORKERS
    assert server.answered == 20_000  # none twice
    assert len(server.connections) >= 40
