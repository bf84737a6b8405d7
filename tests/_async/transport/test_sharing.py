"""404s on shared connections: which are believed, and what is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from tests._async.transport.support import assert_at_rest, soon
from tests.servers.certificates import Certificate
from tests.servers.http1_server import serve_http1
from tests.servers.http2_server import Http2Server

Asked = tuple[str, int]


def shared(server_port: int, name: str, target: str, body: bytes | AsyncIterator[bytes] | None = None) -> Request:
    origin = Origin("http", f"{name}.grotte.localhost", server_port)
    return Request("GET" if body is None else "POST", origin, target, body=body, coalesce="domain")


async def status(transport: AsyncTransport, request: Request, *, streamed: bool = False) -> int:
    if not streamed:
        return (await transport.fetch(request, deadline=soon())).status
    async with transport.stream(request, deadline=soon()) as response:
        assert await response.aread()
        return response.status


def asked(server: Http2Server) -> list[Asked]:
    """Whose requests came over which connection."""
    return [(seen.authority.partition(".")[0], seen.connection) for seen in server.seen]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("body", [None, b"x"])
async def test_a_gateway_whose_connections_know_one_host(
    transport: AsyncTransport, server: Http2Server, streamed: bool, body: bytes | None
) -> None:
    for name in ("a", "b", "b", "c"):
        request = shared(server.port, name, "/bound", body)
        assert await status(transport, request, streamed=streamed) == 200
    # b is asked twice, and nobody else is ever sent there again
    assert asked(server) == [("a", 0), ("b", 0), ("b", 1), ("b", 1), ("c", 2)]
    assert transport.counters.retries == 1
    await assert_at_rest(transport)


async def test_a_404_that_is_meant_is_asked_for_twice_once(transport: AsyncTransport, server: Http2Server) -> None:
    assert await status(transport, shared(server.port, "a", "/")) == 200
    for name in ("b", "c", "b", "d"):
        assert await status(transport, shared(server.port, name, "/missing")) == 404
    assert asked(server) == [("a", 0), ("b", 0), ("b", 1), ("c", 0), ("b", 0), ("d", 0)]


@pytest.mark.parametrize("proof", ["served before", "an application's answer", "its own connection", "not shared"])
async def test_a_404_that_is_believed_at_once(transport: AsyncTransport, server: Http2Server, proof: str) -> None:
    requests = [shared(server.port, "a", "/"), shared(server.port, "b", "/missing")]
    if proof == "served before":
        requests.insert(1, shared(server.port, "c", "/"))
    elif proof == "an application's answer":
        requests[1].target = "/missing/application/json"
    elif proof == "its own connection":
        requests[1].origin = requests[0].origin
    else:
        requests[1].coalesce = "off"
    for request in requests[:-1]:
        assert await status(transport, request) == 200
    assert await status(transport, requests[-1]) == 404
    assert len(server.seen) == len(requests)


async def test_a_body_that_is_gone_is_not_sent_for_a_second_opinion(
    transport: AsyncTransport, server: Http2Server
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    assert await status(transport, shared(server.port, "a", "/")) == 200
    assert await status(transport, shared(server.port, "b", "/bound", pieces())) == 404
    assert asked(server) == [("a", 0), ("b", 0)]
    assert await status(transport, shared(server.port, "b", "/bound", b"x")) == 200


async def test_without_a_second_opinion_the_first_one_stands(codec: str, server: Http2Server) -> None:
    options = TransportOptions(codec=codec, max_connections_total=1, pool_timeout=0.3)
    async with AsyncTransport(options) as transport:
        held = shared(server.port, "a", "/hold")
        async with transport.stream(held, deadline=soon()) as response:
            assert await anext(aiter(response)) == b"held"
            for streamed in (False, True):
                assert await status(transport, shared(server.port, "b", "/bound"), streamed=streamed) == 404
        assert await status(transport, shared(server.port, "b", "/bound")) == 200
    assert asked(server) == [("a", 0), ("b", 0), ("b", 0), ("b", 0), ("b", 1)]


async def test_what_is_known_is_forgotten_in_time(codec: str, server: Http2Server) -> None:
    async with AsyncTransport(TransportOptions(codec=codec, http1_memory=0.2)) as transport:
        for name in ("a", "b"):
            assert await status(transport, shared(server.port, name, "/bound")) == 200
        await _aio.sleep(0.3)
        assert await status(transport, shared(server.port, "c", "/")) == 200
        await _aio.sleep(0.3)
        assert await status(transport, shared(server.port, "d", "/bound")) == 200
    assert asked(server) == [("a", 0), ("b", 0), ("b", 1), ("c", 0), ("d", 0), ("d", 2)]


async def test_strict_hosts_too(codec: str, certificate: Certificate) -> None:
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context())
    with Http2Server(tls=certificate.server_context("h2")) as server:
        async with AsyncTransport(options) as transport:
            for name in ("a", "b", "b"):
                origin = Origin("https", f"{name}.grotte.localhost", server.port)
                assert await status(transport, Request("GET", origin, "/bound", coalesce="strict")) == 200
        assert asked(server) == [("a", 0), ("b", 0), ("b", 1), ("b", 1)]
        assert server.violations == []


async def test_over_http1_there_is_nothing_to_doubt(transport: AsyncTransport) -> None:
    with serve_http1() as server:
        for name in ("a", "b"):
            assert await status(transport, shared(server.port, name, "/missing")) == 404
        assert len(server.seen) == 2
