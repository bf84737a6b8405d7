"""The connections to one place, for one lane, and the queue of those who wait for a slot on them."""

from __future__ import annotations

import copy
import itertools
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable

from grotte._core import _aio
from grotte._core.http2.channel import Channel
from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.dial import NoHttp2, dial
from grotte._core.http2.response import late
from grotte._core.http2.stream import AsyncParty
from grotte._proto.http import Origin
from grotte._proto.http2.select import make_codec
from grotte._proto.options import Counters, TransportOptions, earliest
from grotte._proto.proxy import Proxy
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolTimeout,
)

logger = logging.getLogger("grotte.http2")

#: After a failed attempt to open one more connection beside others, requests wait for slots for so long.
DIAL_PAUSE = 1.0


class AsyncSeeker(AsyncParty):
    """Somebody who waits for a slot. Short calls may take the reserve, held streams may not."""

    __slots__ = ("connection", "failure", "held", "number", "route")

    def __init__(self, route: AsyncRoute, *, held: bool, number: int) -> None:
        super().__init__()
        self.route = route
        self.held = held
        self.number = number
        self.connection: AsyncConnection | None = None
        self.failure: Exception | None = None

    def ready(self) -> bool:
        return self.connection is not None or self.failure is not None or self.route.wants_dial()


class AsyncProber(AsyncParty):
    """Waits for the first sign of HTTP/2 on a new connection, or for its end."""

    __slots__ = ("connection",)

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self.connection = connection

    def ready(self) -> bool:
        return self.connection.settled or self.connection.closed


class AsyncRoute:
    """Fills one connection before it opens the next; hands free slots to whoever has waited longest.

    One lock guards the route and all its connections, so that neither can wait for the other's.
    """

    def __init__(
        self,
        origin: Origin,
        context: Callable[[], ssl.SSLContext | None],
        options: TransportOptions,
        proxy: Proxy | None = None,
    ) -> None:
        self.origin = origin
        self._proxy = proxy
        self.lock = _aio.Lock()
        self.connections: list[AsyncConnection] = []
        self._context = context
        self._options = options
        #: Under this route's lock, like all else here.
        self.counters = Counters()
        self.last_used = _aio.clock()
        self._short: OrderedDict[AsyncSeeker, None] = OrderedDict()
        self._held: OrderedDict[AsyncSeeker, None] = OrderedDict()
        self._numbers = itertools.count()
        self._dialing = False
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
        if deadline is not None and _aio.clock() >= deadline:
            raise late(deadline, processed=False)
        with self.lock:
            if self._closed:
                raise ConnectionLost("the transport is closed", processed=False)
            connection = None if self._held or self._short else self._free(held)
            if connection is not None:
                connection.reserved += 1
                return connection
            seeker = AsyncSeeker(self, held=held, number=next(self._numbers))
            self._queue(seeker)[seeker] = None
        limit = _aio.clock() + self._options.pool_timeout
        try:
            with _aio.deadline_watch(earliest(deadline, limit)) as scope:
                return await self._seek(seeker, scope)
        finally:
            with self.lock:
                self._leave(seeker)
        if deadline is not None and deadline <= limit:
            raise late(deadline, processed=False)
        raise PoolTimeout(f"no connection to {self.origin} had room for {self._options.pool_timeout:g} s")

    def give_back(self, connection: AsyncConnection) -> None:
        """Return a promised slot unused."""
        with self.lock:
            connection.reserved -= 1
            self.changed()

    async def _seek(self, seeker: AsyncSeeker, scope: _aio.deadline_scope) -> AsyncConnection:
        while True:
            event = unread = None
            with self.lock:
                connection = self._outcome(seeker)
                if connection is not None:
                    return connection
                dials = self.wants_dial()
                if dials:
                    self._dialing = True
                else:
                    unread = next((each for each in self.connections if each.unread), None)
                    event = seeker.event = None if unread else _aio.Event()
            if dials:
                await self._dial(scope)
            elif unread is not None:
                await unread.read_for(seeker, scope)
            elif event is not None and not await event.wait(scope.step):
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
        self._queue(seeker).pop(seeker, None)
        if seeker.connection is not None:
            seeker.connection.reserved -= 1
            seeker.connection = None
        self.changed()
        if any(connection.unread for connection in self.connections):
            self.baton_free()

    # ── opening (one at a time) ─────────────────────────────────────────────────────────────────────────────────

    def wants_dial(self) -> bool:
        """Whether those who wait can only be served by one more connection. Lock held."""
        if self._dialing or self._closed or not (self._short or self._held):
            return False
        usable = [connection for connection in self.connections if connection.usable]
        if not usable:
            return True
        if len(usable) >= self._options.max_connections or _aio.clock() < self._no_dial_before:
            return False
        short = bool(self._short)
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
                self._dialing = False
                if connection is not None:
                    self.connections.append(connection)
                    if self._closed:
                        connection.retire()
                self.lost()

    def _dial_failed(self, failure: Exception) -> None:
        logger.debug("connect failed origin=%s: %s", self.origin, failure)
        self._options.tell("connect.failed", origin=self.origin, error=failure)
        if any(connection.usable for connection in self.connections):
            self._no_dial_before = _aio.clock() + DIAL_PAUSE
            return
        for seeker in [*self._short, *self._held]:
            seeker.failure = copy_error(failure)
            seeker.wake()

    async def _connect(self, scope: _aio.deadline_scope) -> AsyncConnection:
        limit = _aio.clock() + self._options.connect_timeout
        logger.debug("connect origin=%s", self.origin)
        self._options.tell("connect.started", origin=self.origin, proxy=self._proxy)
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
        free = None
        for connection in tuple(self.connections):
            if free is None:
                connection.refresh()
                if connection.usable and self._room(connection, held) > 0:
                    free = connection
            elif not connection.active:
                connection.refresh()  # those that are not needed any more close in time
        return free

    def _room(self, connection: AsyncConnection, held: bool) -> int:
        return connection.cap - connection.active - (self._reserve(connection) if held else 0)

    def changed(self) -> None:
        """Hand out what is free, in the order of arrival, and have more opened when that is needed."""
        if not (self._short or self._held):
            return
        for connection in self.connections:
            if connection.usable:
                self._grant(connection)
        if self.wants_dial():
            next(iter(self._short or self._held)).wake()

    def freed(self, connection: AsyncConnection) -> None:
        """Hand out a slot that is free again."""
        if self._short or self._held:
            self._grant(connection)

    def _grant(self, connection: AsyncConnection) -> None:
        free, reserve = connection.cap - connection.active, self._reserve(connection)
        while free > 0:
            seeker = self._oldest() if free > reserve else next(iter(self._short), None)
            if seeker is None:
                return
            self._queue(seeker).pop(seeker)
            free -= 1
            connection.reserved += 1
            seeker.connection = connection
            seeker.wake()

    def _oldest(self) -> AsyncSeeker | None:
        heads = [next(iter(queue)) for queue in (self._short, self._held) if queue]
        return min(heads, key=lambda seeker: seeker.number) if len(heads) > 1 else next(iter(heads), None)

    def _queue(self, seeker: AsyncSeeker) -> OrderedDict[AsyncSeeker, None]:
        return self._held if seeker.held else self._short

    def calm(self, cap: int) -> None:
        """Begin the next connection with this cap."""
        self._calm_cap = cap

    def lost(self) -> None:
        """Forget connections that have closed."""
        if any(connection.closed and connection.silent for connection in self.connections):
            self._known = False  # whoever answers there now may speak something else
        self.connections = [connection for connection in self.connections if not connection.closed]
        self.changed()

    def baton_free(self) -> None:
        """Have one of those who wait here read the connection that nobody reads."""
        for queue in (self._short, self._held):
            for seeker in queue:
                if seeker.event is not None and not seeker.event.is_set():
                    seeker.wake()
                    return

    def sweep(self) -> bool:
        """Close connections that have been idle for too long; True when nothing is left and nobody came lately."""
        with self.lock:
            for connection in tuple(self.connections):
                if not connection.active:
                    connection.refresh()
            busy = self.connections or self._short or self._held or self._dialing
            return not busy and _aio.clock() - self.last_used > self._options.idle_timeout

    def close(self) -> None:
        """Close all connections and turn away those who wait."""
        with self.lock:
            self._closed = True
            for seeker in [*self._short, *self._held]:
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
