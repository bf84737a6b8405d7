"""Connect RPC over HTTP: unary calls and streams, JSON only, with the protocol's ways to fail."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import anyio
import msgspec
from msgspec import Struct

from grotte._proto.connect import (
    FLAG_COMPRESSED,
    FLAG_END_STREAM,
    HTTP_STATUS,
    MAX_MESSAGE,
    STREAM_CONTENT_TYPE,
    UNARY_CONTENT_TYPE,
    EndOfStream,
    EnvelopeError,
    EnvelopeReader,
    ErrorBody,
    pack,
)
from grotte._proto.messages import InvalidMessage, decode, encode
from grotte.engine.faults import SANDBOX_NOT_FOUND, ClientGone, Fault, Headers, RpcFault, sandbox_gone
from grotte.engine.host import GuestError
from grotte.engine.http import Request
from grotte.engine.lifecycle.sandbox import Sandbox

M = TypeVar("M", bound=Struct)
T = TypeVar("T")
R = TypeVar("R")

DEFAULT_KEEPALIVE = 90
END_OF_STREAM = pack(encode(EndOfStream()), FLAG_END_STREAM)


@dataclass(slots=True)
class Call:
    """One call on a sandbox.

    Attributes:
        user: Whom it acts as.
        deadline: On the event loop's clock: a little before the client gives up; None for never.
        headers: What every answer carries.
    """

    request: Request
    sandbox: Sandbox
    headers: Headers
    user: str
    deadline: float | None = None


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
    """A streaming call: messages come in, envelopes go out, each at once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reader = EnvelopeReader(MAX_MESSAGE)
        self._request = call.request

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
            RpcFault: one is malformed, compressed, or cut off.
        """
        try:
            async for chunk in self._request.chunks():
                for envelope in self._reader.feed(chunk):
                    if envelope.flags & FLAG_END_STREAM:
                        return
                    if envelope.flags & FLAG_COMPRESSED:
                        raise RpcFault("internal", "compressed message without an agreed compression")
                    yield parse(kind, envelope.payload)
            self._reader.finish()
        except EnvelopeError as error:
            raise RpcFault("invalid_argument", f"protocol error: {error}") from None

    async def send(self, envelopes: bytes) -> None:
        """Send whole envelopes, headers first if they have not gone out yet."""
        await self._start()
        await self._request.write(envelopes)

    async def end(self, last: bytes = b"") -> None:
        """End the stream in good order, after `last` envelopes."""
        await self._start()
        await self._request.finish(last + END_OF_STREAM)

    async def fail(self, fault: RpcFault) -> None:
        """End the stream with an error: over HTTP it is a success all the same."""
        await self._start()
        error = ErrorBody(code=fault.code, message=fault.message)
        await self._request.finish(pack(encode(EndOfStream(error=error)), FLAG_END_STREAM))

    async def _start(self) -> None:
        if not self._request.answered:
            await self._request.start(200, [("content-type", STREAM_CONTENT_TYPE), *self._call.headers])


def parse(kind: type[M], payload: bytes | memoryview) -> M:
    """One message.

    Raises:
        RpcFault: invalid_argument, it is malformed.
    """
    try:
        return decode(kind, payload)
    except InvalidMessage as error:
        try:
            # proto3 JSON lets null stand for an absent field at any depth; real clients hardly write it
            plain = _without_nulls(msgspec.json.decode(payload))
            return decode(kind, msgspec.json.encode(plain))
        except (InvalidMessage, msgspec.MsgspecError, UnicodeError, RecursionError):
            raise RpcFault("invalid_argument", f"unmarshal message: {error}") from None


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


async def serve_rpc(method: Unary | Streaming, call: Call, basic_user: str | None) -> None:
    """Answer one RPC.

    Raises:
        Fault: before the protocol begins: 405, 415, or the sandbox is gone.
        ClientGone: the client left.
    """
    streaming = isinstance(method, Streaming)
    _check_http(call.request, STREAM_CONTENT_TYPE if streaming else UNARY_CONTENT_TYPE)
    if isinstance(method, Unary):
        try:
            answer = await _unary(method, call, basic_user)
        except RpcFault as fault:
            body = encode(ErrorBody(code=fault.code, message=fault.message))
            return await call.request.reply(HTTP_STATUS[fault.code], body, call.headers)
        return await call.request.reply(200, answer, call.headers)
    stream = Stream(call)
    try:
        with _faults_of(call):
            await _prepare(call, "connect-content-encoding", basic_user)
            await _within_deadline(call, method.handle, stream)
    except RpcFault as fault:
        await stream.fail(fault)


async def _unary(method: Unary, call: Call, basic_user: str | None) -> bytes:
    with _faults_of(call):
        await _prepare(call, "content-encoding", basic_user)
        message = parse(method.kind, await _unary_body(call.request))
        return encode(await _within_deadline(call, method.handle, message))


def _check_http(request: Request, content_type: str) -> None:
    if request.method != "POST":
        raise Fault(405, "method not allowed", [("allow", "POST")])
    if request.media_type != content_type:
        raise Fault(415, f"unsupported media type: send {content_type}", [("accept-post", content_type)])


async def _prepare(call: Call, encoding_header: str, basic_user: str | None) -> None:
    """Read what the headers say of the call.

    Raises:
        RpcFault: they are malformed, ask for a compression, or name an unknown user.
    """
    headers = call.request.headers
    if headers.get("connect-protocol-version", "1") != "1":
        raise RpcFault("invalid_argument", 'connect-protocol-version must be "1"')
    if headers.get(encoding_header, "identity") not in ("identity", ""):
        raise RpcFault("unimplemented", "unknown compression: supported encodings are identity")
    if (timeout := headers.get("connect-timeout-ms")) is not None:
        call.deadline = anyio.current_time() + _seconds(timeout)
    if basic_user is not None:
        # An unknown user is refused everywhere, also where nothing is done in the user's name.
        call.user = (await call.sandbox.guest.user(basic_user)).name


def _seconds(timeout: str) -> float:
    """How long to work for a client that waits so many milliseconds: a little less, so that it hears of the end."""
    if not re.fullmatch(r"[0-9]{1,10}", timeout):
        raise RpcFault("invalid_argument", "connect-timeout-ms must be a number of milliseconds of at most 10 digits")
    seconds = int(timeout) / 1000
    return seconds - min(0.15, seconds * 0.05)


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


async def until_disconnected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Work for a client until it leaves.

    Raises:
        ClientGone: it left before the work was done.
    """
    with anyio.CancelScope() as scope, request.watched(scope.cancel):
        done = await work()
        if not scope.cancel_called:
            return done
    raise ClientGone
