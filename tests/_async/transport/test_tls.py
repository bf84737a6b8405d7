"""TLS: ALPN, certificates, coalescing by certificate, and what can go wrong."""

from __future__ import annotations

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import ConnectFailed
from tests._async.transport.support import answer, assert_at_rest, get, post, soon
from tests.servers.certificates import Certificate
from tests.servers.http2_server import Http2Server


@pytest.fixture
def options(codec: str, certificate: Certificate) -> TransportOptions:
    return TransportOptions(codec=codec, ssl_context=certificate.client_context())


async def test_requests_over_tls(transport: AsyncTransport, certificate: Certificate) -> None:
    with Http2Server(tls=certificate.server_context("h2"), window=1 << 20) as server:
        origin = Origin("https", "localhost", server.port)

        async def one() -> None:
            assert await answer(transport, post(origin, "/echo", b"ping")) == b"ping"

        async with _aio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert await answer(transport, post(origin, "/count", bytes(5_000_000))) == b"5000000"
        assert len(await answer(transport, get(origin, "/bytes/5000000"))) == 5_000_000
        assert len(server.connections) == 1
        await assert_at_rest(transport)


async def test_one_byte_at_a_time(transport: AsyncTransport, certificate: Certificate) -> None:
    with Http2Server(tls=certificate.server_context("h2"), drip=True) as server:
        origin = Origin("https", "localhost", server.port)
        assert len(await answer(transport, get(origin, "/bytes/200"))) == 200


async def test_hosts_share_what_the_certificate_covers(transport: AsyncTransport, certificate: Certificate) -> None:
    with Http2Server(tls=certificate.server_context("h2")) as server:
        for name in ("a", "b", "c"):
            origin = Origin("https", f"{name}.grotte.localhost", server.port)
            body = await answer(transport, Request("GET", origin, "/authority", coalesce="domain"))
            assert body == f"{name}.grotte.localhost:{server.port}".encode()
        assert len(server.connections) == 1


async def test_strict_hosts_share_what_certificate_and_address_agree_on(
    transport: AsyncTransport, certificate: Certificate
) -> None:
    with (
        Http2Server(tls=certificate.server_context("h2")) as server,
        Http2Server(tls=certificate.server_context("h2")) as other,
    ):
        for name in ("localhost", "a.grotte.localhost", "b.grotte.localhost"):
            origin = Origin("https", name, server.port)
            assert await answer(transport, Request("GET", origin, "/", coalesce="strict")) == b"hello"
        assert len(server.connections) == 1
        elsewhere = Origin("https", "a.grotte.localhost", other.port)
        assert await answer(transport, Request("GET", elsewhere, "/", coalesce="strict")) == b"hello"
        alone = Origin("https", "b.grotte.localhost", server.port)
        misdirected = Request("POST", alone, "/misdirected", body=b"x", coalesce="strict")
        assert await answer(transport, misdirected) == b"hello"
        assert (len(server.connections), len(other.connections)) == (2, 1)


async def test_a_certificate_that_does_not_cover_a_host(transport: AsyncTransport, certificate: Certificate) -> None:
    with Http2Server(tls=certificate.server_context("h2")) as server:
        covered = Origin("https", "localhost", server.port)
        assert await answer(transport, get(covered)) == b"hello"
        other = Origin("https", "other.localhost", server.port)
        with pytest.raises(ConnectFailed, match="TLS"):
            await transport.fetch(Request("GET", other, "/", coalesce="domain"), deadline=soon())
        assert [seen.authority for seen in server.seen] == [covered.authority]


async def test_an_untrusted_certificate(codec: str, certificate: Certificate) -> None:
    with Http2Server(tls=certificate.server_context("h2")) as server:
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            with pytest.raises(ConnectFailed, match="certificate") as caught:
                await transport.fetch(get(Origin("https", "localhost", server.port)), deadline=soon())
    assert not caught.value.processed


async def test_a_server_without_tls(transport: AsyncTransport) -> None:
    with Http2Server() as server, pytest.raises(ConnectFailed):
        await transport.fetch(get(Origin("https", "localhost", server.port)), deadline=soon())
