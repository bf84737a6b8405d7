"""The agent inside one sandbox: unary calls, streams of events and plain HTTP, with their deadlines and failures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

import msgspec

from grotte._core.client import deadline_after, fetch, open_stream
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._proto import failures
from grotte._proto.connect import (
    FLAG_COMPRESSED,
    FLAG_END_STREAM,
    STREAM_CONTENT_TYPE,
    UNARY_CONTENT_TYPE,
    EndOfStream,
    EnvelopeError,
    EnvelopeReader,
    pack,
)
from grotte._proto.failures import Context
from grotte._proto.http import Coalesce, Response, split_url
from grotte._proto.messages import InvalidMessage, Message, ProcessEvent, ProcessEventResponse, decode, encode
from grotte._proto.transport_errors import ConnectFailed, DeadlineExceeded, TransportError
from grotte._proto.versions import DEFAULT_USER, at_least
from grotte.config import ENVD_PORT, ConnectionConfig, user_agent
from grotte.errors import (
    GrotteException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
)

M = TypeVar("M", bound=Message)

#: A server that has nothing to say says so this often, in seconds...
KEEPALIVE_SECONDS = 50
#: ...and is taken for lost when it is silent for longer than two of the longest pauses that servers choose.
SILENCE_SECONDS = 190.0
#: The server ends a call at its deadline; this much later the client does.
GRACE_SECONDS = 2.0
PROBE_SECONDS = 5.0
#: After the last message the server has this long to end the stream, which then needs no reset.
END_SECONDS = 0.5
MAX_TIMEOUT_MS = 2**31 - 1

_read_event = msgspec.json.Decoder(ProcessEventResponse, strict=False).decode


class AsyncEnvd:
    """One sandbox's agent: where it is, and what every request to it carries."""

    def __init__(
        self, config: ConnectionConfig, sandbox_id: str, domain: str | None, version: str, access_token: str | None
    ) -> None:
        self.config = config
        self.sandbox_id = sandbox_id
        self.version = version
        self.access_token = access_token
        self._origin, base = split_url(config.envd_url(sandbox_id, domain))
        self._base = base.rstrip("/")
        self._coalesce: Coalesce = "domain" if config.sandbox_url is None and self._origin.scheme == "https" else "off"
        self._headers = [
            *config.headers.items(),
            ("User-Agent", user_agent()),
            ("Grotte-Sandbox-Id", sandbox_id),
            ("Grotte-Sandbox-Port", str(ENVD_PORT)),
            ("E2b-Sandbox-Id", sandbox_id),
            ("E2b-Sandbox-Port", str(ENVD_PORT)),
        ]
        if access_token is not None:
            self._headers.append(("X-Access-Token", access_token))
        self._streams: WeakSet[AsyncEventStream] = WeakSet()

    def remember(self, stream: AsyncEventStream) -> None:
        """Close this stream with the sandbox, if it is still open then."""
        self._streams.add(stream)

    async def aclose(self) -> None:
        """The sandbox is gone: so are the streams that nobody read to their end."""
        for stream in list(self._streams):
            await stream.give_up()

    # -- unary calls -----------------------------------------------------------------------------------------------

    async def unary(
        self,
        method: str,
        message: Message,
        reply: type[M],
        *,
        user: str | None = None,
        request_timeout: float | None = None,
        idempotent: bool = False,
        kinds: Mapping[str, type[GrotteException]] | None = None,
    ) -> M:
        """Call a method and return its answer.

        Args:
            method: Service and method, such as ``"process.Process/List"``.
            message: The request.
            reply: The kind of the answer.
            user: Whose call it is, where that matters.
            request_timeout: In seconds; None for the configured limit.
            idempotent: It may be repeated when the connection breaks.
            kinds: The exceptions for some Connect codes, where they mean something special to this call.
        """
        timeout = self.config.timeout(request_timeout)
        headers = [
            ("Content-Type", UNARY_CONTENT_TYPE),
            ("Connect-Protocol-Version", "1"),
            *_timeout_header(timeout),
            *self._authorization(user),
        ]
        request = self._request("POST", f"/{method}", headers, encode(message), idempotent)
        response = await self._fetch(request, timeout)
        context = self._context(request)
        if response.status != 200:
            error = failures.read_rpc_error(response.status, response.content)
            limit = failures.request_limit(timeout)
            failure = failures.rpc_failure(error, context, kinds=kinds, status=response.status, limit=limit)
            raise await self.judged(failure)
        try:
            return decode(reply, response.content)
        except InvalidMessage as error:
            raise context.fail(SandboxException, f"the answer is not understood: {error}") from None

    # -- plain HTTP ------------------------------------------------------------------------------------------------

    def file_request(self, method: str, path: str | None, user: str | None, headers: list[tuple[str, str]]) -> Request:
        """A request to ``/files`` without a body."""
        query = {key: value for key, value in (("path", path), ("username", self._user(user))) if value is not None}
        target = f"/files?{urlencode(query, quote_via=quote)}" if query else "/files"
        return self._request(method, target, headers, None, False)

    async def stream_http(
        self, stack: AsyncExitStack, request: Request, request_timeout: float | None
    ) -> AsyncStreamResponse:
        """Send a request and return when the answer begins; an answer without success is raised.

        A transfer may take as long as it likes; `request_timeout` limits every pause in it.
        """
        timeout = self.config.timeout(request_timeout)
        try:
            response = await stack.enter_async_context(open_stream(request, deadline=None, idle_timeout=timeout))
            if response.status < 300:
                return response
            content = await response.aread()
        except TransportError as error:
            raise await self.lost(error, request, failures.request_limit(timeout)) from error
        failure = failures.files_failure(response.status, content, self._context(request))
        raise await self.judged(failure)

    async def health(self, timeout: float | None) -> Response:
        """Ask whether the agent answers; any answer is returned, and the transport's errors are raised mapped."""
        request = self._request("GET", "/health", [], None, True)
        return await fetch(
            request, timeout=timeout, context=self._context(request), unreachable=SandboxUnreachableException
        )

    # -- what went wrong -------------------------------------------------------------------------------------------

    async def lost(self, error: TransportError, request: Request, limit: str) -> GrotteException:
        """The exception for a request that got no complete answer: the sandbox is gone, or out of reach."""
        failure = failures.transport_failure(error, self._context(request), SandboxUnreachableException, limit)
        # who could not connect a moment ago learns nothing from another try
        return failure if isinstance(error, ConnectFailed) else await self.judged(failure)

    async def judged(self, failure: GrotteException) -> GrotteException:
        """The failure itself, or a clearer one if the sandbox turns out to be gone."""
        if not failures.is_ambiguous(failure):
            return failure
        try:
            answer = await self.health(PROBE_SECONDS)
        except GrotteException:
            return failure
        said = failures.read_error(answer.content).message
        if answer.status != 502 or failures.GONE not in said:
            return failure
        context = Context(failure.request or "", self.sandbox_id)
        return context.fail(SandboxNotRunningException, f"{said}: it ended while the call was under way", 502, said)

    # -- pieces ----------------------------------------------------------------------------------------------------

    def stream_request(self, method: str, message: Message, user: str | None, timeout: float | None) -> Request:
        """The request of a call that answers with a stream of events."""
        headers = [
            ("Content-Type", STREAM_CONTENT_TYPE),
            ("Connect-Protocol-Version", "1"),
            ("Connect-Content-Encoding", "identity"),
            ("Keepalive-Ping-Interval", str(KEEPALIVE_SECONDS)),
            *_timeout_header(timeout),
            *self._authorization(user),
        ]
        return self._request("POST", f"/{method}", headers, pack(encode(message)), False)

    def context_of(self, request: Request) -> Context:
        """What an exception says of a request."""
        return self._context(request)

    def _request(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None, idempotent: bool
    ) -> Request:
        return Request(
            method,
            self._origin,
            self._base + target,
            headers=[*self._headers, *headers],
            body=body,
            coalesce=self._coalesce,
            idempotent=idempotent,
        )

    async def _fetch(self, request: Request, timeout: float | None) -> Response:
        context = self._context(request)
        try:
            return await fetch(request, timeout=timeout, context=context, unreachable=SandboxUnreachableException)
        except SandboxUnreachableException as failure:
            if isinstance(failure.__cause__, ConnectFailed):
                raise
            raise await self.judged(failure) from failure.__cause__

    def _context(self, request: Request) -> Context:
        # the query names a path and may be long: it is left out
        return Context(f"{request.method} {request.target.partition('?')[0]}", self.sandbox_id)

    def _user(self, user: str | None) -> str | None:
        return user or (None if at_least(self.version, DEFAULT_USER) else "user")

    def _authorization(self, user: str | None) -> list[tuple[str, str]]:
        name = self._user(user)
        if name is None:
            return []
        return [("Authorization", f"Basic {b64encode(f'{name}:'.encode()).decode()}")]


class AsyncEventStream:
    """A call that answers with process events, open until its end or `aclose`. One task or thread at a time reads it.

    A `receive` that is cancelled leaves it as it was.
    """

    def __init__(self, envd: AsyncEnvd, request: Request, timeout: float | None) -> None:
        self._envd = envd
        self._request = request
        #: The stream's whole life, in seconds.
        self._timeout = timeout
        #: How long the answer's beginning may take; once it is there, None.
        self._start_limit: str | None = None
        self._stack = AsyncExitStack()
        self._reader = EnvelopeReader()
        self._response: AsyncStreamResponse | None = None
        self._failure: GrotteException | None = None
        self._over = False
        envd.remember(self)

    async def open(self, request_timeout: float | None) -> list[ProcessEvent]:
        """Send the request and wait for the first events.

        `request_timeout` limits the wait for the answer's beginning, which servers send with the first event.
        """
        try:
            await self._connect(request_timeout)
            return await self.receive()
        except BaseException:
            await self.aclose()
            raise

    async def _connect(self, request_timeout: float | None) -> None:
        self._start_limit = failures.request_limit(request_timeout)
        total = None if self._timeout is None else self._timeout + GRACE_SECONDS
        opening = open_stream(self._request, deadline=deadline_after(total), idle_timeout=request_timeout)
        try:
            self._response = await self._stack.enter_async_context(opening)
            if self._response.status == 200:
                self._start_limit = None
                self._response.idle_timeout = SILENCE_SECONDS
                return
            content = await self._response.aread()
        except TransportError as error:
            raise await self._lost(error) from error
        said = failures.read_rpc_error(self._response.status, content)
        limit = failures.command_limit(self._timeout)
        failure = failures.rpc_failure(said, self._context(), status=self._response.status, limit=limit)
        raise await self._envd.judged(failure)

    async def receive(self) -> list[ProcessEvent]:
        """The next events; none when the stream has ended as it should.

        Raises:
            GrotteException: it broke, or the server ended it with an error.
        """
        while not self._is_over():
            try:
                events = self._take(await anext(self._response))  # type: ignore[arg-type]  # set by `_connect`
            except StopAsyncIteration:
                self._end(None)
                break
            except TransportError as error:
                await self.aclose()
                raise await self._lost(error) from error
            if self._is_over():
                await self._await_end()
            if events:
                return events
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise await self._envd.judged(failure)
        return []

    async def aclose(self) -> None:
        """Let go of the stream; the process goes on."""
        self._over = True
        await self._stack.aclose()

    async def give_up(self) -> None:
        """The sandbox is gone: whoever reads on is told so."""
        if not self._over:
            self._failure = self._context().fail(SandboxNotRunningException, "the sandbox was killed")
            await self.aclose()

    def _is_over(self) -> bool:
        return self._over

    def _take(self, chunk: bytes) -> list[ProcessEvent]:
        events: list[ProcessEvent] = []
        try:
            for envelope in self._reader.feed(chunk):
                if envelope.flags & FLAG_COMPRESSED:
                    raise EnvelopeError("a compressed message, which was not asked for")
                if envelope.flags & FLAG_END_STREAM:
                    self._end(decode(EndOfStream, envelope.payload))
                    break
                events.append(_read_event(envelope.payload).event)
        except (EnvelopeError, InvalidMessage, msgspec.MsgspecError) as error:
            self._over = True
            self._failure = self._context().fail(SandboxException, f"the answer is not understood: {error}")
        return events

    def _end(self, end: EndOfStream | None) -> None:
        self._over = True
        if end is not None and end.error is not None:
            limit = failures.command_limit(self._timeout)
            self._failure = failures.rpc_failure(end.error, self._context(), limit=limit)

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

    async def _lost(self, error: TransportError) -> GrotteException:
        silent = isinstance(error, DeadlineExceeded) and error.kind in ("idle", "read")
        if silent and self._start_limit is None:
            text = f"nothing arrived for {SILENCE_SECONDS:g} s, not even a sign of life"
            return await self._envd.judged(self._context().fail(SandboxUnreachableException, text))
        limit = self._start_limit if silent and self._start_limit else failures.command_limit(self._timeout)
        return await self._envd.lost(error, self._request, limit)

    def _context(self) -> Context:
        return self._envd.context_of(self._request)


def _timeout_header(timeout: float | None) -> list[tuple[str, str]]:
    """The server's deadline; a whole number of milliseconds, at least one."""
    if timeout is None:
        return []
    return [("Connect-Timeout-Ms", str(max(1, min(MAX_TIMEOUT_MS, int(timeout * 1000)))))]
