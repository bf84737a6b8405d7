"""Sandboxes that are made are held, or killed again: nothing that a call has made outlives its failure."""

from __future__ import annotations

import logging

from grotte._core import _aio
from grotte._core.api import AsyncControlPlane
from grotte._proto import control
from grotte.errors import GrotteException, SandboxException

logger = logging.getLogger("grotte")

#: How much longer a cancelled call waits for the answer that names the sandbox to kill, in seconds.
CREATE_GRACE = 10.0
#: How long it may take to kill what a call has made, in seconds.
KILL_SECONDS = 10.0


async def create_or_kill(
    api: AsyncControlPlane, wanted: control.NewSandbox, idempotency_key: str | None = None
) -> control.Sandbox:
    """Create a sandbox; if the caller is cancelled meanwhile, find out which it is, and kill it."""
    made: list[control.Sandbox] = []

    async def create() -> None:
        made.append(await api.create(wanted, idempotency_key))

    try:
        await _aio.see_through(CREATE_GRACE, create)
    except BaseException:
        await _kill_all(api, made)
        raise
    return made[0]


async def fork_or_kill(api: AsyncControlPlane, sandbox_id: str, wanted: control.ForkRequest) -> list[control.Sandbox]:
    """Make copies; if one fails or the caller is cancelled meanwhile, kill the others."""
    made: list[control.Sandbox] = []

    async def fork() -> None:
        forks = await api.fork(sandbox_id, wanted)
        made.extend(one.sandbox for one in forks if one.sandbox is not None)
        errors = [one.error for one in forks if one.error is not None]
        if errors or len(made) != wanted.count:
            said = errors[0].message if errors else ""
            text = f"{len(made)} of {wanted.count} copies were made, and killed again: {said or 'no reason was given'}"
            raise SandboxException(text, sandbox_id=sandbox_id, server_message=said)

    try:
        await _aio.see_through(CREATE_GRACE, fork)
    except BaseException:
        await _kill_all(api, made)
        raise
    return made


async def _kill_all(api: AsyncControlPlane, made: list[control.Sandbox]) -> None:
    with _aio.shield(KILL_SECONDS):
        for sandbox in made:
            await _kill_quietly(api, sandbox.sandbox_id)


async def _kill_quietly(api: AsyncControlPlane, sandbox_id: str) -> None:
    try:
        await api.kill(sandbox_id)
    except GrotteException as failure:
        logger.warning("sandbox %s of a cancelled create could not be killed: %s", sandbox_id, failure)
