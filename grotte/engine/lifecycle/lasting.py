"""Tasks of the engine that none of its troubles ends: whatever goes wrong in one must not take all sandboxes along."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple, Unpack

import anyio

Ts = TypeVarTuple("Ts")

log = logging.getLogger("grotte.engine")

#: How long a task rests after an error, in seconds.
REST = 5.0


async def lasting(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is to be done for ever, and begin again after an error."""
    while True:
        await once(work)
        await anyio.sleep(REST)


async def once(work: Callable[[Unpack[Ts]], Awaitable[None]], *arguments: *Ts) -> None:
    """Do something; an error is logged."""
    try:
        await work(*arguments)
    except Exception:
        log.exception("event=task_failed task=%s", getattr(work, "__qualname__", work))
