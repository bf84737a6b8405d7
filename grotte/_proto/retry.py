"""When a request may be sent again without being asked: a table, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass

from grotte._proto.http2.codec import ErrorCode
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    ProtocolViolation,
    StreamResetError,
    TransportError,
)

#: Methods that a server must be able to see twice (RFC 9110 §9.2.2), as far as this client uses them.
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_CONNECT_RETRIES = 2
MAX_LOST_RETRIES = 2
MAX_REFUSALS = 20


@dataclass(slots=True, frozen=True)
class Again:
    """Send it again, after `delay` seconds."""

    delay: float


def plan_retry(error: TransportError, *, attempt: int, repeatable: bool) -> Again | None:
    """Judge a failed attempt.

    Args:
        error: How it failed.
        attempt: How many attempts failed before this one.
        repeatable: Whether the request may reach the server twice.

    Returns:
        What to do, or None: report the failure.
    """
    if isinstance(error, DeadlineExceeded | ProtocolViolation):
        return None
    if isinstance(error, ConnectFailed):
        return Again(_jittered(0.05 * 2**attempt)) if attempt < MAX_CONNECT_RETRIES else None
    if isinstance(error, StreamResetError) and error.error_code == ErrorCode.REFUSED_STREAM:
        # The server is full: hammering gets the whole connection closed.
        return Again(_jittered(min(0.05, 0.002 * 2**attempt))) if attempt < MAX_REFUSALS else None
    if isinstance(error, StreamResetError) and error.error_code == ErrorCode.ENHANCE_YOUR_CALM:
        return None
    if not error.processed:
        return Again(0.0) if attempt < MAX_REFUSALS else None
    lost = isinstance(error, ConnectionLost | StreamResetError)
    return Again(_jittered(0.01)) if lost and repeatable and attempt < MAX_LOST_RETRIES else None


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - not for secrets
