"""What can go wrong below the API: every exception of the transport.

The question that a caller has is whether the server may have acted. `processed` answers it: False means that it
certainly did not, so that the request may be sent again whatever its method.
"""

from __future__ import annotations

from typing import Literal

from grotte.errors import GrotteException

DeadlineKind = Literal["connect", "read", "write", "pool", "total", "idle"]


class TransportError(GrotteException):
    """A request got no complete answer.

    Attributes:
        processed: False when the server certainly did not act on the request; True when it may have.
    """

    def __init__(self, message: str, *, processed: bool) -> None:
        super().__init__(message)
        self.processed = processed

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class with `args` alone: no copy, no pickle.
        return _remake, (type(self), self.args, self.__dict__)


def _remake(kind: type[TransportError], args: tuple[object, ...], state: dict[str, object]) -> TransportError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConnectFailed(TransportError):
    """The name could not be resolved, or TCP or TLS could not be set up; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, processed=False)


class ConnectionLost(TransportError):
    """The connection ended, or went silent, before the answer was complete."""


class StreamResetError(TransportError):
    """The server gave up this request alone.

    Attributes:
        error_code: The HTTP/2 error code (RFC 9113 §7).
    """

    def __init__(self, message: str, *, error_code: int, processed: bool) -> None:
        super().__init__(message, processed=processed)
        self.error_code = error_code


class DeadlineExceeded(TransportError):
    """A time limit passed.

    Attributes:
        kind: Which one: "connect", "pool", "write", "read", "idle" (nothing arrived for too long) or "total".
    """

    def __init__(self, message: str, *, kind: DeadlineKind, processed: bool) -> None:
        super().__init__(message, processed=processed)
        self.kind: DeadlineKind = kind


class PoolTimeout(DeadlineExceeded):
    """No connection had room for another request in time; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="pool", processed=False)


class ProtocolViolation(TransportError):
    """The server broke the protocol, or a limit that protects this process; the connection is closed."""
