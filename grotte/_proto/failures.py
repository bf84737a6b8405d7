"""From an answer that is no success to the exception that says so: tables and pure functions.

Three dialects: the control plane's JSON, Connect errors of the agent in the sandbox, and the JSON or text of its plain
HTTP routes and of the proxy before it. Bodies may be cut off, may be no JSON, and may be lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from grotte._proto.connect import CODE_OF_STATUS, ErrorBody
from grotte._proto.transport_errors import ConnectFailed, DeadlineExceeded, TransportError
from grotte.errors import (
    AuthenticationException,
    FileNotFoundException,
    GrotteException,
    GuestUnresponsiveException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxHostUnreachableException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)

E = TypeVar("E", bound=GrotteException)

#: What the proxy before the sandboxes says, as far as clients tell its answers apart.
GONE = "was not found"
PORT_CLOSED = "port is not open"
#: How much of a body that is no JSON stands in a message.
EXCERPT = 300

_GONE_HINT = (
    "the sandbox was killed, paused, or its time is over; give it more with timeout= when creating it, or with "
    "set_timeout()"
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a failed call was.

    Attributes:
        request: Method and path, such as ``"POST /sandboxes"``.
        sandbox_id: The sandbox that it was about.
    """

    request: str
    sandbox_id: str | None = None

    def fail(
        self, kind: type[GrotteException], text: str, status: int | None = None, said: str | None = None
    ) -> GrotteException:
        return kind(text, status_code=status, sandbox_id=self.sandbox_id, request=self.request, server_message=said)


@dataclass(frozen=True, slots=True)
class Said:
    """What can be read from an error body."""

    message: str
    code: str | int | None = None
    error_code: str | None = None


def read_error(content: bytes) -> Said:
    """Read an error body, whatever it is."""
    try:
        body: object = msgspec.json.decode(content) if content else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        text = " ".join(content[: 4 * EXCERPT].decode(errors="replace").split())
        return Said(text[:EXCERPT])
    message, code, error_code = body.get("message"), body.get("code"), body.get("error_code")
    return Said(
        message if isinstance(message, str) else "",
        code if isinstance(code, str | int) else None,
        error_code if isinstance(error_code, str) else None,
    )


# -- the control plane -------------------------------------------------------------------------------------------

_API_KINDS: dict[int, type[GrotteException]] = {
    400: InvalidArgumentException,
    401: AuthenticationException,
    429: RateLimitException,
    503: ServiceBusyException,
}


def api_failure(
    status: int,
    content: bytes,
    context: Context,
    kinds: Mapping[int, type[GrotteException]] | None = None,
    default: type[GrotteException] = SandboxException,
) -> GrotteException:
    """The exception for an answer of the control plane.

    Args:
        status: The HTTP status.
        content: The body.
        context: The call.
        kinds: What some statuses mean for this call.
        default: For every other status.
    """
    said = read_error(content)
    if said.error_code == GuestUnresponsiveException.code:
        kind: type[GrotteException] = GuestUnresponsiveException
    else:
        kind = (kinds or {}).get(status) or _API_KINDS.get(status, default)
    text = f"{status}: {said.message or 'the server gave no reason'}"
    if status == 401:
        text += " - is the API key right? It comes from api_key= or GROTTE_API_KEY"
    return context.fail(kind, text, status, said.message)


# -- the agent in the sandbox, and the proxy before it ---------------------------------------------------------

_RPC_KINDS: dict[str, type[GrotteException]] = {
    "invalid_argument": InvalidArgumentException,
    "unauthenticated": AuthenticationException,
    "not_found": NotFoundException,
    "resource_exhausted": RateLimitException,
    "canceled": TimeoutException,
    "deadline_exceeded": TimeoutException,
}


#: What a refusal says that is about the disk, not about too many requests.
_FULL = ("no space left", "disk limit", "disk full", "disk space")


def read_rpc_error(status: int, content: bytes) -> ErrorBody:
    """A Connect error from an answer without success; the status speaks where the body does not."""
    said = read_error(content)
    if isinstance(said.code, str):
        return ErrorBody(code=said.code, message=said.message)
    number = said.code if isinstance(said.code, int) and said.code in CODE_OF_STATUS else status
    return ErrorBody(code=CODE_OF_STATUS.get(number, "unknown"), message=said.message or f"HTTP status {status}")


def rpc_failure(
    error: ErrorBody,
    context: Context,
    *,
    kinds: Mapping[str, type[GrotteException]] | None = None,
    status: int | None = None,
    limit: str = "",
) -> GrotteException:
    """The exception for a Connect error.

    Args:
        error: What the server says.
        context: The call.
        kinds: What some codes mean for this call.
        status: The HTTP status, if it was no success.
        limit: The time limit that the caller can raise, in words.
    """
    if error.code == "unavailable":
        return unavailable(error.message, context, status)
    known = {**_RPC_KINDS, **(kinds or {})}
    if error.code == "resource_exhausted" and any(word in error.message for word in _FULL):
        known[error.code] = NotEnoughSpaceException
    text = error.message if error.code in known else f"{error.code}: {error.message}"
    if error.code == "deadline_exceeded":
        text = f"{text or 'the time limit passed'}: {limit}"
    elif error.code == "canceled":
        text = f"{text}: the server or a proxy gave the request up, for example because the sandbox was paused"
    return context.fail(known.get(error.code, SandboxException), text, status, error.message)


def unavailable(message: str, context: Context, status: int | None = None) -> GrotteException:
    """Gone, or out of reach: the proxy's words decide."""
    if GONE in message:
        return context.fail(SandboxNotRunningException, f"{message}: {_GONE_HINT}", status, message)
    if PORT_CLOSED in message:
        text = f"{message}: the sandbox runs, but the agent in it does not answer"
        return context.fail(SandboxUnreachableException, text, status, message)
    text = f"{message or 'unavailable'}: the sandbox could not be reached; get_info() tells whether it still runs"
    return context.fail(SandboxUnreachableException, text, status, message)


def is_ambiguous(error: GrotteException) -> bool:
    """Whether only asking the sandbox can tell if it is gone."""
    return isinstance(error, SandboxUnreachableException) and PORT_CLOSED not in (error.server_message or "")


_FILES_KINDS: dict[int, type[GrotteException]] = {
    400: InvalidArgumentException,
    401: AuthenticationException,
    404: FileNotFoundException,
    429: RateLimitException,
    507: NotEnoughSpaceException,
}


def files_failure(status: int, content: bytes, context: Context) -> GrotteException:
    """The exception for an answer of ``/files`` or ``/health``."""
    said = read_error(content)
    if status == 502:
        return unavailable(said.message, context, status)
    kind = _FILES_KINDS.get(status)
    text = said.message or f"HTTP status {status}"
    return context.fail(kind or SandboxException, text if kind else f"{status}: {text}", status, said.message)


# -- no answer at all ----------------------------------------------------------------------------------------------


def transport_failure(
    error: TransportError, context: Context, unreachable: type[GrotteException], limit: str
) -> GrotteException:
    """The exception for a request that got no complete answer.

    Args:
        error: What the transport says.
        context: The call.
        unreachable: For connections that could not be made, or broke.
        limit: The time limit that the caller can raise, in words.
    """
    if isinstance(error, DeadlineExceeded) and error.kind != "connect":
        return context.fail(TimeoutException, f"{error}: {limit}")
    down = isinstance(error, ConnectFailed) and unreachable is SandboxUnreachableException
    return context.fail(SandboxHostUnreachableException if down else unreachable, str(error))


def extended(error: E, text: str) -> E:
    """The same failure with more to say."""
    return type(error)(
        f"{error.args[0]}; {text}",
        status_code=error.status_code,
        sandbox_id=error.sandbox_id,
        request=error.request,
        server_message=error.server_message,
    )


def request_limit(request_timeout: float | None) -> str:
    """How to give one request more time."""
    if request_timeout is None:
        return "no 'request_timeout' is set"
    return f"'request_timeout' is {request_timeout:g} s; pass a larger number of seconds, or 0 for none"


def command_limit(timeout: float | None, subject: str = "the command") -> str:
    """How to give a command, or what else has a `timeout`, more time."""
    if timeout is None:
        return "no 'timeout' is set"
    return f"'timeout' of {subject} is {timeout:g} s; pass a larger number of seconds, or 0 for none"
