"""What the transport's tests share."""

from __future__ import annotations

from grotte._core import _aio
from grotte._core.http2.connection import AsyncConnection
from grotte._core.transport import AsyncTransport, Origin, Request

#: Nothing here takes longer; a test that hangs fails by it.
PATIENCE = 20.0


def soon(seconds: float = PATIENCE) -> float:
    return _aio.clock() + seconds


def get(origin: Origin, target: str = "/") -> Request:
    return Request("GET", origin, target)


def post(origin: Origin, target: str, body: bytes) -> Request:
    return Request("POST", origin, target, body=body)


async def answer(transport: AsyncTransport, request: Request) -> bytes:
    """The body of a 200."""
    response = await transport.fetch(request, deadline=soon())
    assert response.status == 200
    return response.content


def connections(transport: AsyncTransport) -> list[AsyncConnection]:
    return [each for route in transport._pool._routes.values() for each in route.connections]


async def assert_at_rest(transport: AsyncTransport) -> None:
    """No slot is taken, nobody is parked, nobody reads."""
    patience = soon()
    for connection in connections(transport):
        while connection.active and _aio.clock() < patience:  # answers to the PINGs of cancelled streams
            with connection.lock:
                connection.refresh()
            await _aio.sleep(0.001)
        assert connection.active == 0
        assert not connection._parked
        assert connection._heir is None
        assert connection._reader is None
    for route in transport._pool._routes.values():
        assert not route.line
    assert transport.counters.streams_open == 0
