"""A streamed answer of the agent in a sandbox: its events as they come, its deadlines, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

import msgspec

from grotte._core import _aio
from grotte._core.client import deadline_after, transport_of
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._core.rpc import AsyncEnvd
from grotte._core.transport import AsyncTransport
from grotte._proto import failures
from grotte._proto.connect import (
    FLAG_COMPRESSED,
    FLAG_END_STREAM,
    EndOfStream,
    Envelope,
    EnvelopeError,
    EnvelopeReader,
    ErrorBody,
)
from grotte._proto.failures import Context
from grotte._proto.http import Headers
from grotte._proto.messages import DataEvent, InvalidMessage, ProcessEvent, ProcessEventResponse, decode
from grotte._proto.resume import RAW_FLAGS, RAW_MASK
from grotte._proto.transport_errors import DeadlineExceeded, TransportError
from grotte.errors import (
    GrotteException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
)

E = TypeVar("E")

#: A server that is silent for longer than two of the longest pauses that servers choose is taken for lost, in seconds.
SILENCE_SECONDS = 190.0
#: The server ends a call at its deadline; this much later the client does.
GRACE_SECONDS = 2.0
#: After the last message the server has this long to end the stream, which then needs no reset.
END_SECONDS = 0.5

RAW_STDOUT, RAW_STDERR = RAW_FLAGS["stdout"], RAW_FLAGS["stderr"]

_decode = msgspec.json.Decoder(ProcessEventResponse, strict=False).decode


def process_event(envelope: Envelope) -> ProcessEvent:
    """The event of a message of ``Start`` or ``Connect``, or the output that an envelope holds as it is.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    raw = envelope.flags & RAW_MASK
    if not raw:
        return _decode(envelope.payload).event
    data = bytes(envelope.payload)
    if raw == RAW_STDOUT:
        return ProcessEvent(data=DataEvent(stdout=data))
    return ProcessEvent(data=DataEvent(stderr=data) if raw == RAW_STDERR else DataEvent(pty=data))


class AsyncEventStream(Generic[E]):
    """A call that answers with events, open until its end or `aclose`. One task or thread at a time reads it.

    A `receive` that is cancelled leaves it as it was.

    Args:
        envd: Who is asked.
        request: What is asked.
        timeout: The stream's whole life, in seconds.
        read: Makes an event of a message's envelope.
        subject: Whose `timeout` that is, for messages.
        kinds: The exceptions for some Connect codes, where they mean something special to this call.
        deadline: When it is over, on `_aio.clock()`, if that is not counted from now.
    """

    def __init__(
        self,
        envd: AsyncEnvd,
        request: Request,
        timeout: float | None,
        read: Callable[[Envelope], E],
        *,
        subject: str = "the command",
        kinds: Mapping[str, type[GrotteException]] | None = None,
        deadline: float | None = None,
    ) -> None:
        self._envd = envd
        self._request = request
        self._timeout = timeout
        self._deadline = deadline
        self._read = read
        self._limit = failures.command_limit(timeout, subject)
        self._kinds = kinds
        #: How long the answer's beginning may take; once it is there, None.
        self._start_limit: str | None = None
        self._stack = AsyncExitStack()
        self._reader = EnvelopeReader()
        self._response: AsyncStreamResponse | None = None
        self._transport: AsyncTransport | None = None
        self._failure: GrotteException | None = None
        self._over = False
        #: Of the answer, once it has begun.
        self.headers: Headers | None = None
        #: The server said that this was all.
        self.complete = False
        envd.remember(self)

    async def open(self, request_timeout: float | None) -> list[E]:
        """Send the request and wait for the first events.

        `request_timeout` limits the wait for the answer's beginning, which servers send with the first event.
        """
        try:
            return await self.begin(request_timeout)
        except TransportError as error:
            raise await self.explained(error) from error
        except SandboxUnreachableException as refusal:
            raise await self.explained(refusal) from None

    async def begin(self, request_timeout: float | None) -> list[E]:
        """As `open`, but what goes wrong is raised as it comes: see `explained`."""
        try:
            await self._connect(request_timeout)
            return await self.pull()
        except BaseException as error:
            if self._request.heir is not None and self._response is not None and not isinstance(error, Exception):
                await self._request.heir.inherit(self._response)
            await self.aclose()
            raise
        finally:
            self._request.heir = None  # a ring of references would keep what nobody holds any more

    async def late(self, response: AsyncStreamResponse, deadline: float) -> list[E]:
        """The first events of an answer that begins when nobody waits for it any more; none of a refusal."""
        self._response = response
        return await self.pull(deadline) if response.status == 200 else []

    async def _connect(self, request_timeout: float | None) -> None:
        self._start_limit = failures.request_limit(request_timeout)
        self._transport = transport_of(self._request)
        opening = self._transport.stream(self._request, deadline=self._total(), idle_timeout=request_timeout)
        self._response = await self._stack.enter_async_context(opening)
        self.headers = self._response.headers
        if self._response.status == 200:
            self._start_limit = None
            self._response.idle_timeout = SILENCE_SECONDS
            return
        content = await self._response.aread()
        said = failures.read_rpc_error(self._response.status, content)
        raise self._refusal(said, self._response.status)

    def _total(self) -> float | None:
        if self._deadline is not None:
            return self._deadline
        return deadline_after(None if self._timeout is None else self._timeout + GRACE_SECONDS)

    async def receive(self, deadline: float | None = None) -> list[E]:
        """The next events; none when the stream has ended as it should.

        Args:
            deadline: Until when to wait, on `_aio.clock()`.

        Raises:
            TimeoutError: the deadline passed, and the stream goes on.
            GrotteException: it broke, or the server ended it with an error.
        """
        try:
            return await self.pull(deadline)
        except TransportError as error:
            raise await self.explained(error) from error
        except SandboxUnreachableException as refusal:
            raise await self.explained(refusal) from None

    async def pull(self, deadline: float | None = None) -> list[E]:
        """As `receive`, but what goes wrong is raised as it comes: see `explained`."""
        while not self._is_over():
            try:
                events = self._take(await self._next(deadline))
            except StopAsyncIteration:
                self._end(None)
                break
            except TransportError:
                await self.aclose()
                if self._failure is not None:  # it was given up meanwhile
                    break
                raise
            if self._is_over():
                await self._await_end()
            if events:
                return events
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return []

    async def explained(self, error: GrotteException) -> GrotteException:
        """What to raise for what `begin` or `pull` raised: what the transport says is put in the call's words, and
        where it is not clear whether the sandbox is gone, it is asked."""
        if not isinstance(error, TransportError):
            return await self._envd.judged(error)
        silent = isinstance(error, DeadlineExceeded) and error.kind in ("idle", "read")
        if silent and self._start_limit is None:
            text = f"nothing arrived for {SILENCE_SECONDS:g} s, not even a sign of life"
            return await self._envd.judged(self._context().fail(SandboxUnreachableException, text))
        limit = self._start_limit if silent and self._start_limit else self._limit
        return await self._envd.lost(error, self._request, limit)

    async def _next(self, deadline: float | None) -> bytes:
        response = self._response
        assert response is not None
        if deadline is not None:
            response.idle_timeout = min(SILENCE_SECONDS, max(0.0, deadline - _aio.clock()))
        try:
            return await anext(response)
        except DeadlineExceeded as error:
            if deadline is not None and error.kind == "idle" and _aio.clock() >= deadline:
                raise TimeoutError("nothing arrived before the deadline") from None
            raise
        finally:
            response.idle_timeout = SILENCE_SECONDS

    async def aclose(self) -> None:
        """Let go of the stream; what it told of goes on."""
        self._over = True
        await self._stack.aclose()

    def is_elsewhere(self) -> bool:
        """Whether it goes on in another event loop, and must not be touched here."""
        return not self._over and self._transport is not None and self._transport.is_elsewhere()

    def is_left(self) -> bool:
        """Whether the event loop that it was opened in has ended, and it with that."""
        return not self._over and self._transport is not None and transport_of(self._request) is not self._transport

    async def give_up(self) -> None:
        """The sandbox is gone: whoever reads on is told so."""
        if not self._over:
            self._failure = self._context().fail(SandboxNotRunningException, "the sandbox was killed")
            if not self.is_elsewhere():  # there it ends by what the server says
                await self.aclose()

    def _is_over(self) -> bool:
        return self._over

    def _take(self, chunk: bytes) -> list[E]:
        events: list[E] = []
        try:
            for envelope in self._reader.feed(chunk):
                if envelope.flags & FLAG_COMPRESSED:
                    raise EnvelopeError("a compressed message, which was not asked for")
                if envelope.flags & FLAG_END_STREAM:
                    self._end(decode(EndOfStream, envelope.payload))
                    break
                events.append(self._read(envelope))
        except (EnvelopeError, InvalidMessage, msgspec.MsgspecError) as error:
            self._over = True
            self._failure = self._context().fail(SandboxException, f"the answer is not understood: {error}")
        return events

    def _end(self, end: EndOfStream | None) -> None:
        self._over = True
        self.complete = end is not None
        if end is not None and end.error is not None:
            self._failure = self._refusal(end.error)

    def _refusal(self, said: ErrorBody, status: int | None = None) -> GrotteException:
        return failures.rpc_failure(said, self._context(), kinds=self._kinds, status=status, limit=self._limit)

    async def finish(self) -> None:
        """What else comes is of no interest."""
        self._over = True
        await self._await_end()

    async def _await_end(self) -> None:
        """Read to the end of the response, so that leaving it needs no reset; not at any price."""
        assert self._response is not None
        self._response.idle_timeout = END_SECONDS
        try:
            while await anext(self._response):
                pass
        except (StopAsyncIteration, TransportError):
            pass
        await self._stack.aclose()

    def _context(self) -> Context:
        return self._envd.context_of(self._request)
