"""When an answer of the control plane is worth asking again: a pure function."""

from __future__ import annotations

import random
from collections.abc import Mapping

MAX_RETRIES = 3
#: Answers that mean "not now".
BUSY = frozenset({429, 502, 503, 504})
#: No server makes a caller wait longer than this between two attempts.
MAX_WAIT = 60.0


def retry_delay(status: int, headers: Mapping[str, str], *, attempt: int, idempotent: bool) -> float | None:
    """How long to wait before the same request is sent again.

    Args:
        status: The HTTP status of the answer.
        headers: Its headers, with lower-case names.
        attempt: How many attempts were answered like this before.
        idempotent: Whether the request may reach the server twice.

    Returns:
        Seconds, or None: the answer stands.
    """
    advice = headers.get("should-retry", "").lower()
    if status < 400 or attempt >= MAX_RETRIES or advice == "false":
        return None
    if advice != "true" and not (idempotent and status in BUSY):
        return None
    wished = retry_after(headers)
    if wished is not None:
        return wished if wished <= MAX_WAIT else None
    # jitter of the full width: many clients that were refused together must not come back together
    return min(10.0, 0.1 * 4.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets


def told_delay(status: int, headers: Mapping[str, str], *, attempt: int, idempotent: bool) -> float | None:
    """The same for servers that are not known to mean "not now" unless they say so."""
    if "retry-after" not in headers and "should-retry" not in headers:
        return None
    return retry_delay(status, headers, attempt=attempt, idempotent=idempotent)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone, in seconds; None if it does not say (RFC 9110 §10.2.3, numbers)."""
    wished = headers.get("retry-after", "").strip()
    return float(wished) if wished.isascii() and wished.isdigit() and len(wished) < 10 else None
