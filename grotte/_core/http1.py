"""HTTP/1.1-only origins, and proxies that forward requests, served by httpx behind the transport's interface."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import msgspec

from grotte._core import _aio
from grotte._core.exchange import HEIR_SECONDS, AsyncHeir, Request
from grotte._core.http2.response import late
from grotte._proto.http import Headers, Response
from grotte._proto.options import TransportOptions, earliest
from grotte._proto.proxy import Proxy
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    DeadlineKind,
    PoolTimeout,
    ProtocolViolation,
    TransportError,
)

if TYPE_CHECKING:
    import httpx

Place = tuple[str, str, int]
#: How long a server that was silent is first taken for one of HTTP/1.1, in seconds.
FIRST_GUESS = 5.0
PROXY_AUTHENTICATION_REQUIRED = 407


class AsyncHttp1:
    """An httpx client for each proxy, made when it is first needed, and the memory of who needs it."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._clients: dict[Proxy | None, _aio.HttpxClient] = {}
        self._lock = _aio.Lock()
        self._until: dict[Place, float] = {}
        #: How often that was guessed.
        self._guesses: Counter[Place] = Counter()
        self._closed = False
        #: In a forked child: kept, so that nothing closes them.
        self._parents: list[_aio.HttpxClient] = []

    def serves(self, place: Place, request: Request, proxy: Proxy | None) -> bool:
        """Whether a request for a place goes here."""
        if proxy is not None and not proxy.tunnels(request.origin):
            return True
        until = self._until.get(place)
        return until is not None and _aio.clock() < until

    def remember(self, place: Place, forever: bool) -> None:
        """Requests for a place go here from now on; for a while only, when it was not said but guessed.

        A server that is about to start is silent, too: so a guess is looked at again soon, later more and more rarely.
        """
        if forever:
            self._until[place] = float("inf")
            return
        guessed = FIRST_GUESS * 2.0 ** min(self._guesses[place], 30)
        self._guesses[place] += 1
        self._until[place] = _aio.clock() + min(guessed, self._options.http1_memory)

    def abandon(self) -> None:
        """In a forked child: start anew. The parent's connections stay the parent's."""
        self._parents += self._clients.values()
        self._clients = {}
        self._lock = _aio.Lock()

    async def aclose(self) -> None:
        """Close the clients, if there are any."""
        self._closed = True
        for client in list(self._clients.values()):
            await client.aclose()

    async def fetch(
        self, place: Place, request: Request, deadline: float | None, proxy: Proxy | None = None
    ) -> Response:
        """One attempt; see `AsyncTransport.fetch`."""
        async with self.stream(place, request, deadline, None, proxy) as response:
            content = await response.aread()
            return Response(response.status, response.headers, content)

    def stream(
        self,
        place: Place,
        request: Request,
        deadline: float | None,
        idle_timeout: float | None,
        proxy: Proxy | None = None,
    ) -> AsyncHttp1Block:
        """One attempt; see `AsyncTransport.stream`."""
        return AsyncHttp1Block(self, place, request, deadline, idle_timeout, proxy)

    async def begin(
        self, place: Place, request: Request, deadline: float | None, idle_timeout: float | None, proxy: Proxy | None
    ) -> AsyncHttp1Response:
        """Send a request, and return when its answer begins."""
        outgoing = self._outgoing(request, deadline, idle_timeout)
        client = self._make_client(proxy)
        response: httpx.Response | None = None
        try:
            where = f"the proxy {proxy}" if proxy is not None else str(request.origin)
            with _aio.deadline_scope(deadline) as scope, translated(idle_timeout, where):
                response = await _aio.send_http1(client, outgoing)
        except ConnectFailed:
            self._until.pop(place, None)  # whoever answers there next may speak HTTP/2
            raise
        if response is None:
            raise late(deadline)
        found = AsyncHttp1Response(response, outgoing.extensions["timeout"], deadline, idle_timeout)
        if scope.expired:
            await found.aclose()
            raise late(deadline)
        if found.status == PROXY_AUTHENTICATION_REQUIRED and proxy is not None:
            await found.aclose()
            raise ConnectFailed(f"the proxy {proxy} refused the request (407): it wants credentials, or other ones")
        return found

    def _make_client(self, proxy: Proxy | None) -> _aio.HttpxClient:
        if self._closed:
            raise ConnectionLost("the transport is closed", processed=False)
        with self._lock:
            client = self._clients.get(proxy)
            if client is None:
                connections, keepalive = self._options.http1_connections, self._options.idle_timeout
                url = None if proxy is None else proxy.url
                client = _aio.httpx_client(self._options.make_context(), connections, keepalive, url)
                self._clients[proxy] = client
            return client

    def _outgoing(self, request: Request, deadline: float | None, idle_timeout: float | None) -> httpx.Request:
        import httpx  # heavy, and most programs never need it

        headers = [(name, value) for name, value in request.headers if name.lower() != "content-length"]
        if request.content_length is not None and not isinstance(request.body, bytes):
            headers.append(("content-length", str(request.content_length)))
        left = None if deadline is None else max(0.001, deadline - _aio.clock())
        options = self._options
        timeouts = {
            "connect": earliest(options.connect_timeout, left),
            "pool": earliest(options.pool_timeout, left),
            "write": earliest(options.write_timeout, left),
            "read": earliest(idle_timeout, left),
        }
        body = request.body if request.body is None or isinstance(request.body, bytes) else pieces(request)
        extensions: dict[str, object] = {"timeout": timeouts}
        origin = request.origin
        if origin.host.endswith(".localhost"):  # loopback (RFC 6761), which not every resolver knows
            if not any(name.lower() == "host" for name, _ in headers):
                headers.append(("host", origin.authority))
            extensions["sni_hostname"] = origin.host
            origin = msgspec.structs.replace(origin, host="127.0.0.1")
        try:
            url = f"{origin}{request.target}"
            return httpx.Request(request.method, url, headers=headers, content=body, extensions=extensions)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ConnectFailed(f"the request cannot be sent over HTTP/1.1: {error}") from None


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body's pieces, noting that they are gone."""
    assert request.body is not None
    assert not isinstance(request.body, bytes)
    request.taken = True
    async for piece in request.body:
        yield piece


class AsyncHttp1Block:
    """The block of one streamed request; no generator, as `AsyncAnswerBlock`."""

    def __init__(
        self,
        http1: AsyncHttp1,
        place: Place,
        request: Request,
        deadline: float | None,
        idle_timeout: float | None,
        proxy: Proxy | None,
    ) -> None:
        self._http1 = http1
        self._arguments = place, request, deadline, idle_timeout, proxy
        self._response: AsyncHttp1Response | None = None

    async def __aenter__(self) -> AsyncHttp1Response:
        heir = self._arguments[1].heir
        if heir is None:
            await self._begin()
        else:
            await self._begin_for(heir)
        assert self._response is not None
        return self._response

    async def _begin(self) -> None:
        self._response = await self._http1.begin(*self._arguments)

    async def _begin_for(self, heir: AsyncHeir) -> None:
        """As `_begin`; the answer that comes soon after the caller was cancelled is its heir's."""
        try:
            await _aio.see_through(HEIR_SECONDS, self._begin)
        except BaseException as error:
            if self._response is not None and not isinstance(error, Exception):
                await heir.inherit(self._response)
                await self._response.aclose()
            raise

    async def __aexit__(self, *exception: object) -> None:
        if self._response is not None:
            await self._response.aclose()


class AsyncHttp1Response:
    """The answer of an HTTP/1.1 server."""

    def __init__(
        self,
        response: httpx.Response,
        timeouts: dict[str, float | None],
        deadline: float | None,
        idle_timeout: float | None,
    ) -> None:
        self.status = response.status_code
        self.headers = Headers(response.headers.raw)
        self._response = response
        self._chunks = _aio.raw_chunks(response)
        self._timeouts: dict[str, float | None] | None = timeouts
        self._deadline = deadline
        self.idle_timeout = idle_timeout

    def __aiter__(self) -> AsyncHttp1Response:
        return self

    async def __anext__(self) -> bytes:
        if self._deadline is not None and _aio.clock() >= self._deadline:
            raise late(self._deadline)  # threads are not interrupted: pieces that keep coming would go on for ever
        if self._timeouts is not None:
            # httpcore looks at them once, when it begins to read the body
            left = None if self._deadline is None else max(0.001, self._deadline - _aio.clock())
            self._timeouts["read"], self._timeouts = earliest(self.idle_timeout, left), None
        idle = None if self.idle_timeout is None else _aio.clock() + self.idle_timeout
        limit = earliest(self._deadline, idle)
        with _aio.deadline_scope(limit), translated(self.idle_timeout):
            return await anext(self._chunks)
        if limit == self._deadline:
            raise late(limit)
        raise DeadlineExceeded(f"nothing arrived for {self.idle_timeout:g} s", kind="idle", processed=True)

    async def aclose(self) -> None:
        """Let go of the connection, which is closed unless the body was read to its end."""
        with _aio.shield(1.0), contextlib.suppress(TransportError), translated(None):
            await self._response.aclose()

    async def aread(self) -> bytes:
        """What is left of the body."""
        chunks = []
        async for chunk in self:
            chunks.append(chunk)  # noqa: PERF401 - the sync tree has no async comprehension
        return b"".join(chunks)


@contextlib.contextmanager
def translated(idle_timeout: float | None, where: str = "the server") -> Iterator[None]:
    """httpx's exceptions become ours."""
    import httpx

    try:
        yield
    except httpx.ConnectTimeout as error:
        raise DeadlineExceeded(f"no connection to {where} in time", kind="connect", processed=False) from error
    except httpx.PoolTimeout as error:
        raise PoolTimeout("no HTTP/1.1 connection was free in time") from error
    except httpx.WriteTimeout as error:
        raise DeadlineExceeded("the upload made no progress", kind="write", processed=True) from error
    except httpx.ReadTimeout as error:
        kind: DeadlineKind = "total" if idle_timeout is None else "idle"
        raise DeadlineExceeded("nothing arrived in time", kind=kind, processed=True) from error
    except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise ConnectFailed(f"cannot connect to {where}: {error}") from error
    except (httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.DecodingError) as error:
        text = str(error)
        if "disconnected" in text or "incomplete" in text:
            raise ConnectionLost(text, processed=True) from error
        raise ProtocolViolation(text, processed=True) from error
    except httpx.TransportError as error:
        text = ": ".join(filter(None, ("the connection broke", str(error))))
        raise ConnectionLost(text, processed=True) from error
