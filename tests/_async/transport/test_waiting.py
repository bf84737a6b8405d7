"""Those who wait: all hear of a failure, and each keeps its own deadline."""

from __future__ import annotations

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from grotte._proto.transport_errors import ConnectFailed, DeadlineExceeded
from tests._async.transport.support import answer, assert_at_rest, get, soon
from tests.servers.certificates import Certificate
from tests.servers.http2_server import Http2Server

#: More than two connections may be assumed to take.
MANY = 250


async def test_all_who_wait_fail_when_none_of_several_can_be_opened(codec: str, certificate: Certificate) -> None:
    failures = 0
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    async with AsyncTransport(options) as transport:

        async def one() -> None:
            nonlocal failures
            try:
                await transport.fetch(get(Origin("https", "127.0.0.1", 1)), deadline=soon())
            except ConnectFailed:
                failures += 1

        async with _aio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(one)
        assert failures == MANY
        await assert_at_rest(transport)


async def test_a_deadline_is_kept_while_somebody_else_reads(codec: str) -> None:
    over: list[str] = []

    async def hold(transport: AsyncTransport, origin: Origin, name: str, seconds: float) -> None:
        try:
            await transport.fetch(get(origin, "/never"), deadline=soon(seconds))
        except DeadlineExceeded:
            over.append(name)

    with Http2Server() as server:
        origin = Origin("http", "127.0.0.1", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            await answer(transport, get(origin))
            async with _aio.open_nursery() as nursery:
                nursery.start_soon(hold, transport, origin, "reads", 1.6)
                await _aio.sleep(0.05)
                nursery.start_soon(hold, transport, origin, "parked for long", 2.4)
                nursery.start_soon(hold, transport, origin, "parked", 0.8)
                nursery.start_soon(hold, transport, origin, "parked, and soon over", 0.2)
            await assert_at_rest(transport)
    assert over == ["parked, and soon over", "parked", "reads", "parked for long"]
