"""A transport on each codec, and the fault server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.http2_server import Http2Server


@pytest.fixture(params=["native", "h2"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options(codec: str) -> TransportOptions:
    return TransportOptions(codec=codec)


@pytest.fixture
async def transport(options: TransportOptions) -> AsyncIterator[AsyncTransport]:
    async with AsyncTransport(options) as transport:
        yield transport


@pytest.fixture
def server() -> Iterator[Http2Server]:
    with Http2Server() as server:
        yield server
    assert server.violations == []


@pytest.fixture
def origin(server: Http2Server) -> Origin:
    return Origin("http", "127.0.0.1", server.port)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "*.grotte.localhost")
