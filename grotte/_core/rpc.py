"""The agent inside one sandbox: unary calls, streams of events and plain HTTP, with their deadlines and failures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

from grotte._core.client import fetch, fetch_patiently, open_stream
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._proto import failures
from grotte._proto.backoff import told_delay
from grotte._proto.connect import (
    STREAM_CONTENT_TYPE,
    UNARY_CONTENT_TYPE,
    pack,
)
from grotte._proto.failures import Context
from grotte._proto.http import Coalesce, Response, split_url
from grotte._proto.messages import InvalidMessage, Message, decode, encode
from grotte._proto.transport_errors import ConnectFailed, TransportError
from grotte._proto.versions import DEFAULT_USER, at_least
from grotte.config import ENVD_PORT, ConnectionConfig, user_agent
from grotte.errors import (
    GrotteException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
)

M = TypeVar("M", bound=Message)

#: A server that has nothing to say says so this often, in seconds.
KEEPALIVE_SECONDS = 50
PROBE_SECONDS = 5.0
MAX_TIMEOUT_MS = 2**31 - 1
UNARY_HEADERS = (("Content-Type", UNARY_CONTENT_TYPE), ("Connect-Protocol-Version", "1"))
STREAM_HEADERS = (
    ("Content-Type", STREAM_CONTENT_TYPE),
    ("Connect-Protocol-Version", "1"),
    ("Connect-Content-Encoding", "identity"),
    ("Keepalive-Ping-Interval", str(KEEPALIVE_SECONDS)),
)
#: So many heads of calls are remembered.
HEADS = 64


class AsyncListener(Protocol):
    """What reads from a sandbox and must know when that is gone."""

    async def give_up(self) -> None:
        """The sandbox is gone."""


@dataclass(slots=True, frozen=True)
class Head:
    """What equal calls have in common: all but the message."""

    target: str
    headers: list[tuple[str, str]]
    context: Context


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
        #: By method, user and time limit.
        self._heads: dict[tuple[str, str | None, float | None], Head] = {}
        self._streams: WeakSet[AsyncListener] = WeakSet()

    def remember(self, stream: AsyncListener) -> None:
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
        head = self._heads.get((method, user, timeout)) or self._head(method, user, timeout, UNARY_HEADERS)
        request = self._build("POST", head.target, head.headers.copy(), encode(message), idempotent)
        try:
            response = await fetch_patiently(
                request, timeout, head.context, idempotent, unreachable=SandboxUnreachableException, plan=told_delay
            )
        except SandboxUnreachableException as failure:
            if isinstance(failure.__cause__, ConnectFailed):
                raise
            raise await self.judged(failure) from failure.__cause__
        if response.status != 200:
            error = failures.read_rpc_error(response.status, response.content)
            limit = failures.request_limit(timeout)
            refusal = failures.rpc_failure(error, head.context, kinds=kinds, status=response.status, limit=limit)
            raise await self.judged(refusal)
        try:
            return decode(reply, response.content)
        except InvalidMessage as error:
            raise head.context.fail(SandboxException, f"the answer is not understood: {error}") from None

    # -- plain HTTP ------------------------------------------------------------------------------------------------

    def file_request(self, method: str, path: str | None, user: str | None, headers: list[tuple[str, str]]) -> Request:
        """A request to ``/files`` without a body."""
        query = {
            key: value for key, value in (("path", path), ("username", self.user_or_default(user))) if value is not None
        }
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
        head = self._heads.get((method, user, timeout)) or self._head(method, user, timeout, STREAM_HEADERS)
        return self._build("POST", head.target, head.headers.copy(), pack(encode(message)), False)

    def context_of(self, request: Request) -> Context:
        """What an exception says of a request."""
        return self._context(request)

    def _head(self, method: str, user: str | None, timeout: float | None, kind: Sequence[tuple[str, str]]) -> Head:
        headers = [*self._headers, *kind, *_timeout_header(timeout), *self._authorization(user)]
        if len(self._heads) >= HEADS:
            self._heads.clear()
        target = f"{self._base}/{method}"
        head = self._heads[method, user, timeout] = Head(target, headers, Context(f"POST {target}", self.sandbox_id))
        return head

    def _request(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None, idempotent: bool
    ) -> Request:
        return self._build(method, self._base + target, [*self._headers, *headers], body, idempotent)

    def _build(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None, idempotent: bool
    ) -> Request:
        return Request(
            method,
            self._origin,
            target,
            headers=headers,
            body=body,
            coalesce=self._coalesce,
            idempotent=idempotent,
            proxy=self.config.proxy,
            transports=self.config.transports,
        )

    def _context(self, request: Request) -> Context:
        # the query names a path and may be long: it is left out
        return Context(f"{request.method} {request.target.partition('?')[0]}", self.sandbox_id)

    def user_or_default(self, user: str | None) -> str | None:
        """Who a call is for; None: the agent decides, if it can."""
        return user or (None if at_least(self.version, DEFAULT_USER) else "user")

    def _authorization(self, user: str | None) -> list[tuple[str, str]]:
        name = self.user_or_default(user)
        if name is None:
            return []
        return [("Authorization", f"Basic {b64encode(f'{name}:'.encode()).decode()}")]


def _timeout_header(timeout: float | None) -> list[tuple[str, str]]:
    """The server's deadline; a whole number of milliseconds, at least one."""
    if timeout is None:
        return []
    return [("Connect-Timeout-Ms", str(max(1, min(MAX_TIMEOUT_MS, int(timeout * 1000)))))]
