"""The pool: which connections a request may use, and the request's life on one of them."""

from __future__ import annotations

import dataclasses
import os
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grotte._core import _aio
from grotte._core.exchange import Request
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
from grotte._proto.http import Lane, Origin, Response
from grotte._proto.options import Counters, TransportOptions, earliest
from grotte._proto.proxy import Proxies, Proxy
from grotte._proto.transport_errors import DeadlineExceeded

#: Scheme, host or "*." and the parent domain, port.
Place = tuple[str, str, int]
RouteKey = tuple[Place, Lane, Proxy | None]

#: For how long a host is taken to have the addresses that it had.
ADDRESS_MEMORY = 60.0


class AsyncPool:
    """Routes by key. Belongs to one event loop; in sync, threads share it."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        #: Of routes that are no more.
        self._past = Counters()
        self._lock = _aio.Lock()
        self._routes: dict[RouteKey, AsyncRoute] = {}
        self._proxies = Proxies(options.proxy)
        #: Until when a host gets connections of its own although it could share.
        self._separate: dict[Place, float] = {}
        #: In mode "strict": whose connections a host uses, and until when that has been looked into.
        self._adopted: dict[Place, Place] = {}
        self._judged: dict[Place, float] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False
        _pools.add(self)

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
                await exchange.send_body(stream, scope)
                return await whole_response(stream, scope)
        finally:
            exchange.release()
        raise late(deadline, processed=exchange.processed)

    @asynccontextmanager
    async def stream(
        self, place: Place, request: Request, deadline: float | None, idle_timeout: float | None
    ) -> AsyncIterator[AsyncHttp2Response]:
        """One attempt; see `AsyncTransport.stream`."""
        exchange = AsyncExchange(request, request_headers(request), self._options)
        stream: AsyncStream | None = None
        try:
            with _aio.deadline_watch(deadline) as scope:
                connection = await self._acquire(place, request, deadline, held=True)
                opened = exchange.open(connection, eager=False)
                await exchange.send_body(opened, scope)
                await self._await_status(opened, scope, idle_timeout)
                stream = opened
            if stream is None:
                raise late(deadline, processed=exchange.processed)
            yield AsyncHttp2Response(stream, deadline, idle_timeout)
        finally:
            exchange.release()

    async def _await_status(self, stream: AsyncStream, scope: _aio.deadline_scope, idle_timeout: float | None) -> None:
        limit = None if idle_timeout is None else _aio.clock() + idle_timeout
        with _aio.deadline_watch(earliest(scope.deadline, limit)) as step:
            await stream.connection.wait(stream, stream.has_status, step)
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
        own = own_place(request.origin)
        until = self._judged.get(own)
        if self.proxy(request) is not None:
            return  # whose address the connections have
        if until is not None and _aio.clock() < until:
            return
        self._judged[own] = _aio.clock() + ADDRESS_MEMORY
        self._adopted.pop(own, None)
        addresses = await _aio.addresses_of(request.origin.host, request.origin.port)
        for (place, lane, proxy), route in list(self._routes.items()):
            same = place != own and lane == request.lane and not proxy and (place[0], place[2]) == (own[0], own[2])
            if same and any(each.usable and each.address in addresses for each in route.connections):
                self._adopted[own] = place
                return

    # ── routes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, request: Request) -> Place:
        """Which connections the request may use: shared ones, or those of its origin alone."""
        origin = request.origin
        if request.coalesce == "strict":
            own = own_place(origin)
            return self._adopted.get(own, own)
        label, _, parent = origin.host.partition(".")
        shared = request.coalesce == "domain" and label and ("." in parent or parent == "localhost")
        if not shared or parent[-1].isdigit():  # an address has no parent
            return own_place(origin)
        until = self._separate.get(own_place(origin))
        if until is not None and _aio.clock() < until:
            return own_place(origin)
        return (origin.scheme, f"*.{parent}", origin.port)

    def separate(self, request: Request) -> bool:
        """Give the request's host connections of its own for a while; False if it has them already."""
        own = own_place(request.origin)
        if self.place(request) == own:
            return False
        self._separate[own] = self._judged[own] = _aio.clock() + self._options.http1_memory
        self._adopted.pop(own, None)
        return True

    def proxy(self, request: Request) -> Proxy | None:
        """The proxy that the request goes through."""
        return self._proxies.of(request.origin, request.proxy)

    def _route(self, place: Place, request: Request) -> AsyncRoute:
        proxy = self.proxy(request)
        key = (place, request.lane, proxy)
        route = self._routes.get(key)
        if route is not None:
            route.last_used = _aio.clock()
            return route
        origin = request.origin
        with self._lock:
            route = self._routes.get(key)
            if route is None:
                self._sweep()
                context = self._ssl_context if origin.scheme == "https" else no_context
                route = self._routes[key] = AsyncRoute(origin, context, self._options, proxy)
                if self._closed:
                    route.close()
            return route

    def _sweep(self) -> None:
        """Whoever needs a new route closes what others no longer need."""
        for key, route in list(self._routes.items()):
            if route.sweep():
                self._past.add(route.counters)
                del self._routes[key]

    def counters(self) -> Counters:
        """The sum over all routes."""
        total = dataclasses.replace(self._past)
        with self._lock:
            for route in self._routes.values():
                total.add(route.counters)
        return total

    def _ssl_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = self._options.make_context()
        # Each time: httpcore, given the same context, sets its own.
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        return self._context

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Close every connection; never waits."""
        with self._lock:
            self._closed = True
            routes = list(self._routes.values())
        for route in routes:
            route.close()

    def abandon(self) -> None:
        """In a forked child: start anew. The parent's connections stay the parent's."""
        routes, self._routes, self._lock = self._routes, {}, _aio.Lock()
        for route in routes.values():
            route.abandon()

    def is_open(self) -> bool:
        return any(connection.usable for route in self._routes.values() for connection in route.connections)


def own_place(origin: Origin) -> Place:
    """The place of an origin that shares with nobody."""
    return (origin.scheme, origin.host, origin.port)


def no_context() -> None:
    """Without TLS."""


_pools: weakref.WeakSet[AsyncPool] = weakref.WeakSet()


def _abandon_all() -> None:
    for pool in list(_pools):
        pool.abandon()


os.register_at_fork(after_in_child=_abandon_all)
