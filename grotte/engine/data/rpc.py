"""Connect RPC over HTTP: unary calls and streams, with the protocol's ways to fail."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

import anyio
from msgspec import Struct

from grotte._proto.connect import (
    FLAG_COMPRESSED,
    FLAG_END_STREAM,
    HTTP_STATUS,
    MAX_MESSAGE,
    Envelope,
    EnvelopeError,
    EnvelopeReader,
    ErrorBody,
    pack,
)
from grotte._proto.messages import encode
from grotte.engine.data.dialects import CALLS, FLAG_TRAILERS, STREAMS, Dialect
from grotte.engine.data.encodings import JSON, unzip
from grotte.engine.faults import SANDBOX_NOT_FOUND, ClientGone, Fault, Headers, RpcFault, sandbox_gone
from grotte.engine.host import GuestError
from grotte.engine.http import Request
from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.turns import Turns

M = TypeVar("M", bound=Struct)
T = TypeVar("T")
R = TypeVar("R")

DEFAULT_KEEPALIVE = 90
#: What marks the end of a client's messages, in either protocol.
LAST = FLAG_END_STREAM | FLAG_TRAILERS


@dataclass(slots=True)
class Call:
    """One call on a sandbox.

    Attributes:
        user: Whom it acts as.
        deadline: On the event loop's clock: a little before the client gives up; None for never.
        headers: What every answer carries.
        gzip: The client compresses messages.
    """

    request: Request
    sandbox: Sandbox
    headers: Headers
    user: str
    deadline: float | None = None
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Unary:
    """A method with one question and one answer."""

    kind: type[Struct]
    # The table of methods is checked where it is written: `kind` and the handler's parameter are one type.
    handle: Callable[[Call, Any], Awaitable[Struct]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method whose answer, or whose question, is a stream of messages."""

    handle: Callable[[Call, Stream], Awaitable[None]]


class Stream:
    """A call in envelopes: messages come in, envelopes go out, each at once."""

    def __init__(self, call: Call, dialect: Dialect) -> None:
        self._call = call
        self._dialect = dialect
        self._reader = EnvelopeReader(MAX_MESSAGE)
        self._request = call.request

    @property
    def binary(self) -> bool:
        """Whether messages are protobuf's and not JSON."""
        return self._dialect.encoding is not JSON

    def pack(self, message: Struct) -> bytes:
        """A message of the answer as an envelope."""
        return pack(self._dialect.encoding.encode(message))

    async def first(self, kind: type[M]) -> M:
        """The one message of a server stream.

        Raises:
            RpcFault: there is none, it is none, or it is malformed.
        """
        async for message in self.messages(kind):
            return message
        raise RpcFault("unimplemented", "the request stream holds no message")

    async def messages(self, kind: type[M]) -> AsyncIterator[M]:
        """The client's messages as they arrive.

        Raises:
            RpcFault: one is malformed or cut off.
        """
        turns = Turns()
        try:
            async for chunk in self._request.chunks():
                for envelope in self._reader.feed(chunk):
                    if envelope.flags & LAST:
                        return
                    payload = self._plain(envelope) if envelope.flags & FLAG_COMPRESSED else envelope.payload
                    await turns.step(len(payload))
                    yield self._dialect.encoding.parse(kind, payload)
            self._reader.finish()
        except EnvelopeError as error:
            raise RpcFault("invalid_argument", f"protocol error: {error}") from None

    def _plain(self, envelope: Envelope) -> bytes:
        if not self._call.gzip:
            raise RpcFault("internal", "compressed message without an agreed compression")
        return unzip(envelope.payload)

    async def send(self, envelopes: bytes) -> None:
        """Send whole envelopes, headers first if they have not gone out yet."""
        await self._start()
        await self._request.write(envelopes)

    async def end(self, last: bytes = b"") -> None:
        """End the stream in good order, after `last` envelopes."""
        await self._start()
        await self._request.finish(last + self._dialect.ending())

    async def fail(self, fault: RpcFault) -> None:
        """End the stream with an error: over HTTP it is a success all the same."""
        await self._start()
        await self._request.finish(self._dialect.ending(fault))

    async def _start(self) -> None:
        if not self._request.answered:
            await self._request.start(200, [("content-type", self._dialect.content_type), *self._call.headers])


async def serve_rpc(method: Unary | Streaming, call: Call, basic_user: str | None) -> None:
    """Answer one RPC.

    Raises:
        Fault: before the protocol begins: 405, 415, or the sandbox is gone.
        ClientGone: the client left.
    """
    dialect = _dialect(call.request, STREAMS if isinstance(method, Streaming) else CALLS)
    if isinstance(method, Unary) and not dialect.enveloped:
        return await _serve_unary(method, call, dialect, basic_user)
    handle = partial(_in_envelopes, method) if isinstance(method, Unary) else method.handle
    stream = Stream(call, dialect)
    try:
        with _faults_of(call):
            await _prepare(call, dialect, basic_user)
            await _within_deadline(call, handle, stream)
    except RpcFault as fault:
        await stream.fail(fault)


def _dialect(request: Request, known: dict[str, Dialect]) -> Dialect:
    if request.method != "POST":
        raise Fault(405, "method not allowed", [("allow", "POST")])
    dialect = known.get(request.media_type)
    if dialect is None:
        accepted = ", ".join(known)
        raise Fault(415, f"unsupported media type: send one of {accepted}", [("accept-post", accepted)])
    return dialect


async def _serve_unary(method: Unary, call: Call, dialect: Dialect, basic_user: str | None) -> None:
    try:
        answer = await _unary(method, call, dialect, basic_user)
    except RpcFault as fault:
        body = encode(ErrorBody(code=fault.code, message=fault.message))
        return await call.request.reply(HTTP_STATUS[fault.code], body, call.headers)
    if not answer:  # that, too, has a type
        call.headers += [("content-type", dialect.content_type), ("content-length", "0")]
    return await call.request.reply(200, answer, call.headers, dialect.content_type)


async def _unary(method: Unary, call: Call, dialect: Dialect, basic_user: str | None) -> bytes:
    with _faults_of(call):
        await _prepare(call, dialect, basic_user)
        body = await _unary_body(call.request)
        message = dialect.encoding.parse(method.kind, unzip(body) if call.gzip and body else body)
        return dialect.encoding.encode(await _within_deadline(call, method.handle, message))


async def _in_envelopes(method: Unary, call: Call, stream: Stream) -> None:
    """A call with one question and one answer where both come in envelopes."""
    answer = await method.handle(call, await stream.first(method.kind))
    await stream.end(stream.pack(answer))


async def _prepare(call: Call, dialect: Dialect, basic_user: str | None) -> None:
    """Read what the headers say of the call.

    Raises:
        RpcFault: they are malformed, name an unknown compression, or an unknown user.
    """
    call.gzip = dialect.gzips(call.request.headers)
    if (seconds := dialect.timeout(call.request.headers)) is not None:
        # a little less than the client waits, so that it hears of the end
        call.deadline = anyio.current_time() + seconds - min(0.15, seconds * 0.05)
    if basic_user is not None:
        # An unknown user is refused everywhere, also where nothing is done in the user's name.
        call.user = (await call.sandbox.guest.user(basic_user)).name


async def _unary_body(request: Request) -> bytes:
    try:
        return await request.body(MAX_MESSAGE)
    except Fault as fault:
        raise RpcFault("resource_exhausted", fault.message) from None


async def _within_deadline(call: Call, handle: Callable[[Call, T], Awaitable[R]], argument: T) -> R:
    if call.deadline is None:
        return await handle(call, argument)
    with anyio.CancelScope(deadline=call.deadline):
        return await handle(call, argument)
    raise RpcFault("deadline_exceeded", "the deadline of the call has passed")


@contextmanager
def _faults_of(call: Call) -> Iterator[None]:
    """Say what the sandbox refused in the protocol's words, and whether it is there at all."""
    try:
        yield
    except GuestError as error:
        if not call.sandbox.alive:
            _raise_gone(call)
        raise RpcFault(error.code, error.message) from None


def _raise_gone(call: Call) -> NoReturn:
    if call.request.answered:
        raise RpcFault("unavailable", SANDBOX_NOT_FOUND)
    raise sandbox_gone(call.sandbox.sandbox_id)


def keepalive_interval(call: Call) -> int:
    """After how many seconds of silence a stream says that it lives."""
    text = call.request.headers.get("keepalive-ping-interval", "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) and int(text) > 0 else DEFAULT_KEEPALIVE


async def until_disconnected(request: Request, work: Callable[[], Awaitable[T]], after: float = 0.0) -> T:
    """Work for a client until it leaves.

    Args:
        request: The client's.
        work: What to do for it.
        after: How long it does not matter whether the client is there, in seconds.

    Raises:
        ClientGone: it left before the work was done.
    """
    with anyio.CancelScope() as scope, request.watched(scope.cancel, after):
        done = await work()
        if not scope.cancel_called:
            return done
    raise ClientGone
