"""How many connections are opened at once; with threads, who comes when is chance."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from tests._async.transport.support import answer, assert_at_rest, get
from tests.servers.certificates import Certificate
from tests.servers.http2_server import Http2Server

#: More than two connections may be assumed to take.
MANY = 250


class Connects:
    """How many connections were being opened when the first was open."""

    def __init__(self) -> None:
        self.started = 0
        self.before_the_first: int | None = None

    def __call__(self, event: str, details: Mapping[str, object]) -> None:
        if event == "connect.started":
            self.started += 1
        elif event == "connect.complete" and self.before_the_first is None:
            self.before_the_first = self.started


@pytest.mark.parametrize(("scheme", "at_once"), [("https", 3), ("http", 1)])
async def test_connections_are_opened_at_once_where_http2_is_sure(
    codec: str, certificate: Certificate, scheme: str, at_once: int
) -> None:
    connects = Connects()
    options = TransportOptions(codec=codec, ssl_context=certificate.client_context(), trace=connects)
    tls = certificate.server_context("h2") if scheme == "https" else None
    with Http2Server(tls=tls, settings_after=0.1) as server:
        origin = Origin(scheme, "localhost", server.port)
        async with AsyncTransport(options) as transport:
            async with _aio.open_nursery() as nursery:
                for _ in range(MANY):
                    nursery.start_soon(answer, transport, get(origin))
            await assert_at_rest(transport)
        assert connects.before_the_first == at_once
        assert len(server.connections) <= 3
