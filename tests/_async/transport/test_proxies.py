"""Proxies: CONNECT, forwarding and SOCKS5, by option, by request and by environment."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import ConnectFailed
from grotte.errors import InvalidArgumentException
from tests._async.transport.support import answer, assert_at_rest, get, post, soon
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.http1_server import serve_http1
from tests.servers.http2_server import Http2Server
from tests.servers.proxy_server import ProxyServer

#: No resolver knows it.
HOST = "box.grotte.test"


#: Where a proxy with TLS is: the certificate names no addresses.
HERE = "localhost"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "*.grotte.test", HERE)


def proxy_tls(certificate: Certificate, scheme: str) -> ssl.SSLContext | None:
    """What a proxy with TLS speaks, which would rather speak HTTP/2 if it were offered that."""
    return certificate.server_context("h2", "http/1.1") if scheme == "https" else None


def trusting(certificate: Certificate, codec: str, proxy: str | None) -> TransportOptions:
    return TransportOptions(codec=codec, ssl_context=certificate.client_context(), proxy=proxy)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("credentials", [None, "user:p@ss"])
async def test_http2_through_a_proxy(
    codec: str, certificate: Certificate, scheme: str, credentials: str | None
) -> None:
    with (
        Http2Server(tls=certificate.server_context("h2")) as server,
        ProxyServer(credentials=credentials, tls=proxy_tls(certificate, scheme)) as proxy,
    ):
        user = "user:p%40ss@" if credentials else ""
        options = trusting(certificate, codec, f"{scheme}://{user}{HERE}:{proxy.port}")
        async with AsyncTransport(options) as transport:
            for name in ("a", "b", "c"):
                origin = Origin("https", f"{name}.grotte.test", server.port)
                assert await answer(transport, Request("POST", origin, "/echo", body=b"x", coalesce="domain")) == b"x"
            assert len(await answer(transport, get(origin, "/bytes/1000000"))) == 1_000_000
            await assert_at_rest(transport)
        how = "CONNECT" if scheme.startswith("http") else "SOCKS"
        assert proxy.seen == [f"{how} a.grotte.test:{server.port}", f"{how} c.grotte.test:{server.port}"]
        assert len(server.connections) == 2
        assert server.violations == []


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_an_origin_without_tls_through_a_proxy(codec: str, certificate: Certificate, scheme: str) -> None:
    """A SOCKS proxy carries HTTP/2; an HTTP proxy forwards over HTTP/1.1."""
    with serve_http1() as old, Http2Server() as server, ProxyServer(tls=proxy_tls(certificate, scheme)) as proxy:
        forwards = scheme.startswith("http")
        port = old.port if forwards else server.port
        options = trusting(certificate, codec, f"{scheme}://{HERE}:{proxy.port}")
        async with AsyncTransport(options) as transport:
            body = await answer(transport, get(Origin("http", HOST, port)))
            assert body == (b"old" if forwards else b"hello")
        assert proxy.seen == [f"GET http://{HOST}:{port}/" if forwards else f"SOCKS {HOST}:{port}"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_http1_origin_behind_a_proxy(codec: str, certificate: Certificate, scheme: str) -> None:
    proxy_context = proxy_tls(certificate, scheme)
    with serve_http1(certificate.server_context("http/1.1")) as server, ProxyServer(tls=proxy_context) as proxy:
        options = trusting(certificate, codec, f"{scheme}://{HERE}:{proxy.port}")
        async with AsyncTransport(options) as transport:
            assert await answer(transport, post(Origin("https", HOST, server.port), "/", b"new")) == b"new"
        assert proxy.seen == [f"CONNECT {HOST}:{server.port}"] * 2


async def test_the_proxy_of_a_request_goes_before_and_shares_nothing(codec: str, certificate: Certificate) -> None:
    with (
        Http2Server(tls=certificate.server_context("h2")) as server,
        ProxyServer() as general,
        ProxyServer() as special,
    ):
        origin = Origin("https", HOST, server.port)
        async with AsyncTransport(trusting(certificate, codec, f"http://127.0.0.1:{general.port}")) as transport:
            for url in (None, f"http://127.0.0.1:{special.port}", None):
                request = Request("GET", origin, "/", coalesce="domain", proxy=url)
                assert await answer(transport, request) == b"hello"
        assert (len(general.seen), len(special.seen), len(server.connections)) == (1, 1, 2)


async def test_the_proxies_of_the_environment(
    codec: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Http2Server(tls=certificate.server_context("h2")) as server, ProxyServer() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "direct.grotte.test,.example")
        async with AsyncTransport(trusting(certificate, codec, None)) as transport:
            assert await answer(transport, get(Origin("https", HOST, server.port))) == b"hello"
            with pytest.raises(ConnectFailed):  # without a proxy nobody knows that name
                await transport.fetch(get(Origin("https", "direct.grotte.test", server.port)), deadline=soon())
            with Http2Server() as here:
                assert await answer(transport, get(Origin("http", "127.0.0.1", here.port))) == b"hello"
        assert proxy.seen == [f"CONNECT {HOST}:{server.port}"]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000,
        b"HTTP/1.1 200",
        b"",
    ],
)
async def test_a_proxy_that_refuses_or_is_none(codec: str, said: bytes) -> None:
    with ProxyServer(answer=said) as proxy:
        async with AsyncTransport(TransportOptions(codec=codec, proxy=f"http://127.0.0.1:{proxy.port}")) as transport:
            with pytest.raises(ConnectFailed, match="the proxy") as caught:
                await transport.fetch(get(Origin("https", HOST, 443)), deadline=soon())
    assert not caught.value.processed


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_credentials_never_show(
    codec: str, certificate: Certificate, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    with ProxyServer(credentials="someone:else", tls=proxy_tls(certificate, scheme)) as proxy:
        options = TransportOptions(
            codec=codec,
            ssl_context=certificate.client_context(),
            proxy=f"{scheme}://me:secret@{HERE}:{proxy.port}",
            trace=lambda event, details: told.append(
                f"{event} {details} {[vars(each) for each in errors_in(details)]}"
            ),
        )
        assert "secret" not in repr(options)
        async with AsyncTransport(options) as transport:
            request = Request("GET", Origin("https", HOST, 443), "/", proxy=options.proxy)
            assert "secret" not in repr(request)
            with pytest.raises(ConnectFailed, match="credentials") as caught:
                await transport.fetch(request, deadline=soon())
    assert "secret" not in str(caught.getrepr(style="short"))
    assert "secret" not in caplog.text
    assert any(f"{HERE}:{proxy.port}" in event for event in told)
    assert "secret" not in str(told)


def errors_in(details: Mapping[str, object]) -> list[Exception]:
    return [value for value in details.values() if isinstance(value, Exception)]


@pytest.mark.parametrize("forwarded", [False, True])
async def test_over_http1_what_is_asked_for_is_not_logged(
    codec: str, forwarded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = "/files?path=/a%20b&signature=secret"
    with serve_http1() as server, ProxyServer(credentials="me:secret") as proxy:
        url = f"http://me:secret@127.0.0.1:{proxy.port}" if forwarded else None
        async with AsyncTransport(TransportOptions(codec=codec, proxy=url)) as transport:
            assert await answer(transport, get(Origin("http", "127.0.0.1", server.port), target)) == b"old"
        assert server.seen[-1] == f"GET {'/files' if forwarded else target} HTTP/1.1"
        assert proxy.seen == ([f"GET http://127.0.0.1:{server.port}{target}"] if forwarded else [])
    assert "secret" not in caplog.text


@pytest.mark.parametrize("trust", ["nobody", "another name"])
async def test_a_proxy_whose_certificate_does_not_do(codec: str, certificate: Certificate, trust: str) -> None:
    context = ssl.create_default_context() if trust == "nobody" else certificate.client_context()
    where = HERE if trust == "nobody" else "127.0.0.1"
    with ProxyServer(tls=proxy_tls(certificate, "https")) as proxy:
        options = TransportOptions(codec=codec, ssl_context=context, proxy=f"https://{where}:{proxy.port}")
        async with AsyncTransport(options) as transport:
            with pytest.raises(ConnectFailed, match="TLS with the proxy") as caught:
                await transport.fetch(get(Origin("https", HOST, 443)), deadline=soon())
        assert proxy.seen == []
    assert not caught.value.processed


async def test_much_in_both_directions_through_tls_in_tls(codec: str, certificate: Certificate) -> None:
    with (
        Http2Server(tls=certificate.server_context("h2"), window=1 << 20) as server,
        ProxyServer(tls=proxy_tls(certificate, "https")) as proxy,
    ):
        options = trusting(certificate, codec, f"https://{HERE}:{proxy.port}")
        async with AsyncTransport(options) as transport:
            origin = Origin("https", HOST, server.port)
            assert await answer(transport, post(origin, "/count", bytes(5_000_000))) == b"5000000"
            assert len(await answer(transport, get(origin, "/bytes/5000000"))) == 5_000_000
            server.connections[0].close()
            assert await answer(transport, get(origin)) == b"hello"
        assert server.violations == []


async def test_no_proxy_there(codec: str) -> None:
    async with AsyncTransport(TransportOptions(codec=codec, proxy="http://127.0.0.1:1")) as transport:
        with pytest.raises(ConnectFailed, match=r"the proxy http://127\.0\.0\.1:1"):
            await transport.fetch(get(Origin("https", HOST, 443)), deadline=soon())


@pytest.mark.parametrize("url", ["ftp://me:secret@host", "http://", "http://me:secret@host:99999", "http://[secret"])
async def test_what_is_no_proxy(url: str) -> None:
    with pytest.raises(InvalidArgumentException) as caught:
        AsyncTransport(TransportOptions(proxy=url))
    assert "secret" not in str(caught.value)


async def test_trust_by_files(codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA bundle, a client certificate that the server asks for, and what the environment trusts."""
    made = make_certificate(tmp_path, "localhost")
    context = made.server_context("h2")
    context.load_verify_locations(made.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    ca, key = str(made.certificate), str(made.key)
    with Http2Server(tls=context) as server:
        origin = Origin("https", "localhost", server.port)
        options = TransportOptions(codec=codec, ca_file=ca, cert_file=ca, key_file=key)
        async with AsyncTransport(options) as transport:
            assert await answer(transport, get(origin)) == b"hello"
    with Http2Server(tls=made.server_context("h2")) as server:
        origin = Origin("https", "localhost", server.port)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            with pytest.raises(ConnectFailed, match="certificate"):
                await transport.fetch(get(origin), deadline=soon())
        monkeypatch.setenv("SSL_CERT_FILE", ca)
        async with AsyncTransport(TransportOptions(codec=codec)) as transport:
            assert await answer(transport, get(origin)) == b"hello"
        with pytest.raises(InvalidArgumentException, match="missing"):
            TransportOptions(ca_file=str(tmp_path / "missing.pem")).make_context()
        with pytest.raises(InvalidArgumentException, match="not both"):
            TransportOptions(ca_file=ca, ssl_context=context).make_context()
