"""Cancellation at every moment: what was not cancelled goes on, and nothing is left behind."""

from __future__ import annotations

import random

import anyio
import pytest
from anyio.lowlevel import checkpoint

from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import DeadlineExceeded
from tests._async.transport.support import answer, assert_at_rest, connections, get, post, soon
from tests.servers.http2_server import Http2Server

TARGETS = ("/", "/never", "/hold", "/bytes/300000", "/bytes/3000000")


async def some_request(transport: AsyncTransport, origin: Origin, chance: random.Random) -> None:
    target = chance.choice(TARGETS)
    if chance.random() < 0.3:
        body = bytes(chance.choice([1, 100_000, 2_000_000]))
        await transport.fetch(post(origin, "/count", body), deadline=soon())
    elif target == "/hold" or chance.random() < 0.5:
        async with transport.stream(get(origin, target), deadline=soon()) as response:
            await response.aread()
    else:
        await transport.fetch(get(origin, target), deadline=soon())


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_cancellations(
    transport: AsyncTransport, origin: Origin, server: Http2Server, seed: int
) -> None:
    chance = random.Random(seed)
    kept: list[bytes] = []

    async def cancelled() -> None:
        with anyio.move_on_after(chance.choice([0, 0.001, 0.01, 0.05]) * chance.random()):
            await some_request(transport, origin, chance)

    async def keep() -> None:
        for _ in range(10):
            kept.append(await answer(transport, post(origin, "/echo", b"kept")))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(keep)
        for _ in range(250):
            group.start_soon(cancelled)
            if chance.random() < 0.2:
                await checkpoint()
    assert kept == [b"kept"] * 50
    assert await answer(transport, get(origin)) == b"hello"
    await assert_at_rest(transport)
    assert {code for _, _, code in server.resets} <= {8}
    assert transport.counters.retries == 0
    before = len(server.connections)
    for _ in range(120):
        assert await answer(transport, get(origin)) == b"hello"
    assert len(server.connections) == before


async def test_cancelling_at_every_step_of_a_request(transport: AsyncTransport, origin: Origin) -> None:
    """The n-th time that the event loop comes round, for each n until the request is through."""
    for request in (get(origin, "/bytes/200000"), post(origin, "/count", bytes(200_000))):
        for steps in range(60):
            done = False

            async def run(request: Request = request) -> None:
                nonlocal done
                await answer(transport, request)
                done = True

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            if done:
                break
        assert await answer(transport, get(origin)) == b"hello"
    await assert_at_rest(transport)


async def test_cancelling_whoever_connects(codec: str) -> None:
    for steps in range(12):
        with Http2Server(settings_after=0.02) as server:
            origin = Origin("http", "127.0.0.1", server.port)
            async with AsyncTransport(TransportOptions(codec=codec)) as transport:
                async with anyio.create_task_group() as group:
                    async with anyio.create_task_group() as doomed:
                        doomed.start_soon(answer, transport, get(origin))
                        await checkpoint()
                        for _ in range(3):
                            group.start_soon(answer, transport, get(origin))
                        for _ in range(steps):
                            await checkpoint()
                        doomed.cancel_scope.cancel()
                await assert_at_rest(transport)
            server.violations.clear()


async def test_the_baton_goes_on_when_the_reader_is_cancelled(transport: AsyncTransport, origin: Origin) -> None:
    await answer(transport, get(origin))
    async with anyio.create_task_group() as outer:
        async with anyio.create_task_group() as readers:
            for _ in range(20):
                readers.start_soon(answer, transport, get(origin, "/never"))
            await anyio.wait_all_tasks_blocked()
            for _ in range(20):
                outer.start_soon(answer, transport, get(origin, "/bytes/500000"))
            readers.cancel_scope.cancel()
    await assert_at_rest(transport)
    assert len(connections(transport)) == 1


async def test_cancelling_those_who_wait_below_the_ceiling(codec: str, server: Http2Server) -> None:
    """Whoever gives up while it waits for a connection, or while it opens one, leaves its turn to the next."""
    options = TransportOptions(codec=codec, max_connections_total=2)
    for steps in range(0, 24, 2):
        async with AsyncTransport(options) as transport:

            async def ask(number: int, transport: AsyncTransport = transport) -> None:
                origin = Origin("http", f"{number}.localhost", server.port)
                assert await answer(transport, get(origin)) == b"hello"

            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as doomed:
                    for number in range(6):
                        doomed.start_soon(ask, number)
                        group.start_soon(ask, number + 100)
                    for _ in range(steps):
                        await checkpoint()
                    doomed.cancel_scope.cancel()
            await assert_at_rest(transport)
            assert transport.counters.connections_open <= 2
            assert not transport._pool._ceiling.waiting


async def test_the_callers_scopes_stay_the_callers(transport: AsyncTransport, origin: Origin) -> None:
    with anyio.move_on_after(0.05) as scope:
        await transport.fetch(get(origin, "/never"), deadline=soon())
    assert scope.cancelled_caught
    with anyio.fail_after(20), pytest.raises(DeadlineExceeded):
        await transport.fetch(get(origin, "/never"), deadline=soon(0.05))
    with anyio.CancelScope() as outer:
        outer.cancel()
        await transport.fetch(get(origin), deadline=soon())
    assert outer.cancelled_caught


async def test_closing_the_transport_ends_what_is_under_way(transport: AsyncTransport, origin: Origin) -> None:
    from grotte._proto.transport_errors import ConnectionLost

    ended = 0

    async def wait(target: str) -> None:
        nonlocal ended
        with pytest.raises(ConnectionLost):
            await transport.fetch(get(origin, target), deadline=soon())
        ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(150):  # more than there are slots
            group.start_soon(wait, "/never")
        await anyio.sleep(0.05)
        await transport.aclose()
    assert ended == 150
