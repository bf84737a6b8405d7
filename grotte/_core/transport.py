"""What the layers above call: one request, one answer, whichever protocol the server speaks.

Requests go to the HTTP/2 pool; origins that turn out to speak HTTP/1.1 only, or lie behind a proxy that gives no
connections, are served by httpx behind the same interface.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self, TypeAlias
from weakref import WeakKeyDictionary, WeakSet, ref

from grotte._core import _aio
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._core.http1 import AsyncHttp1
from grotte._core.http2.dial import NoHttp2
from grotte._core.http2.pool import AsyncPool
from grotte._proto.http import Coalesce, Headers, Lane, Origin, Response, split_url
from grotte._proto.http2.codec import ErrorCode
from grotte._proto.options import Counters, TransportOptions
from grotte._proto.retry import REPEATABLE, plan_retry
from grotte._proto.sharing import Doubt, Place
from grotte._proto.transport_errors import StreamResetError, TransportError
from grotte.errors import ClientClosedException

__all__ = [
    "AsyncStreamResponse",
    "AsyncTransport",
    "AsyncTransports",
    "Coalesce",
    "Headers",
    "Lane",
    "Origin",
    "Request",
    "Response",
    "TransportOptions",
    "default_transport",
    "split_url",
]

logger = logging.getLogger("grotte.transport")

NOT_FOUND = 404
MISDIRECTED = 421
#: The generators behind `stream`.
AsyncBlock: TypeAlias = AbstractAsyncContextManager[AsyncStreamResponse]


class AsyncTransport:
    """A pool of connections; belongs to one event loop (in sync: is shared by any number of threads).

    Example:
        >>> async with AsyncTransport() as transport:
        ...     request = Request("GET", Origin("https", "example.com", 443), "/")
        ...     response = await transport.fetch(request, deadline=None)
    """

    def __init__(self, options: TransportOptions | None = None, *, warn: bool = True) -> None:
        """Make a transport; nothing is connected yet.

        Args:
            options: The knobs.
            warn: Whether to warn when it is forgotten without `aclose`.
        """
        self._warns = False
        self.options = options or TransportOptions()
        self._pool = AsyncPool(self.options)
        self._lock = _aio.Lock()
        self._retries = 0
        self._http1 = AsyncHttp1(self.options)
        self._warns = warn
        #: How far the clock of its event loop is from that of all loops of asyncio; closed, or left by a fork.
        self._offset = 0.0
        self._left = False
        self._owner: ref[AsyncTransports] | None = None
        #: Streamed requests whose block has not ended, and those of them that nobody can end any more.
        self._blocks: set[AsyncBlock] = set()
        self._dropped: deque[AsyncBlock] = deque()
        _alive.add(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; requests still under way fail."""
        self._left = True
        await self._end_dropped()
        self._pool.close()
        await self._http1.aclose()

    def __del__(self) -> None:
        if self._warns and self._pool.is_open():
            warnings.warn(f"{type(self).__name__} was not closed", ResourceWarning, stacklevel=2, source=self)
            self._pool.close()

    def abandon(self) -> None:
        """In a forked child: start anew. The parent's connections stay the parent's."""
        self._left = True
        self._lock = _aio.Lock()
        self._pool.abandon()
        self._http1.abandon()

    def placed(self, owner: AsyncTransports) -> Self:
        """The same, once it is clear in which event loop, and whose, it is."""
        self._offset = _clock_offset()
        self._owner = ref(owner)
        return self

    def is_elsewhere(self) -> bool:
        """Whether another event loop has it: one that still runs, or one whose deadlines mean nothing in this one."""
        if self._left:
            return abs(_clock_offset() - self._offset) > 1
        held, owner = _held.get(), None if self._owner is None else self._owner()
        return held is None or owner is None or held.get(owner) is not self

    @property
    def counters(self) -> Counters:
        """What this transport has done so far, as of now."""
        return self._pool.counters(self._retries)

    async def fetch(self, request: Request, *, deadline: float | None) -> Response:
        """Send a request and return its whole answer.

        Args:
            request: What to send.
            deadline: When to give up, on `clock()`; None: never.

        Raises:
            TransportError: there was no complete answer; its `processed` says whether the server may have acted.
        """
        if self._dropped:
            await self._end_dropped()
        attempt = 0
        while True:
            try:
                place = self._pool.place(request)
                response = await self._fetch_once(place, request, deadline)
            except TransportError as error:
                await self._before_retry(request, error, attempt, deadline)
                attempt += 1
                continue
            if response.status == MISDIRECTED and self._redirected(request):
                continue
            doubt = self._doubt(place, request, response) if response.status == NOT_FOUND else None
            if doubt is None:
                return response
            with doubt, contextlib.suppress(TransportError):
                second = await self._fetch_once(self._pool.place(request), request, deadline)
                doubt.answered(second.status, second.headers)
                return second
            return response

    async def _fetch_once(self, place: Place, request: Request, deadline: float | None) -> Response:
        proxy = self._pool.proxy(request)
        if not self._http1.serves(place, request, proxy):
            try:
                return await self._pool.fetch(place, request, deadline)
            except NoHttp2 as verdict:
                self._http1.remember(place, verdict.forever)
            except StreamResetError as error:
                place = self._fall_back(request, error)
        return await self._http1.fetch(place, request, deadline, proxy)

    def stream(
        self, request: Request, *, deadline: float | None, idle_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncStreamResponse]:
        """Send a request and read its answer as it arrives. Leaving the block early cancels the request alone.

        Args:
            request: What to send.
            deadline: When to give up, body included, on `clock()`; None: never.
            idle_timeout: The longest pause between two pieces of the answer, in seconds; None: any.

        Raises:
            TransportError: as `fetch`; while reading, the iterator raises it.

        Example:
            >>> async with transport.stream(request, deadline=None) as response:
            ...     async for chunk in response:
            ...         print(len(chunk))
        """
        return AsyncStreamBlock(self, self._stream(request, deadline, idle_timeout))

    async def begin(self, block: AsyncBlock) -> AsyncStreamResponse:
        """Enter the block of a streamed request."""
        await self._end_dropped()
        response = await block.__aenter__()
        self._blocks.add(block)
        return response

    def ended(self, block: AsyncBlock) -> None:
        """The block of a streamed request is left."""
        self._blocks.discard(block)

    def dropped(self, block: AsyncBlock) -> None:
        """Nobody can leave a block any more: it is ended before the next request."""
        self._dropped.append(block)

    async def _end_dropped(self) -> None:
        while self._dropped:
            try:
                block = self._dropped.popleft()
            except IndexError:  # another thread was faster
                return
            self.ended(block)
            try:
                await block.__aexit__(None, None, None)
            except TransportError:
                logger.debug("a request that was dropped had failed")

    @asynccontextmanager
    async def _stream(
        self, request: Request, deadline: float | None, idle_timeout: float | None
    ) -> AsyncIterator[AsyncStreamResponse]:
        attempt = 0
        while True:
            async with AsyncExitStack() as stack:
                try:
                    place = self._pool.place(request)
                    response = await self._open(stack, place, request, deadline, idle_timeout)
                except TransportError as error:
                    await self._before_retry(request, error, attempt, deadline)
                    attempt += 1
                    continue
                if response.status == MISDIRECTED and self._redirected(request):
                    continue
                doubt = self._doubt(place, request, response) if response.status == NOT_FOUND else None
                if doubt is not None:
                    with doubt, contextlib.suppress(TransportError):
                        own = self._pool.place(request)
                        response = await self._open(stack, own, request, deadline, idle_timeout)
                        doubt.answered(response.status, response.headers)
                yield response
                return

    async def _open(
        self,
        stack: AsyncExitStack,
        place: Place,
        request: Request,
        deadline: float | None,
        idle_timeout: float | None,
    ) -> AsyncStreamResponse:
        proxy = self._pool.proxy(request)
        if not self._http1.serves(place, request, proxy):
            try:
                return await stack.enter_async_context(self._pool.stream(place, request, deadline, idle_timeout))
            except NoHttp2 as verdict:
                self._http1.remember(place, verdict.forever)
            except StreamResetError as error:
                place = self._fall_back(request, error)
        return await stack.enter_async_context(self._http1.stream(place, request, deadline, idle_timeout, proxy))

    def _fall_back(self, request: Request, error: StreamResetError) -> Place:
        """The host's own place, served over HTTP/1.1 from now on, if that is what it asked for; it did not act then."""
        if error.error_code != ErrorCode.HTTP_1_1_REQUIRED or request.taken:
            raise error
        self._pool.separate(request)
        place = self._pool.place(request)
        self._http1.remember(place, forever=False)
        with self._lock:
            self._retries += 1
        return place

    async def _before_retry(
        self, request: Request, error: TransportError, attempt: int, deadline: float | None
    ) -> None:
        """Pause before the next attempt, or raise `error` again when there must be none."""
        repeatable = request.idempotent or request.method in REPEATABLE
        plan = plan_retry(error, attempt=attempt, repeatable=repeatable)
        if plan is None or request.taken:
            raise error
        if deadline is not None and _aio.clock() + plan.delay >= deadline:
            raise error
        with self._lock:
            self._retries += 1
        self.options.tell("transport.retry", attempt=attempt, delay=plan.delay, error=error)
        if plan.delay:
            await _aio.sleep(plan.delay)

    def _doubt(self, place: Place, request: Request, response: Response | AsyncStreamResponse) -> Doubt | None:
        """What to do about a 404 if it may come of sharing a connection alone."""
        if self._http1.serves(place, request, self._pool.proxy(request)):
            return None
        doubt = self._pool.doubt(place, request, response.headers)
        if doubt is not None:
            with self._lock:
                self._retries += 1
        return doubt

    def _redirected(self, request: Request) -> bool:
        """Whether a 421 was about a shared connection, so that one of its own may answer otherwise."""
        return not request.taken and self._pool.separate(request)


class AsyncStreamBlock:
    """The block of one streamed request.

    Whoever drops it without leaving it leaves the rest to the garbage collector, which may run in the middle of
    anything, a critical section of this very transport included. So nothing is closed then: the transport keeps
    the request, is told, and ends it before its next one.
    """

    def __init__(self, transport: AsyncTransport, block: AsyncBlock) -> None:
        self._transport = transport
        self._block = block
        self._entered = False

    async def __aenter__(self) -> AsyncStreamResponse:
        response = await self._transport.begin(self._block)
        self._entered = True
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._entered = False
        self._transport.ended(self._block)
        return await self._block.__aexit__(kind, error, trace)

    def __del__(self) -> None:
        if self._entered:
            self._transport.dropped(self._block)


def _clock_offset() -> float:
    """Trio begins to count somewhere else in each run."""
    return _aio.clock() - time.monotonic()


_alive: WeakSet[AsyncTransport] = WeakSet()


def _abandon_all() -> None:
    for transport in list(_alive):
        transport.abandon()


os.register_at_fork(after_in_child=_abandon_all)


class AsyncTransports:
    """The transports of one client: one for each event loop (in sync: one for all threads), made on first use.

    They are closed with their loop at the latest.
    """

    def __init__(self, options: TransportOptions | None = None, *, warn: bool = True) -> None:
        """Make none yet.

        Args:
            options: The knobs of each.
            warn: Whether to warn when one is forgotten without `aclose`.
        """
        self._options = options
        self._warn = warn
        self._closed = False

    def get(self) -> AsyncTransport:
        """The transport of this event loop.

        Raises:
            ClientClosedException: after `aclose`.
        """
        if self._closed:
            raise ClientClosedException("this client was closed: make a new one, or close it later")
        held = _held.get()
        found = None if held is None else held.get(self)
        return self._make() if found is None else found

    def _make(self) -> AsyncTransport:
        with _making:
            held = _held.get()
            if held is None:
                held = WeakKeyDictionary()
                _held.set(held)
                _aio.at_loop_end(_close_held)
            found = held.get(self)
            if found is None:
                found = held[self] = AsyncTransport(self._options, warn=self._warn).placed(self)
            return found

    async def aclose(self) -> None:
        """Close the transport of this event loop, and make no other."""
        with _making:
            self._closed = True
            held = _held.get()
            found = None if held is None else held.pop(self, None)
        if found is not None:
            await found.aclose()


#: The transports that there are; a client that nobody holds any more takes its own along.
_held: _aio.LoopLocal[WeakKeyDictionary[AsyncTransports, AsyncTransport]] = _aio.LoopLocal("grotte_transports")
_making = _aio.Lock()
_default = AsyncTransports(warn=False)


async def _close_held() -> None:
    held = _held.get()
    for transport in [] if held is None else list(held.values()):
        await transport.aclose()


def default_transport() -> AsyncTransport:
    """The transport for whoever has no client: of this event loop (in sync: of this process)."""
    return _default.get()
