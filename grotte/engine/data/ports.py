"""HTTP to whatever listens inside a sandbox, both bodies streamed: nothing is kept but what is on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import h11

from grotte.engine.data.upstream import check_traffic, is_clean, open_port, passed_on, request_headers
from grotte.engine.data.upstream_tls import Stream
from grotte.engine.faults import ClientGone, Fault, Headers, ProxyFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.turns import Turns

MAX_HEAD = 256 * 1024
#: How long a client may go on sending what nobody wants any more: over HTTP/1.1 it may miss its answer otherwise.
LINGER = 2.0
#: How often a server may say that its answer is on its way.
MAX_INFORMATIONAL = 100
NOT_HTTP = "The sandbox is running but its port does not answer in HTTP"


class UpstreamLost(Exception):
    """The server in the sandbox broke off in the middle of its answer."""


async def serve_port(request: Request, sandbox: Sandbox, port: int) -> None:
    """Hand a request to a port of a sandbox and its answer back.

    Raises:
        ProxyFault: 403, the traffic token is missing; 502, nothing answers there.
        ClientGone: the client left.
    """
    check_traffic(request, sandbox)
    async with open_port(sandbox, port) as upstream:
        exchange = _Exchange(request, upstream, sandbox, port)
        await exchange.run()


class _Exchange:
    """One request and its answer; the answer may begin, and end, before the request does."""

    def __init__(self, request: Request, upstream: Stream, sandbox: Sandbox, port: int) -> None:
        self._request = request
        self._upstream = upstream
        self._sandbox = sandbox
        self._port = port
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._turns = Turns()
        self._failure: Exception | None = None  # raised outside of the task group, which would wrap it
        self._sent = anyio.Event()
        self._sending: anyio.CancelScope | None = None
        self._deaf = False  # the server wants no more of the request

    async def run(self) -> None:
        body = self._request.chunks()
        first, framing = await self._framing(body)
        head = [*request_headers(self._request, self._sandbox, self._port), *framing, (b"connection", b"close")]
        head = [field for field in head if field[0] != b"content-length" or field in framing]
        target = self._request.path + (f"?{self._request.query_string}" if self._request.query_string else "")
        try:
            opening = self._http.send(h11.Request(method=self._request.method, target=target, headers=head))
        except h11.LocalProtocolError as error:
            raise Fault(400, f"this request cannot be passed on: {error}") from None
        assert opening is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send, opening, first, body, tasks.cancel_scope)
            await self._answer()
            await self._linger()
            tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _framing(self, body: AsyncIterator[bytes]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """How the body is delimited, and its first piece: HTTP/2 does not tell beforehand whether there is one."""
        length = self._request.headers.get("content-length")
        if length is not None:
            return b"", [(b"content-length", length.encode("latin-1"))]
        if not self._request.multiplexed and "transfer-encoding" not in self._request.headers:
            return b"", []
        async for first in body:
            return first, [(b"transfer-encoding", b"chunked")]
        return b"", []

    async def _linger(self) -> None:
        """Let the client finish its request before its connection ends, if the answer came first."""
        self._deaf = True
        if self._sending is not None:
            self._sending.cancel()
        if self._failure is None and self._request.closing:
            with anyio.move_on_after(LINGER):
                await self._sent.wait()

    async def _send(
        self, opening: bytes, first: bytes, body: AsyncIterator[bytes], exchange: anyio.CancelScope
    ) -> None:
        try:
            await self._pass_on(opening)
            if first:
                await self._send_event(h11.Data(first))
            async for chunk in body:
                await self._send_event(h11.Data(chunk))
            await self._send_event(h11.EndOfMessage())
            self._sent.set()
            await self._request.disconnected()
        except ClientGone:
            pass
        self._failure = ClientGone()
        exchange.cancel()

    async def _send_event(self, event: h11.Data | h11.EndOfMessage) -> None:
        try:
            data = self._http.send(event)
        except h11.LocalProtocolError:
            return  # the exchange is over for the server
        if data:
            await self._pass_on(data)

    async def _pass_on(self, data: bytes) -> None:
        """Send to the server; what it does not want any more is dropped, for its answer may still come."""
        if self._deaf:
            return
        with anyio.CancelScope() as self._sending:
            try:
                await self._upstream.send(data)
            except OSError:
                self._deaf = True

    async def _answer(self) -> None:
        informational = 0
        try:
            while True:
                event = await self._next_event()
                informational += isinstance(event, h11.InformationalResponse)
                if informational > MAX_INFORMATIONAL:
                    raise h11.RemoteProtocolError("there is no end to its informational answers")
                if isinstance(event, h11.Response):
                    head = [*answer_headers(event), *self._request.closing]
                    await self._request.start(event.status_code, head)
                elif isinstance(event, h11.Data):
                    await self._request.write(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    await self._request.finish()
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    raise h11.RemoteProtocolError("the server closed the connection")
        except (OSError, h11.RemoteProtocolError):
            if self._request.answered:
                self._failure = UpstreamLost()
            else:
                self._failure = ProxyFault(502, NOT_HTTP, self._sandbox.sandbox_id, self._port)

    async def _next_event(self) -> h11.Event:
        while not isinstance(event := self._http.next_event(), h11.Event):
            if event is h11.PAUSED:  # it speaks another protocol now, which nobody asked for
                raise h11.RemoteProtocolError("the server changed the protocol")
            self._http.receive_data(await self._upstream.receive())
        await self._turns.step()
        return event


def answer_headers(answer: h11.Response) -> Headers:
    """The headers of an answer as the client sees them.

    Raises:
        h11.RemoteProtocolError: no client can see them.
    """
    fields = passed_on(answer.headers.raw_items())
    if not is_clean(fields):
        raise h11.RemoteProtocolError("the server sent control characters in a header")
    if any(name.lower() == b"transfer-encoding" for name, _ in answer.headers.raw_items()):  # it is what counts
        fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in fields]
