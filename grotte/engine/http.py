"""One HTTP exchange over ASGI: what was asked, and the way to answer.

The table of routes is small and some paths arrive percent-encoded on purpose, so requests are kept as they came on
the wire and no framework stands in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import anyio
import msgspec

from grotte.engine.faults import ClientGone, ControlFault, Fault, Headers

# ASGI itself is typed by convention only.
Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

JSON = "application/json"
#: How much of a refused body is read, so that the client gets to see the refusal.
DRAIN_LIMIT = 256 * 1024 * 1024
DRAIN_SECONDS = 10.0
#: A client that sends nothing before it is answered gets its answer after this many seconds.
DRAIN_IDLE_SECONDS = 1.0
MAX_QUERY_FIELDS = 100


class Request:
    """A request and its one answer.

    Attributes:
        method: In capitals, as sent.
        path: The path as sent, still percent-encoded, without the query.
        headers: By lower-case name; the first one of a repeated name.
        raw_headers: All of them, in order, names in lower case.
        scheme: ``http`` or ``https``, as the client sees it.
        multiplexed: It came by HTTP/2, which does not need to say whether there is a body.
        answered: The answer's head has been sent.
        route: What it is for, as one of few words: paths hold ids.
        status: That of the answer, once there is one.
        received: Bytes of its body so far.
        sent: Bytes of the answer's body so far.
        always: What the answer's head says, whatever else it says.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope.get("method", "GET")  # a WebSocket begins with none but this
        self.path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query_string: str = scope["query_string"].decode("latin-1")
        self.raw_headers: list[tuple[bytes, bytes]] = [(name.lower(), value) for name, value in scope["headers"]]
        self.scheme: str = scope.get("scheme", "http")
        self.multiplexed: bool = not scope.get("http_version", "1.1").startswith("1")
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self.raw_headers)
        }
        self.answered = False
        self.route = "other"
        self.status = 0
        self.received = 0
        self.sent = 0
        self.always: Headers = []
        self._receive = receive
        self._send = send
        self._body_ended = False
        self._gone = False
        self._event: asyncio.Future[Event] | None = None
        self._on_gone: Callable[[], None] | None = None

    @cached_property
    def query(self) -> dict[str, str]:
        """Decoded parameters; of a repeated one, the first.

        Raises:
            ControlFault: 400, there are too many.
        """
        return dict(reversed(self._query))

    def every(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated.

        Raises:
            ControlFault: 400, there are too many parameters.
        """
        return [value for said, value in self._query if said == name]

    @cached_property
    def _query(self) -> list[tuple[str, str]]:
        if self.query_string.count("&") > MAX_QUERY_FIELDS:
            raise ControlFault(400, "the query has too many parameters")
        return parse_qsl(self.query_string, keep_blank_values=True, errors="surrogateescape")

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def closing(self) -> Headers:
        """What an answer that begins now must say: over HTTP/1.1 no request can follow one that is not over."""
        return [] if self.multiplexed or self._body_over else [("connection", "close")]

    @property
    def _body_over(self) -> bool:
        if self._body_ended or self.multiplexed:
            return self._body_ended
        return "transfer-encoding" not in self.headers and self.headers.get("content-length", "0") == "0"

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives.

        Raises:
            ClientGone: the client left in the middle.
        """
        while not self._body_ended:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                self._gone = True
                raise ClientGone
            self._body_ended = not event.get("more_body", False)
            if chunk := event.get("body", b""):
                self.received += len(chunk)
                yield chunk

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            ControlFault: 413, it is longer than `limit` bytes.
            ClientGone: the client left in the middle.
        """
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                await self.drain()
                raise ControlFault(413, f"the body is longer than {limit} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def drain(self) -> None:
        """Read on to the body's end, within a bound: a client that is still writing may miss an early answer."""
        if self._body_over or (self.received == 0 and "expect" in self.headers):
            return  # who asks before sending need not be asked for it
        size = 0
        end = anyio.current_time() + DRAIN_SECONDS
        # Whoever was cancelled while reading left the server with nothing to read; it says that the client is gone.
        with suppress(ClientGone), anyio.move_on_after(DRAIN_IDLE_SECONDS) as scope:
            async for chunk in self.chunks():
                size += len(chunk)
                if size > DRAIN_LIMIT:
                    return
                scope.deadline = min(end, anyio.current_time() + DRAIN_IDLE_SECONDS)

    async def disconnected(self) -> None:
        """Return when the client is gone, and not before."""
        while not self._gone:
            event = await self._receive()
            self._gone = event["type"] == "http.disconnect"

    @contextmanager
    def watched(self, gone: Callable[[], None], after: float = 0.0) -> Iterator[None]:
        """Call back if the client leaves before the end of a block; what it still sends is dropped.

        Most requests are watched for as long as they are at work, so this takes no task: the server hands out futures.

        Args:
            gone: What to call.
            after: When to begin, in seconds: work that is mostly over by then is not worth the watch.
        """
        if self._gone:
            gone()
            yield
            return
        self._on_gone = gone
        beginning = asyncio.get_running_loop().call_later(after, self._look)
        try:
            yield
        finally:
            beginning.cancel()
            self._look_away()

    def _look(self) -> None:
        self._event = asyncio.ensure_future(self._receive())
        self._event.add_done_callback(self._seen)

    def _look_away(self) -> None:
        """Let go of the server's future, and it of us: the garbage collector cannot look into it."""
        event, self._event, self._on_gone = self._event, None, None
        if event is not None:
            event.remove_done_callback(self._seen)
            event.cancel()

    def _seen(self, event: asyncio.Future[Event]) -> None:
        if event is not self._event or event.cancelled():
            return  # what came at the very end is nobody's business any more
        self._gone = event.exception() is not None or event.result()["type"] == "http.disconnect"
        if not self._gone:
            self._look()
        elif self._on_gone is not None:
            self._on_gone()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the answer's head; `write` and `finish` follow."""
        self.answered = True
        self.status = status
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *self.always)]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, chunk: bytes) -> None:
        self.sent += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        self.sent += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def reply(self, status: int, body: bytes = b"", headers: Headers | None = None, type: str = JSON) -> None:
        """Send a whole answer."""
        head = list(headers or [])
        if body:
            head += [("content-type", type), ("content-length", str(len(body)))]
        await self.start(status, head)
        await self.finish(b"" if self.method == "HEAD" else body)

    async def reply_json(self, status: int, value: object, headers: Headers | None = None) -> None:
        await self.reply(status, msgspec.json.encode(value), headers)

    async def refuse(self, fault: Fault, headers: Headers | None = None) -> None:
        """Answer with an error."""
        head = [*fault.headers, *(headers or []), *self.closing]
        await self.reply(fault.status, fault.body(), head, fault.content_type)
