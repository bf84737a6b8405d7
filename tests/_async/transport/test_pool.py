"""How many connections there are, who gets a slot, and who shares."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import ConnectFailed, DeadlineExceeded, PoolTimeout, TransportError
from tests._async.transport.support import answer, assert_at_rest, get, post, soon
from tests.servers.certificates import Certificate
from tests.servers.http1_server import serve_http1
from tests.servers.http2_server import Http2Server


async def hold(stack: AsyncExitStack, transport: AsyncTransport, origin: Origin, count: int) -> None:
    for _ in range(count):
        response = await stack.enter_async_context(transport.stream(get(origin, "/hold"), deadline=soon()))
        assert await anext(aiter(response)) == b"held"


async def test_held_streams_open_another_connection_and_leave_room_for_calls(codec: str) -> None:
    with Http2Server(cap=10) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec, reserve=0.2)) as transport:
            async with AsyncExitStack() as stack:
                await hold(stack, transport, origin, 8)
                assert len(server.connections) == 1
                assert await answer(transport, get(origin)) == b"hello"
                assert len(server.connections) == 1
                await hold(stack, transport, origin, 16)
                assert len(server.connections) == 3
                assert await answer(transport, get(origin)) == b"hello"
            assert await answer(transport, get(origin)) == b"hello"
            assert len(server.connections) == 3
        assert server.violations == []


async def test_the_pool_is_bounded_and_says_so(codec: str) -> None:
    options = TransportOptions(codec=codec, max_connections=2, reserve=0, pool_timeout=0.1)
    with Http2Server(cap=2) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport, AsyncExitStack() as stack:
            await hold(stack, transport, origin, 4)
            with pytest.raises(PoolTimeout) as caught:
                await transport.fetch(get(origin), deadline=soon())
            assert not caught.value.processed
            with pytest.raises(DeadlineExceeded) as late:
                await transport.fetch(get(origin), deadline=soon(0.05))
            assert late.value.kind == "total"
            assert not late.value.processed
            assert len(server.connections) == 2


async def test_slots_go_to_whoever_waited_longest(codec: str) -> None:
    options = TransportOptions(codec=codec, max_connections=1, reserve=0)
    order: list[int] = []
    with Http2Server(cap=1) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport:

            async def one(number: int) -> None:
                await answer(transport, get(origin, f"/x{number}"))
                order.append(number)

            async with _aio.open_nursery() as nursery:
                async with transport.stream(get(origin, "/hold"), deadline=soon()) as response:
                    await anext(aiter(response))
                    (route,) = transport._pool._routes.values()
                    for number in range(10):
                        nursery.start_soon(one, number)
                        while len(route.line) <= number:
                            await _aio.sleep(0.001)
            assert [seen.path for seen in server.seen[1:]] == [f"/x{number}" for number in range(10)]
            assert sorted(order) == list(range(10))
            await assert_at_rest(transport)


async def test_a_seeker_reads_when_nobody_else_does(codec: str) -> None:
    """All slots are held by streams whose owners do something else: whoever wants a slot must read."""
    options = TransportOptions(codec=codec, max_connections=1, reserve=0)
    with Http2Server(cap=2) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport, AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(transport.stream(get(origin, "/bytes/500"), deadline=soon()))
            assert await answer(transport, get(origin)) == b"hello"


async def test_a_parked_seeker_takes_the_baton_when_the_last_reader_leaves(codec: str) -> None:
    options = TransportOptions(codec=codec, max_connections=1, reserve=0)
    with Http2Server(cap=2) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport:
            assert await answer(transport, get(origin)) == b"hello"

            async def hurried() -> None:
                with pytest.raises(DeadlineExceeded):
                    await transport.fetch(get(origin, "/never"), deadline=soon(0.2))

            async with _aio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(hurried)
                while transport.counters.streams_opened < 3:
                    await _aio.sleep(0.001)
                for _ in range(3):
                    nursery.start_soon(answer, transport, get(origin))
            await assert_at_rest(transport)


async def test_many_hosts_of_a_domain_share_connections(transport: AsyncTransport) -> None:
    with Http2Server() as server:
        seen: set[bytes] = set()

        async def one(number: int) -> None:
            origin = Origin("http", f"49983-{number}.grotte.localhost", server.port)
            seen.add(await answer(transport, Request("GET", origin, "/authority", coalesce="domain")))

        async with _aio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, number)
        assert seen == {b"49983-%d.grotte.localhost:%d" % (number, server.port) for number in range(300)}
        assert len(server.connections) <= 8
        other = Origin("http", "1.grotte.localhost", server.port)
        before = len(server.connections)
        assert await answer(transport, get(other)) == b"hello"  # "off"
        assert len(server.connections) == before + 1
        await assert_at_rest(transport)


async def test_a_misdirected_request_gets_a_connection_of_its_own(transport: AsyncTransport) -> None:
    with Http2Server() as server:

        async def ask(name: str) -> bytes:
            origin = Origin("http", f"{name}.grotte.localhost", server.port)
            request = Request("POST", origin, "/misdirected", body=b"x", coalesce="domain")
            return await answer(transport, request)

        assert [await ask("a"), await ask("b"), await ask("b"), await ask("a")] == [b"hello"] * 4
        assert len(server.connections) == 2
        assert len(server.seen) == 5  # one 421, remembered
        own = Origin("http", "127.0.0.1", server.port)
        response = await transport.fetch(get(own, "/misdirected"), deadline=soon())
        assert response.status == 200


async def test_bulk_bodies_have_connections_of_their_own(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    assert await answer(transport, get(origin)) == b"hello"
    bulk = Request("POST", origin, "/count", body=bytes(20_000_000), lane="bulk")
    assert await answer(transport, bulk) == b"20000000"
    assert [seen.connection for seen in server.seen] == [0, 1]
    down = Request("GET", origin, "/bytes/20000000", lane="bulk")
    assert len(await answer(transport, down)) == 20_000_000


async def test_idle_connections_are_not_used_again(origin: Origin, codec: str, server: Http2Server) -> None:
    async with AsyncTransport(TransportOptions(codec=codec, idle_timeout=0.05)) as transport:
        assert await answer(transport, get(origin)) == b"hello"
        await _aio.sleep(0.1)
        assert await answer(transport, get(origin)) == b"hello"
        assert len(server.connections) == 2
        assert transport.counters.connections_open == 1


async def test_hosts_that_are_done_with_leave_nothing(codec: str) -> None:
    options = TransportOptions(codec=codec, idle_timeout=0.05)
    with Http2Server() as server:
        async with AsyncTransport(options) as transport:
            for number in range(3):
                for host in range(5):
                    origin = Origin("http", f"{host}.{number}.localhost", server.port)
                    assert await answer(transport, get(origin)) == b"hello"
                await _aio.sleep(0.1)
            await answer(transport, get(Origin("http", "127.0.0.1", server.port)))
            assert len(transport._pool._routes) == 1
            counters = transport.counters
            assert (counters.connections_opened, counters.connections_open) == (16, 1)
            assert counters.streams_opened == 16


async def test_an_end_that_came_while_idle_is_seen_before_a_request_is_risked(
    transport: AsyncTransport, origin: Origin, server: Http2Server
) -> None:
    assert await answer(transport, get(origin)) == b"hello"
    server.connections[0].close()
    while server.open_connections:
        await _aio.sleep(0.001)
    assert await answer(transport, post(origin, "/echo", b"once")) == b"once"
    assert transport.counters.retries == 0


async def test_many_requests_at_once_open_one_connection(codec: str) -> None:
    with Http2Server(settings_after=0.05) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport, _aio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(answer, transport, get(origin))
        assert len(server.connections) == 1


async def test_whoever_waits_takes_over_when_the_one_who_connects_gives_up(codec: str) -> None:
    failures: list[TransportError] = []
    with Http2Server(settings_after=0.6) as server:
        origin = Origin("http", "127.0.0.1", server.port)

        async with AsyncTransport(TransportOptions(codec=codec)) as transport:

            async def hurried() -> None:
                try:
                    await transport.fetch(get(origin), deadline=soon(0.05))
                except TransportError as error:
                    failures.append(error)

            async with _aio.open_nursery() as nursery:
                nursery.start_soon(hurried)
                await _aio.sleep(0.01)
                for _ in range(3):
                    nursery.start_soon(answer, transport, get(origin))
            await assert_at_rest(transport)
    assert [type(error) for error in failures] == [DeadlineExceeded]
    assert not failures[0].processed


async def test_a_failed_connect_fails_all_who_wait(codec: str) -> None:
    failures: list[TransportError] = []
    origin = Origin("http", "127.0.0.1", 1)
    async with AsyncTransport(TransportOptions(codec=codec)) as transport:

        async def one() -> None:
            try:
                await transport.fetch(get(origin), deadline=soon())
            except ConnectFailed as error:
                failures.append(error)

        async with _aio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        assert len(failures) == 20
        await assert_at_rest(transport)


async def test_a_server_that_accepts_and_says_nothing(codec: str) -> None:
    options = TransportOptions(codec=codec, connect_timeout=0.1)
    with Http2Server(settings_after=1.0) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport:
            with pytest.raises(DeadlineExceeded) as caught:
                await transport.fetch(get(origin), deadline=soon())
    assert caught.value.kind == "connect"
    assert not caught.value.processed


@pytest.mark.parametrize("tls", [False, True])
async def test_a_server_that_speaks_http1_only(codec: str, certificate: Certificate, tls: bool) -> None:
    server_tls = certificate.server_context("http/1.1") if tls else None
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    with serve_http1(server_tls) as server:
        origin = Origin("https" if tls else "http", "a.grotte.localhost", server.port)
        async with AsyncTransport(options) as transport:
            assert await answer(transport, get(origin)) == b"old"
            assert await answer(transport, post(origin, "/", b"new")) == b"new"
            async with transport.stream(get(origin, "/chunks"), deadline=soon()) as response:
                assert await response.aread() == b"onetwothree"
            async with _aio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(answer, transport, get(origin))
    assert len(server.seen) == 13  # each arrived once


async def test_silence_is_taken_for_http1(codec: str) -> None:
    options = TransportOptions(codec=codec, probe_timeout=0.05)
    with Http2Server(settings_after=0.5) as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(options) as transport:
            with pytest.raises(TransportError):
                await transport.fetch(post(origin, "/", b"x"), deadline=soon())
            assert transport._http1.serves(("http", "127.0.0.1", server.port), get(origin), None)
        server.violations.clear()
