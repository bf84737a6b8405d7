"""What a failure means: the function's own, or that of what it ran on. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from grotte.errors import (
    ApiUnreachableException,
    DoNotRetryException,
    EngineUnavailableException,
    GrotteException,
    RateLimitException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)

#: What happened to the sandbox or on the way to it, and may go well on another one.
INFRASTRUCTURE = (
    SandboxNotRunningException,
    SandboxUnreachableException,
    SandboxNotFoundException,
    ApiUnreachableException,
    ServiceBusyException,
    EngineUnavailableException,
)
#: What says that there is no room now.
NO_ROOM = (RateLimitException, ServiceBusyException, EngineUnavailableException)

Creation = Literal["no room", "broken", "wrong"]


def creation_failure(error: Exception) -> Creation:
    """Why a sandbox could not be created.

    Returns:
        "no room": later there may be; "broken": another attempt may succeed; "wrong": none ever will.
    """
    status = error.status_code if isinstance(error, GrotteException) else None
    if isinstance(error, NO_ROOM):
        return "no room"
    if isinstance(error, ApiUnreachableException | TimeoutException | SandboxNotFoundException):
        return "broken"
    return "broken" if status is not None and status >= 500 and status != 501 else "wrong"


def is_infrastructure(error: BaseException, sandbox_id: str) -> bool:
    """Whether a function failed because of what it ran on, and was not told to leave it at that.

    Args:
        error: What it raised; causes, contexts and groups are looked into.
        sandbox_id: The sandbox that it was given: what happened to others is its own business.
    """
    found = list(_with_reasons(error))
    if any(isinstance(one, DoNotRetryException) for one in found):
        return False
    return any(isinstance(one, INFRASTRUCTURE) and one.sandbox_id in (None, sandbox_id) for one in found)


def _with_reasons(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it came from, and what it consists of; each once."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
        reason = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if reason is not None:
            left.append(reason)
