"""When a server that has fallen silent is asked whether it lives, and given up: on a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
import trio.testing

from grotte._core.transport import AsyncTransport, Origin, TransportOptions
from grotte._proto.transport_errors import ConnectionLost
from tests._async.transport.support import get, post
from tests.servers.http2_server import Http2Server

OPTIONS = TransportOptions()


class Course:
    """Runs a transport beside a clock that stands still until it is moved."""

    def __init__(self, server: Http2Server) -> None:
        self.server = server
        self.clock = trio.testing.MockClock()
        self.origin = Origin("http", "127.0.0.1", server.port)
        self.lost: list[ConnectionLost] = []

    async def ask(self, transport: AsyncTransport, target: str) -> None:
        try:
            await transport.fetch(post(self.origin, target, b"x"), deadline=None)
        except ConnectionLost as error:
            self.lost.append(error)

    async def until(self, reached: Callable[[], bool]) -> None:
        """The server's thread is on the real clock."""
        patience = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < patience
            await trio.lowlevel.checkpoint()
            time.sleep(0.001)

    async def move(self, seconds: float) -> None:
        """Let time pass, and all that comes of it happen."""
        self.clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()


def test_a_server_that_falls_silent_is_given_up_after_thirty_seconds() -> None:
    async def main() -> None:
        async with AsyncTransport(OPTIONS) as transport, trio.open_nursery() as nursery:
            response = await transport.fetch(get(course.origin), deadline=None)
            assert response.content == b"hello"
            for target in ("/silent", "/never", "/never"):
                nursery.start_soon(course.ask, transport, target)
            await course.until(lambda: transport.counters.streams_open == 3 and server.connections[0].silent)
            await trio.testing.wait_all_tasks_blocked()
            sent = transport.counters.frames_sent
            await course.move(OPTIONS.ping_after - 0.1)
            assert transport.counters.frames_sent == sent
            await course.move(0.2)
            assert transport.counters.frames_sent == sent + 1  # one PING, for all of them
            await course.move(OPTIONS.ping_timeout - 0.2)
            assert not course.lost
            await course.move(0.3)
            assert len(course.lost) == 3

    with Http2Server() as server:
        course = Course(server)
        trio.run(main, clock=course.clock)
    assert all("silent" in str(error) and error.processed for error in course.lost)
    assert 2 <= len(server.seen) <= 4  # it reads nothing more once it has seen the silent one


def test_no_ping_is_sent_while_nobody_waits_or_the_server_speaks() -> None:
    async def main() -> None:
        async with AsyncTransport(OPTIONS) as transport, trio.open_nursery() as nursery:
            response = await transport.fetch(get(course.origin), deadline=None)
            assert response.content == b"hello"
            await course.move(45)  # idle, and not for too long yet
            assert server.pings == 0
            nursery.start_soon(course.ask, transport, "/never")
            await course.until(lambda: len(server.seen) == 2)
            for pings in range(1, 5):
                await course.move(OPTIONS.ping_after + 0.1)
                await course.until(lambda pings=pings: server.pings == pings)  # type: ignore[misc]
                await trio.testing.wait_all_tasks_blocked(0.05)  # its answer
            assert not course.lost
            nursery.cancel_scope.cancel()

    with Http2Server() as server:
        course = Course(server)
        trio.run(main, clock=course.clock)
    assert len(server.connections) == 1
