"""The connections to one place, for one lane, and the queue of those who wait for a slot on them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from grotte._core import _aio
from grotte._core.http2.ceiling import AsyncCeiling
from grotte._core.http2.channel import Channel
from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.dial import NoHttp2, dial
from grotte._core.http2.response import late
from grotte._core.http2.seeker import AsyncLine, AsyncProber, AsyncSeeker
from grotte._proto.http import Origin
from grotte._proto.http2.codec import ASSUMED_MAX_CONCURRENT_STREAMS
from grotte._proto.http2.select import make_codec
from grotte._proto.options import Tally, TransportOptions, earliest
from grotte._proto.proxy import Proxy
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolTimeout,
)

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("grotte.http2")

#: After a failed attempt to open one more connection beside others, requests wait for slots for so long.
DIAL_PAUSE = 1.0
#: How long a seeker reads one connection while there are others that nobody may be reading.
TURN = 0.1


class AsyncRoute:
    """Fills one connection before it opens the next; hands free slots to whoever has waited longest.

    The ceiling's lock guards the route and all its connections.
    """

    def __init__(
        self,
        origin: Origin,
        context: Callable[[], ssl.SSLContext | None],
        options: TransportOptions,
        ceiling: AsyncCeiling,
        proxy: Proxy | None = None,
    ) -> None:
        self.origin = origin
        self._proxy = proxy
        self._ceiling = ceiling
        self.lock = ceiling.lock
        #: Under that lock, like all else here.
        self.line = AsyncLine()
        self.connections: list[AsyncConnection] = []
        self._context = context
        self._options = options
        self.counters = Tally()
        self.last_used = _aio.clock()
        #: Connections that are being opened.
        self._dialing = 0
        self._no_dial_before = 0.0
        #: HTTP/2 has been spoken here, so that a request may go out at once.
        self._known = False
        #: With which cap the next connection begins, after an ENHANCE_YOUR_CALM.
        self._calm_cap: int | None = None
        self._closed = False

    async def acquire(self, deadline: float | None, *, held: bool) -> AsyncConnection:
        """Wait for a slot and return its connection, on which it is promised to the caller.

        Args:
            deadline: The request's, on `clock()`.
            held: The stream may stay open for long.

        Raises:
            ConnectFailed: no connection could be opened.
            DeadlineExceeded: the deadline or the pool's time limit passed.
            NoHttp2: the server speaks HTTP/1.1 only.
        """
        now = self.last_used = _aio.clock()
        if deadline is not None and now >= deadline:
            raise late(deadline, processed=False)
        with self.lock:
            if self._closed:
                raise ConnectionLost("the transport is closed", processed=False)
            connection = None if self.line else self._free(held)
            if connection is not None:
                connection.reserved += 1
                return connection
            seeker = AsyncSeeker(self.wants_dial, held=held)
            self.line.join(seeker)
        limit = now + self._options.pool_timeout
        try:
            with _aio.deadline_watch(earliest(deadline, limit)) as scope:
                return await self._seek(seeker, scope)
        finally:
            with self.lock:
                self._leave(seeker)
        if deadline is not None and deadline <= limit:
            raise late(deadline, processed=False)
        full = self._ceiling.is_reached()
        limit_name = "max_connections_total" if full else "max_connections"
        text = f"no connection to {self.origin} had room for {self._options.pool_timeout:g} s (limit: {limit_name})"
        raise PoolTimeout(text)

    def give_back(self, connection: AsyncConnection) -> None:
        """Return a promised slot unused."""
        with self.lock:
            connection.reserved -= 1
            self.changed()

    async def _seek(self, seeker: AsyncSeeker, scope: _aio.deadline_scope) -> AsyncConnection:
        while True:
            event = unread = None
            with self.lock:
                several = not self.wants_dial() and self._look_around()
                connection = self._outcome(seeker)
                if connection is not None:
                    return connection
                dials = self.wants_dial()
                if dials:
                    self._dialing += 1
                    self._ceiling.take(self)
                else:
                    unread = next((each for each in self._ceiling.readable_for(self) if each.unread), None)
                    event = seeker.event = None if unread else _aio.Event()
            if dials:
                await self._dial(scope)
            elif unread is not None:
                await self._read(unread, seeker, scope, several=several)
            elif event is not None and not await event.wait(scope.step):
                await scope.expire()

    def _look_around(self) -> bool:
        """Take in what has come on connections that nobody reads, if there are several; whether there are."""
        connections = tuple(self._ceiling.readable_for(self))
        if len(connections) > 1:
            for connection in connections:
                connection.refresh()
        return len(connections) > 1

    async def _read(
        self, connection: AsyncConnection, seeker: AsyncSeeker, scope: _aio.deadline_scope, *, several: bool
    ) -> None:
        """Read for others; not for long while a slot may just as well come from another connection."""
        turn = _aio.clock() + TURN if several else None
        with _aio.deadline_watch(earliest(scope.deadline, turn)) as step:
            await connection.read_for(seeker, step)
        if step.expired and scope.deadline is not None and _aio.clock() >= scope.deadline:
            await scope.expire()

    def _outcome(self, seeker: AsyncSeeker) -> AsyncConnection | None:
        seeker.event = None
        if seeker.failure is not None:
            raise seeker.failure
        connection, seeker.connection = seeker.connection, None
        return connection

    def _leave(self, seeker: AsyncSeeker) -> None:
        """A seeker goes: what it was given, or was woken for, goes to the next."""
        seeker.event = None
        self.line.leave(seeker)
        if seeker.connection is not None:
            seeker.connection.reserved -= 1
            seeker.connection = None
        self.changed()
        if any(connection.unread for connection in self.connections):
            self.baton_free()

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────

    def wants_dial(self) -> bool:
        """Whether one more connection is to be opened now. Lock held."""
        return self.lacks_connection() and self._ceiling.admits(self)

    def lacks_connection(self) -> bool:
        """Whether those who wait can only be served by one more connection. Lock held.

        Where HTTP/2 is sure to be spoken, as many are opened at once as the line will need, by what a server may be
        assumed to allow: one after another, each would cost those at the end several round trips.
        """
        if self._closed or len(self.line) <= self._dialing * ASSUMED_MAX_CONCURRENT_STREAMS:
            return False
        usable = [connection for connection in self.connections if connection.usable]
        if not (usable or self._dialing):
            return True
        if self._dialing and not (self._known or self.origin.scheme == "https"):
            return False
        if len(usable) + self._dialing >= self._options.max_connections or _aio.clock() < self._no_dial_before:
            return False
        short = self.line.short_waits()
        return all(each.settled and self._is_full(each, held=not short) for each in usable)

    def _is_full(self, connection: AsyncConnection, *, held: bool) -> bool:
        """Slots that cancelled streams give back in a moment do not count."""
        return connection.live >= connection.cap - (self._reserve(connection) if held else 0)

    def _reserve(self, connection: AsyncConnection) -> int:
        return int(connection.cap * self._options.reserve)

    async def _dial(self, scope: _aio.deadline_scope) -> None:
        connection = None
        try:
            connection = await self._connect(scope)
        except (ConnectFailed, DeadlineExceeded, NoHttp2) as failure:
            with self.lock:
                self._dial_failed(failure)
        finally:
            with self.lock:
                self._dialing -= 1
                if connection is None:
                    self._ceiling.give_back(1)
                else:
                    self.connections.append(connection)
                    if self._closed:
                        connection.retire()
                self.lost()

    def _dial_failed(self, failure: Exception) -> None:
        logger.debug("connect failed origin=%s: %s", self.origin, failure)
        self._options.tell("connect.failed", origin=self.origin, error=failure)
        others = self._dialing > 1 and not isinstance(failure, NoHttp2)
        if others or any(connection.usable for connection in self.connections):
            self._no_dial_before = _aio.clock() + DIAL_PAUSE
            return
        for seeker in self.line:
            seeker.failure = copy_error(failure)
            seeker.wake()

    async def _connect(self, scope: _aio.deadline_scope) -> AsyncConnection:
        limit = _aio.clock() + self._options.connect_timeout
        logger.debug("connect origin=%s", self.origin)
        via = None if self._proxy is None else str(self._proxy)  # which holds no password
        self._options.tell("connect.started", origin=self.origin, proxy=via)
        with _aio.deadline_scope(earliest(scope.deadline, limit)) as step:
            channel = await dial(self.origin, self._context(), step.step, self._proxy)
            return await self._greet(channel, step)
        if scope.deadline is not None and scope.deadline <= limit:
            await scope.expire()
        text = f"no connection to {self.origin} within {self._options.connect_timeout:g} s"
        raise DeadlineExceeded(text, kind="connect", processed=False)

    async def _greet(self, channel: Channel, step: _aio.deadline_scope) -> AsyncConnection:
        """Speak HTTP/2, and without TLS hear it too before any request is risked."""
        options = self._options
        codec = make_codec(
            options.codec,
            stream_window=options.stream_window,
            connection_window=options.connection_window,
            max_header_list=options.max_header_list,
        )
        connection = AsyncConnection(channel, codec, self.lock, self, options, self.counters)
        try:
            connection.flush()
            if channel.tls is None and not self._known:
                await self._probe(connection, step)
        except BaseException:
            with self.lock:
                connection.retire()
            raise
        self._known = True
        with self.lock:
            if self._calm_cap is not None:
                connection.limit(self._calm_cap)
                self._calm_cap = None
        self._options.tell("connect.complete", origin=self.origin, address=connection.address)
        return connection

    async def _probe(self, connection: AsyncConnection, step: _aio.deadline_scope) -> None:
        limit = _aio.clock() + self._options.probe_timeout
        with _aio.deadline_scope(earliest(step.deadline, limit)) as wait:
            await connection.read_for(AsyncProber(connection), wait)
        if connection.settled:
            return
        if wait.expired and step.deadline is not None and step.deadline <= limit:
            await step.expire()
        if connection.failure is not None and not (connection.not_http2 or connection.silent):
            raise ConnectFailed(str(connection.failure))
        raise NoHttp2(forever=False)

    # ── slots (lock held) ───────────────────────────────────────────────────────────────────────────────────────

    def _free(self, held: bool) -> AsyncConnection | None:
        free = self._first_with_room(held)
        if free is None:
            for connection in tuple(self.connections):
                connection.refresh()  # where nobody reads, streams may have ended
            free = self._first_with_room(held)
        for connection in tuple(self.connections):
            if connection is not free:
                connection.rest()
        return free

    def _first_with_room(self, held: bool) -> AsyncConnection | None:
        for connection in tuple(self.connections):
            if self._has_room(connection, held) and (not connection.refresh() or self._has_room(connection, held)):
                return connection
        return None

    def _has_room(self, connection: AsyncConnection, held: bool) -> bool:
        kept = self._reserve(connection) if held else 0
        return connection.usable and connection.active < connection.cap - kept

    def changed(self) -> None:
        """Hand out what is free, in the order of arrival, and have more opened when that is needed."""
        if self.line:
            for connection in self.connections:
                if connection.usable:
                    self._grant(connection)
            if self.wants_dial():
                self.line.first().wake()
        self._ceiling.call()

    def freed(self, connection: AsyncConnection) -> None:
        """Hand out a slot that is free again."""
        if self.line:
            self._grant(connection)
        if self._ceiling.waiting:
            self._ceiling.call()

    def _grant(self, connection: AsyncConnection) -> None:
        free, reserve = connection.cap - connection.active, self._reserve(connection)
        while free > 0:
            seeker = self.line.oldest() if free > reserve else self.line.first_short()
            if seeker is None:
                return
            self.line.leave(seeker)
            free -= 1
            connection.reserved += 1
            seeker.connection = connection
            seeker.wake()

    def calm(self, cap: int) -> None:
        """Begin the next connection with this cap."""
        self._calm_cap = cap

    def lost(self) -> None:
        """Forget connections that have closed."""
        if any(connection.closed and connection.silent for connection in self.connections):
            self._known = False  # whoever answers there now may speak something else
        before = len(self.connections)
        self.connections = [connection for connection in self.connections if not connection.closed]
        self._ceiling.give_back(before - len(self.connections))
        self.changed()

    def baton_free(self) -> None:
        """Have one of those who wait for a slot read the connection that nobody reads."""
        if not self.line.wake_parked():
            self._ceiling.baton_free()

    def sweep(self) -> bool:
        """Close connections that have been idle for too long; True when nothing is left and nobody came lately."""
        for connection in tuple(self.connections):
            if not connection.active:
                connection.refresh()
        busy = self.connections or self.line or self._dialing
        return not busy and _aio.clock() - self.last_used > self._options.idle_timeout

    def close(self) -> None:
        """Close all connections and turn away those who wait."""
        with self.lock:
            self._closed = True
            for seeker in self.line:
                seeker.failure = ConnectionLost("the transport is closed", processed=False)
                seeker.wake()
            for connection in tuple(self.connections):
                connection.retire()

    def abandon(self) -> None:
        """In a forked child: forget the parent's connections."""
        for connection in self.connections:
            connection.abandon()


def copy_error(error: Exception) -> Exception:
    """The same failure for somebody else to raise: a traceback belongs to one."""
    twin = copy.copy(error)
    twin.__cause__, twin.__traceback__ = error, None
    return twin
