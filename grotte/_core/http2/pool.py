"""The pool: which connections a request may use, and the request's life on one of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from grotte._core import _aio
from grotte._core.exchange import HEIR_SECONDS, Request
from grotte._core.http2.ceiling import AsyncCeiling
from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.response import (
    AsyncExchange,
    AsyncHttp2Response,
    late,
    request_headers,
    whole_response,
)
from grotte._core.http2.route import AsyncRoute
from grotte._core.http2.stream import AsyncStream
from grotte._proto.http import Headers, Lane, Response
from grotte._proto.options import Counters, Tally, TransportOptions, earliest
from grotte._proto.proxy import Proxies, Proxy
from grotte._proto.sharing import Doubt, Place, Sharing, own_place
from grotte._proto.transport_errors import DeadlineExceeded, TransportError

if TYPE_CHECKING:
    import ssl

RouteKey = tuple[Place, Lane, Proxy | None]


class AsyncPool:
    """Routes by key. Belongs to one event loop; in sync, threads share it."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        #: Of routes that are no more.
        self._past = Tally()
        self._ceiling = AsyncCeiling(options.max_connections_total)
        self._routes: dict[RouteKey, AsyncRoute] = {}
        self._proxies = Proxies(options.proxy)
        self._sharing = Sharing(options.http1_memory, _aio.clock)
        self._context: ssl.SSLContext | None = None
        self._closed = False

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    async def fetch(self, place: Place, request: Request, deadline: float | None) -> Response:
        """One attempt; see `AsyncTransport.fetch`.

        Raises:
            NoHttp2: the origin needs HTTP/1.1; nothing was sent.
        """
        exchange = AsyncExchange(request, request_headers(request), self._options)
        try:
            with _aio.deadline_watch(deadline) as scope:
                connection = await self._acquire(place, request, deadline, held=False)
                stream = exchange.open(connection, eager=True)
                if not stream.sent_end:
                    await exchange.send_body(stream, scope)
                response = await whole_response(stream, scope)
                if response.status < 400 and place[1] != request.origin.host:
                    self._served(place, request)
                return response
        finally:
            exchange.release()
        raise late(deadline, processed=exchange.processed)

    def stream(
        self, place: Place, request: Request, deadline: float | None, idle_timeout: float | None
    ) -> AsyncAnswerBlock:
        """One attempt; see `AsyncTransport.stream`."""
        return AsyncAnswerBlock(self, place, request, deadline, idle_timeout)

    async def begin(
        self,
        exchange: AsyncExchange,
        place: Place,
        request: Request,
        deadline: float | None,
        idle_timeout: float | None,
    ) -> AsyncHttp2Response:
        """Send a request, and return when its answer begins."""
        stream: AsyncStream | None = None
        with _aio.deadline_watch(deadline) as scope:
            connection = await self._acquire(place, request, deadline, held=True)
            opened = exchange.open(connection, eager=False)
            await exchange.send_body(opened, scope)
            await self._await_status(opened, scope, idle_timeout)
            stream = opened
            if stream.status < 400 and place[1] != request.origin.host:
                self._served(place, request)
        if stream is None:
            raise late(deadline, processed=exchange.processed)
        return AsyncHttp2Response(stream, deadline, idle_timeout)

    async def answer(self, stream: AsyncStream, deadline: float) -> AsyncHttp2Response:
        """The answer to what was sent on a stream, once it has begun."""
        with _aio.deadline_watch(deadline) as scope:
            await self._await_status(stream, scope, None)
            return AsyncHttp2Response(stream, deadline, None)
        raise late(deadline)

    def exchange(self, request: Request) -> AsyncExchange:
        """One attempt at a request, which has no slot yet."""
        return AsyncExchange(request, request_headers(request), self._options)

    async def _await_status(self, stream: AsyncStream, scope: _aio.deadline_scope, idle_timeout: float | None) -> None:
        limit = None if idle_timeout is None else _aio.clock() + idle_timeout
        with _aio.deadline_watch(earliest(scope.deadline, limit)) as step:
            await stream.connection.wait(stream, AsyncStream.has_status, step)
        if step.expired:
            if scope.deadline is not None and (limit is None or scope.deadline <= limit):
                await scope.expire()
            text = f"no answer began within {idle_timeout:g} s"
            raise DeadlineExceeded(text, kind="read", processed=True)
        if not stream.status and stream.error is not None:
            raise stream.error

    async def _acquire(self, place: Place, request: Request, deadline: float | None, *, held: bool) -> AsyncConnection:
        origin = request.origin
        if request.coalesce == "strict" and origin.scheme == "https":
            with _aio.deadline_scope(deadline):  # what is still to be looked up then will not be needed
                await self._adopt(request)
            place = self.place(request)
        route = self._route(place, request)
        connection = await route.acquire(deadline, held=held)
        if connection.serves(origin.host):
            return connection
        route.give_back(connection)
        self.separate(request)
        return await self._route(own_place(origin), request).acquire(deadline, held=held)

    async def _adopt(self, request: Request) -> None:
        """Find a connection to the same address with a certificate for this host too (RFC 9113 §9.1.1)."""
        # whose address a proxy's connections have, nobody knows
        if self.proxy(request) is not None or not self._sharing.to_look_up(request.origin):
            return
        own = own_place(request.origin)
        addresses = await _aio.addresses_of(request.origin.host, request.origin.port)
        for (place, lane, proxy), route in list(self._routes.items()):
            same = place != own and lane == request.lane and not proxy and (place[0], place[2]) == (own[0], own[2])
            if same and any(each.usable and each.address in addresses for each in route.connections):
                self._sharing.adopt(request.origin, place)
                return

    # ── routes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, request: Request) -> Place:
        """Which connections the request may use: shared ones, or those of its origin alone."""
        return self._sharing.place(request.origin, request.coalesce)

    def separate(self, request: Request) -> bool:
        """Give the request's host connections of its own for a while; False if it has them already."""
        return self._sharing.separate(request.origin, request.coalesce)

    def doubt(self, place: Place, request: Request, headers: Headers) -> Doubt | None:
        """What to do about a 404 that may come of sharing alone; see `Sharing.doubt`."""
        if request.coalesce == "strict":
            place = self.place(request)  # where it went may have been found out on the way
        if request.taken or not self._opened_for_another(place, request):
            return None
        return self._sharing.doubt(place, request.origin, request.coalesce, headers)

    def _served(self, place: Place, request: Request) -> None:
        """An answer came that only the host itself can have given."""
        if not self._sharing.is_proven(place) and self._opened_for_another(place, request):
            self._sharing.prove(place)

    def _opened_for_another(self, place: Place, request: Request) -> bool:
        route = self._routes.get((place, request.lane, self.proxy(request)))
        return route is not None and route.origin != request.origin

    def proxy(self, request: Request) -> Proxy | None:
        """The proxy that the request goes through."""
        return self._proxies.of(request.origin, request.proxy)

    def _route(self, place: Place, request: Request) -> AsyncRoute:
        proxy = self.proxy(request)
        key = (place, request.lane, proxy)
        route = self._routes.get(key)
        if route is not None:
            return route
        origin = request.origin
        with self._ceiling.lock:
            route = self._routes.get(key)
            if route is None:
                self._sweep()
                context = self._ssl_context if origin.scheme == "https" else no_context
                route = self._routes[key] = AsyncRoute(origin, context, self._options, self._ceiling, proxy)
                self._ceiling.enter(route)
        if self._closed:
            route.close()
        return route

    def _sweep(self) -> None:
        """Whoever needs a new route closes what others no longer need."""
        self._sharing.forget()
        for key, route in list(self._routes.items()):
            if route.sweep():
                self._past.add(route.counters)
                del self._routes[key]
                self._ceiling.leave(route)

    def counters(self, retries: int) -> Counters:
        """The sum over all routes."""
        total, waiting = Tally(), 0
        with self._ceiling.lock:
            total.add(self._past)
            for route in self._routes.values():
                total.add(route.counters)
                waiting += len(route.line)
        return total.snapshot(retries=retries, waiting=waiting)

    def _ssl_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = self._options.make_context()
        return self._context

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Close every connection; never waits."""
        with self._ceiling.lock:
            self._closed = True
            routes = list(self._routes.values())
        for route in routes:
            route.close()

    def abandon(self) -> None:
        """In a forked child: start anew. The parent's connections stay the parent's."""
        routes, self._routes = self._routes, {}
        self._ceiling = AsyncCeiling(self._options.max_connections_total)
        for route in routes.values():
            route.abandon()

    def is_open(self) -> bool:
        return any(connection.usable for route in self._routes.values() for connection in route.connections)


class AsyncAnswerBlock:
    """The block of one streamed request. No generator: event loops end those by themselves, inner ones first, too."""

    __slots__ = ("_arguments", "_exchange", "_pool")

    def __init__(
        self, pool: AsyncPool, place: Place, request: Request, deadline: float | None, idle_timeout: float | None
    ) -> None:
        self._pool = pool
        self._arguments = place, request, deadline, idle_timeout
        self._exchange = pool.exchange(request)

    async def __aenter__(self) -> AsyncHttp2Response:
        try:
            return await self._pool.begin(self._exchange, *self._arguments)
        except BaseException as error:
            try:
                if not isinstance(error, Exception):
                    await self._pass_on()
            finally:
                self._exchange.release()
            raise

    async def _pass_on(self) -> None:
        """The caller is cancelled: whoever inherits the answer gets it, if the whole request is on its way."""
        heir, stream = self._arguments[1].heir, self._exchange.stream
        if heir is None or stream is None or not stream.sent_end:
            return
        with _aio.shield(HEIR_SECONDS), suppress(TransportError):
            await heir.inherit(await self._pool.answer(stream, _aio.clock() + HEIR_SECONDS))

    async def __aexit__(self, *exception: object) -> None:
        self._exchange.release()


def no_context() -> None:
    """Without TLS."""
