"""The ceiling over all connections of a transport, whatever they are for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import ConnectFailed, PoolTimeout
from tests._async.transport.support import answer, assert_at_rest, get, soon
from tests.servers.http2_server import Http2Server


class Census:
    """Counts connections, and those being opened, as a transport tells of them."""

    def __init__(self) -> None:
        self.now = self.most = self.ever = 0

    def __call__(self, event: str, details: Mapping[str, object]) -> None:
        if event == "connect.started":
            self.now += 1
            self.ever += 1
        elif event in ("connect.failed", "http2.closed"):
            self.now -= 1
        self.most = max(self.most, self.now)


@pytest.fixture
def census() -> Census:
    return Census()


@pytest.fixture
def options(codec: str, census: Census) -> TransportOptions:
    return TransportOptions(codec=codec, max_connections_total=3, reserve=0, trace=census)


def host(server: Http2Server, name: object) -> Origin:
    return Origin("http", f"{name}.localhost", server.port)


async def hold(stack: AsyncExitStack, transport: AsyncTransport, origin: Origin) -> None:
    response = await stack.enter_async_context(transport.stream(get(origin, "/hold"), deadline=soon()))
    assert await anext(aiter(response)) == b"held"


async def test_an_idle_connection_makes_room(transport: AsyncTransport, server: Http2Server, census: Census) -> None:
    for number in range(8):
        assert await answer(transport, get(host(server, number))) == b"hello"
    assert (census.most, census.ever) == (3, 8)
    assert transport.counters.connections_open == 3
    for number in (5, 6, 7):  # those that were used last are still there
        assert await answer(transport, get(host(server, number))) == b"hello"
    assert census.ever == 8


async def test_lanes_and_modes_count_alike(transport: AsyncTransport, server: Http2Server, census: Census) -> None:
    origin = host(server, "a.b")
    for _ in range(3):
        assert await answer(transport, get(origin)) == b"hello"
        assert await answer(transport, Request("GET", origin, "/", lane="bulk")) == b"hello"
        assert await answer(transport, Request("GET", origin, "/", coalesce="domain")) == b"hello"
        assert await answer(transport, Request("GET", origin, "/", coalesce="domain", lane="bulk")) == b"hello"
    assert (census.most, census.ever) == (3, 12)


async def test_whoever_finds_all_in_use_waits_and_is_told_so(codec: str, server: Http2Server, census: Census) -> None:
    options = TransportOptions(codec=codec, max_connections_total=2, pool_timeout=0.2, trace=census)
    async with AsyncTransport(options) as transport, AsyncExitStack() as stack:
        await hold(stack, transport, host(server, "a"))
        await hold(stack, transport, host(server, "b"))
        with pytest.raises(PoolTimeout, match="max_connections_total") as caught:
            await transport.fetch(get(host(server, "c")), deadline=soon())
        assert not caught.value.processed
        assert await answer(transport, get(host(server, "a"))) == b"hello"
    assert (census.most, census.ever) == (2, 2)


async def until_waiting(transport: AsyncTransport, count: int) -> None:
    """Until so many wait for a slot."""
    patience = soon()
    while transport.counters.waiting != count and _aio.clock() < patience:
        await _aio.sleep(0.001)
    assert transport.counters.waiting == count


async def test_places_get_connections_in_the_order_in_which_they_asked(
    transport: AsyncTransport, server: Http2Server, census: Census
) -> None:
    async with _aio.open_nursery() as nursery, AsyncExitStack() as stack, AsyncExitStack() as leaves:
        for name in "ab":
            await hold(stack, transport, host(server, name))
        await hold(leaves, transport, host(server, "c"))
        for number in range(6):
            nursery.start_soon(answer, transport, get(host(server, number)))
            await until_waiting(transport, number + 1)
        await leaves.aclose()
        await until_waiting(transport, 0)  # one after the other on what one connection leaves
    asked = [seen.authority.partition(".")[0] for seen in server.seen[3:]]
    assert asked == [str(number) for number in range(6)]
    assert census.most == 3
    await assert_at_rest(transport)


async def test_room_that_another_place_leaves_is_seen_although_nobody_reads_there(
    transport: AsyncTransport, server: Http2Server, census: Census
) -> None:
    """A stream that is given up leaves its connection idle once a PING is answered: who waits must read that."""
    async with _aio.open_nursery() as nursery, AsyncExitStack() as stack, AsyncExitStack() as leaves:
        for name in "ab":
            await hold(stack, transport, host(server, name))
        await hold(leaves, transport, host(server, "c"))
        nursery.start_soon(answer, transport, get(host(server, "d")))
        await until_waiting(transport, 1)
        await leaves.aclose()
        await until_waiting(transport, 0)
    assert census.most == 3


@pytest.mark.parametrize("which", [0, 1])
async def test_whoever_waits_reads_all_that_may_bring_a_slot(codec: str, which: int) -> None:
    options = TransportOptions(codec=codec, max_connections=2, reserve=0)
    with Http2Server(cap=1) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport, _aio.open_nursery() as nursery:
            async with AsyncExitStack() as first, AsyncExitStack() as second:
                await hold(first, transport, origin)
                await hold(second, transport, origin)
                nursery.start_soon(answer, transport, get(origin))
                await until_waiting(transport, 1)
                await (first, second)[which].aclose()
                await until_waiting(transport, 0)
        assert server.violations == []


async def test_many_more_places_than_connections(
    transport: AsyncTransport, server: Http2Server, census: Census
) -> None:
    answers = 0

    async def ask(number: int) -> None:
        nonlocal answers
        for _ in range(4):
            assert await answer(transport, get(host(server, number))) == b"hello"
            answers += 1

    async with _aio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(ask, number % 20)
    assert answers == 160
    assert len(server.seen) == 160
    assert census.most == 3
    await assert_at_rest(transport)
    assert transport.counters.retries == 0


async def test_what_was_not_opened_is_not_counted(transport: AsyncTransport, server: Http2Server) -> None:
    for number in range(5):
        with pytest.raises(ConnectFailed):
            await transport.fetch(get(Origin("http", f"{number}.localhost", 1)), deadline=soon())
    for number in range(4):
        assert await answer(transport, get(host(server, number))) == b"hello"
