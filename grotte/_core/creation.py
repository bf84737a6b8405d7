"""Sandboxes that are made are held, or killed again: nothing that a call has made outlives its failure."""

from __future__ import annotations

import logging

from grotte._core import _aio
from grotte._core.api import AsyncControlPlane
from grotte._proto import control
from grotte._proto import sandboxes as wire
from grotte._proto.transport_errors import TransportError
from grotte.errors import GrotteException, SandboxException

logger = logging.getLogger("grotte")

#: How much longer a cancelled call waits for the answer that names the sandbox to kill, in seconds.
CREATE_GRACE = 10.0
#: How long it may take to kill what a call has made, in seconds.
KILL_SECONDS = 10.0
#: How long a call that got no answer waits for its request to be given up: as long as for the answer, but within these.
GIVE_UP_SECONDS = (0.5, 2.0)


async def create_or_kill(
    api: AsyncControlPlane, wanted: control.NewSandbox, idempotency_key: str | None = None
) -> control.Sandbox:
    """Create a sandbox; if there is no answer, or the caller is cancelled meanwhile, see to it that it is killed.

    A key of the caller's own is a means to ask again, and to get what the first request made: that one is left.
    """
    made: list[control.Sandbox] = []
    key = idempotency_key or wire.new_key()

    async def create() -> None:
        made.append(await api.create(wanted, key))

    try:
        await _aio.see_through(CREATE_GRACE, create)
    except BaseException as failure:
        await _undo(api, failure, made, None if idempotency_key else key)
        raise
    return made[0]


async def fork_or_kill(api: AsyncControlPlane, sandbox_id: str, wanted: control.ForkRequest) -> list[control.Sandbox]:
    """Make copies; if one fails, there is no answer, or the caller is cancelled meanwhile, kill all of them."""
    made: list[control.Sandbox] = []
    key = wire.new_key()

    async def fork() -> None:
        forks = await api.fork(sandbox_id, wanted, key)
        made.extend(one.sandbox for one in forks if one.sandbox is not None)
        errors = [one.error for one in forks if one.error is not None]
        if errors or len(made) != wanted.count:
            said = errors[0].message if errors else ""
            text = f"{len(made)} of {wanted.count} copies were made, and killed again: {said or 'no reason was given'}"
            raise SandboxException(text, sandbox_id=sandbox_id, server_message=said)

    try:
        await _aio.see_through(CREATE_GRACE, fork)
    except BaseException as failure:
        await _undo(api, failure, made, key)
        raise
    return made


async def _undo(api: AsyncControlPlane, failure: BaseException, made: list[control.Sandbox], key: str | None) -> None:
    """Kill what a call has made that failed; without an answer, what the server may have made for its key."""
    with _aio.shield(KILL_SECONDS):
        for sandbox in made:
            await _kill_quietly(api, sandbox.sandbox_id)
        if key is not None and not made and _is_open(failure):
            await _give_up_quietly(api, key)


def _is_open(failure: BaseException) -> bool:
    """Whether the server may have made something of which nobody has heard: no answer came, and it had the request."""
    if not isinstance(failure, GrotteException):
        return True
    cause = failure.__cause__
    return isinstance(cause, TransportError) and cause.processed


async def _give_up_quietly(api: AsyncControlPlane, key: str) -> None:
    """The caller did not ask for this call, and its answer matters little: once sent it is acted upon."""
    shortest, longest = GIVE_UP_SECONDS
    limit = min(longest, max(shortest, api.config.request_timeout or longest))
    try:
        await AsyncControlPlane(api.config.override(request_timeout=limit)).give_up(key)
    except GrotteException as failure:
        logger.warning("a sandbox may be left by a request without an answer, which could not be given up: %s", failure)


async def _kill_quietly(api: AsyncControlPlane, sandbox_id: str) -> None:
    try:
        await api.kill(sandbox_id)
    except GrotteException as failure:
        logger.warning("sandbox %s of a create that failed could not be killed: %s", sandbox_id, failure)
