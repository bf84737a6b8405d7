"""One request over a connection: send it, wait for the answer, read the answer's body."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from grotte._core import _aio
from grotte._core.exchange import Request
from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.link import CONGESTED
from grotte._core.http2.stream import AsyncStream
from grotte._proto.http import Headers, Origin, Response
from grotte._proto.http2.codec import Fields, Header
from grotte._proto.options import TransportOptions, earliest
from grotte._proto.transport_errors import DeadlineExceeded
from grotte.errors import InvalidArgumentException

#: What would end a header early when a gateway translates to HTTP/1.1.
UNSAFE = re.compile("[\\0\\r\\n]")
#: Fields of HTTP/1.1 connections, which HTTP/2 forbids (RFC 9113 §8.2.2); `host` becomes `:authority`.
CONNECTION_FIELDS = frozenset(
    {b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
SPECIAL_FIELDS = CONNECTION_FIELDS | {b"content-length"}
#: Which of the pseudo-header fields is `:authority`.
AUTHORITY = 2


def request_headers(request: Request) -> Fields:
    """The request's header section as HTTP/2 has it."""
    body = request.body
    length = len(body) if isinstance(body, bytes) else request.content_length
    return header_section(request.method, request.origin, request.target, tuple(request.headers), length)


@functools.lru_cache(256)
def header_section(
    method: str, origin: Origin, target: str, headers: tuple[tuple[str, str], ...], length: int | None
) -> Fields:
    """A header section; that of a small call has often been made before."""
    fields = list(target_fields(method, origin, target))
    for name, value in headers:
        field = header_field(name, value)
        if field[0] not in SPECIAL_FIELDS:
            fields.append(field)
        elif field[0] == b"content-length":
            fields.append(field)
            length = None
        elif field[0] == b"host":
            fields[AUTHORITY] = (b":authority", encoded(value))
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return Fields(fields)


@functools.lru_cache(1024)
def target_fields(method: str, origin: Origin, target: str) -> tuple[Header, ...]:
    """The pseudo-header fields of a request; most requests have been made before."""
    return (
        (b":method", encoded(method)),
        (b":scheme", b"https" if origin.scheme == "https" else b"http"),
        (b":authority", encoded(origin.authority)),
        (b":path", encoded(target)),
    )


@functools.lru_cache(2048)
def header_field(name: str, value: str) -> Header:
    """A header as it travels; most are the same in every request."""
    return encoded(name.lower()), encoded(value.strip())


@functools.lru_cache(2048)
def encoded(text: str) -> bytes:
    """Text of a header section as bytes.

    Raises:
        InvalidArgumentException: it could not travel in one.
    """
    if not text.isprintable() and UNSAFE.search(text):
        raise InvalidArgumentException("a URL or header holds a line break or NUL")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidArgumentException("a URL or header holds characters outside latin-1") from None


#: A body that leaves with its HEADERS.
SMALL_BODY = 4096


class AsyncExchange:
    """A request that has a slot on a connection; `release` it in the end, whatever happened."""

    def __init__(self, request: Request, headers: Sequence[Header], options: TransportOptions) -> None:
        self._request = request
        self._headers = headers
        self._options = options
        self._stream: AsyncStream | None = None
        self._batch = CONGESTED

    def open(self, connection: AsyncConnection, *, eager: bool) -> AsyncStream:
        """Queue the request's HEADERS."""
        extra = self._options.bulk_window if self._request.lane == "bulk" else 0
        body = b"" if self._request.body is None else self._request.body
        small = body if isinstance(body, bytes) and len(body) <= SMALL_BODY else None
        self._stream = connection.open_stream(self._headers, small, eager=eager, extra_window=extra)
        return self._stream

    async def send_body(self, stream: AsyncStream, scope: _aio.deadline_scope) -> None:
        """Send the body, if there is one, unless the answer makes it pointless."""
        body = self._request.body
        if body is None or stream.sent_end:
            return
        if isinstance(body, bytes):
            await self._send_piece(stream, body[stream.sent :], True, scope)
            return
        self._request.taken = True
        pieces = aiter(body)
        with _aio.deadline_scope(scope.deadline) as cut:  # the caller's waits do not observe the deadline
            try:
                async for piece in pieces:
                    if not await self._send_piece(stream, piece, False, cut):
                        return
            finally:
                await _aio.end_iteration(pieces)
            await self._send_piece(stream, b"", True, cut)
        if cut.expired:
            await scope.expire()

    async def _send_piece(self, stream: AsyncStream, data: bytes, last: bool, scope: _aio.deadline_scope) -> bool:
        """Send one piece; False when the rest is pointless."""
        rest = memoryview(data)
        while not stream.upload_is_over():
            batch = rest[: self._batch]
            rest = rest[stream.connection.send_data(stream, batch, end=last and len(batch) == len(rest)) :]
            self._batch = stream.connection.batch()
            if stream.sent_end or not (rest or last or stream.connection.congested()):
                return True
            await self._wait_to_send(stream, scope)
        return False

    async def _wait_to_send(self, stream: AsyncStream, scope: _aio.deadline_scope) -> None:
        stalled = _aio.clock() + self._options.write_timeout
        with _aio.deadline_watch(earliest(scope.deadline, stalled)) as step:
            await stream.connection.wait(stream, AsyncStream.may_send, step)
        if step.expired:
            if scope.deadline is not None and scope.deadline <= stalled:
                await scope.expire()
            text = f"the upload made no progress for {self._options.write_timeout:g} s"
            raise DeadlineExceeded(text, kind="write", processed=True)

    @property
    def stream(self) -> AsyncStream | None:
        """The stream that it has got, if it has one."""
        return self._stream

    @property
    def processed(self) -> bool:
        """Whether the server may have acted."""
        return self._stream is not None and self._stream.connection.has_left(self._stream)

    def release(self) -> None:
        """Free the slot: cancel the stream if it still goes on. Never waits."""
        if self._stream is not None:
            self._stream.connection.release(self._stream)


async def whole_response(stream: AsyncStream, scope: _aio.deadline_scope) -> Response:
    """Wait for the end of an eager stream."""
    if not stream.is_complete():
        await stream.connection.wait(stream, AsyncStream.is_complete, scope)
    if stream.error is not None:
        raise stream.error
    chunks = stream.chunks
    content = chunks[0][0] if len(chunks) == 1 else b"".join(data for data, _ in chunks)
    return Response(stream.status, Headers(stream.headers), content)


class AsyncHttp2Response:
    """The answer on one stream; the body is read by one task or thread."""

    def __init__(self, stream: AsyncStream, deadline: float | None, idle_timeout: float | None) -> None:
        self.status = stream.status
        self.headers = Headers(stream.headers)
        self._stream = stream
        self._deadline = deadline
        self.idle_timeout = idle_timeout

    def __aiter__(self) -> AsyncHttp2Response:
        return self

    async def __anext__(self) -> bytes:
        stream = self._stream
        while True:
            chunk = stream.connection.take(stream)
            if chunk:
                return chunk
            if chunk is None:
                if stream.error is not None:
                    raise stream.error
                if stream.ended and not stream.chunks:
                    raise StopAsyncIteration
                if not stream.connection.top_up(stream):
                    await self._wait()

    async def aread(self) -> bytes:
        """What is left of the body."""
        chunks = []
        async for chunk in self:
            chunks.append(chunk)  # noqa: PERF401 - the sync tree has no async comprehension
        return b"".join(chunks)

    async def _wait(self) -> None:
        idle = None if self.idle_timeout is None else _aio.clock() + self.idle_timeout
        deadline = earliest(self._deadline, idle)
        with _aio.deadline_watch(deadline) as scope:
            await self._stream.connection.wait(self._stream, AsyncStream.has_data, scope)
        if scope.expired:
            if deadline == self._deadline:
                raise late(deadline)
            text = f"nothing arrived for {self.idle_timeout:g} s"
            raise DeadlineExceeded(text, kind="idle", processed=True)


def late(deadline: float | None, *, processed: bool = True) -> DeadlineExceeded:
    """The error of a request whose own deadline passed."""
    assert deadline is not None
    return DeadlineExceeded("the request's deadline passed", kind="total", processed=processed)
