"""Every answer that is no success, and the one place that says which HTTP status and body it has."""

from __future__ import annotations

import msgspec

from grotte._proto import control
from grotte._proto.connect import HTTP_STATUS

Headers = list[tuple[str, str]]

#: What a client reads to tell a sandbox that is gone from one that does not listen: clients look for the substrings.
SANDBOX_NOT_FOUND = "The sandbox was not found"
PORT_NOT_OPEN = "The sandbox is running but port is not open"

#: Connect code → HTTP status on the plain routes, where Connect's own table does not say what clients expect.
_PLAIN_STATUS = HTTP_STATUS | {"resource_exhausted": 507, "already_exists": 400, "canceled": 408}


class ProxyBody(msgspec.Struct, rename={"sandbox_id": "sandboxId"}):
    sandbox_id: str
    message: str
    code: int
    port: int | msgspec.UnsetType = msgspec.UNSET


class Fault(Exception):
    """A request that ends in an HTTP error with a JSON body."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []

    def body(self) -> bytes:
        """The JSON that clients parse: both fields, always."""
        return msgspec.json.encode(control.ErrorBody(code=self.status, message=self.message))

    @property
    def content_type(self) -> str:
        return "application/json"


class ControlFault(Fault):
    """An error of the control plane; clients must show it, not repeat the call."""

    def __init__(self, status: int, message: str, headers: Headers | None = None, *, retry: bool = False) -> None:
        super().__init__(status, message, [("should-retry", "true" if retry else "false"), *(headers or [])])


class TextFault(Fault):
    """A request that names no sandbox: plain text, as the service's edge answers it."""

    def body(self) -> bytes:
        return self.message.encode()

    @property
    def content_type(self) -> str:
        return "text/plain; charset=utf-8"


class ProxyFault(Fault):
    """An error of the way to a sandbox."""

    def __init__(self, status: int, message: str, sandbox_id: str, port: int | None = None) -> None:
        super().__init__(status, message)
        self.sandbox_id = sandbox_id
        self.port = port

    def body(self) -> bytes:
        port = msgspec.UNSET if self.port is None else self.port
        return msgspec.json.encode(ProxyBody(self.sandbox_id, self.message, self.status, port))


class RpcFault(Exception):
    """A Connect error: a code of `HTTP_STATUS` and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code if code in HTTP_STATUS else "unknown"
        self.message = message


class ClientGone(Exception):
    """The client closed the connection or reset the stream: nobody is left to answer."""


def sandbox_gone(sandbox_id: str) -> ProxyFault:
    return ProxyFault(502, SANDBOX_NOT_FOUND, sandbox_id)


def not_offered(what: str) -> ControlFault:
    """The honest answer to what this engine does not do."""
    return ControlFault(501, f"{what} is not offered by this engine")


def method_not_allowed(allowed: str) -> ControlFault:
    return ControlFault(405, "method not allowed", [("allow", allowed)])


def plain_fault(code: str, message: str) -> Fault:
    """The answer of a plain route (`/files`) to a refusal that carries a Connect code."""
    return Fault(_PLAIN_STATUS.get(code, 500), message)
