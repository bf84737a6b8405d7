"""Creations whose answer does not come in time leave no sandbox, whichever of the two the engine hears of first."""

from __future__ import annotations

import secrets

import pytest

from grotte import ApiParams, AsyncSandbox, SandboxQuery, SandboxState, TimeoutException
from tests.support.engine import Engine
from tests.support.holding_proxy import HoldingProxy, running_holding

#: How long the client waits: longer than the engine takes, in seconds.
PATIENCE = 2.0


def impatient(proxy: HoldingProxy) -> ApiParams:
    return {**proxy.options, "request_timeout": PATIENCE}


async def ids_of(mark: dict[str, str], engine: Engine) -> list[str]:
    """The sandboxes of a test, in whatever state."""
    query = SandboxQuery(metadata=mark, state=list(SandboxState))
    return [info.sandbox_id async for info in AsyncSandbox.list(query, **engine.options)]


@pytest.mark.parametrize("late", [False, True])
async def test_a_creation_without_an_answer(engine: Engine, late: bool) -> None:
    mark = {"mark": secrets.token_hex(8)}
    with running_holding(engine, late=late) as proxy:
        proxy.holding = True
        with pytest.raises(TimeoutException):
            await AsyncSandbox.create(metadata=mark, **impatient(proxy))
        proxy.settle()
        assert proxy.given_up == proxy.keys
        assert (proxy.statuses == [201]) is not late
    assert await ids_of(mark, engine) == []


@pytest.mark.parametrize("late", [False, True])
async def test_a_fork_without_an_answer(engine: Engine, late: bool) -> None:
    mark = {"mark": secrets.token_hex(8)}
    with running_holding(engine, late=late) as proxy:
        async with await AsyncSandbox.create(metadata=mark, **proxy.options) as sandbox:
            proxy.holding = True
            with pytest.raises(TimeoutException):
                await sandbox.fork(2, request_timeout=PATIENCE)
            proxy.settle()
            assert proxy.given_up == proxy.keys
            proxy.holding = False
            assert await ids_of(mark, engine) == [sandbox.sandbox_id]
    assert await ids_of(mark, engine) == []


async def test_a_key_of_the_callers_own_is_left_for_another_try(engine: Engine) -> None:
    mark, key = {"mark": secrets.token_hex(8)}, secrets.token_hex(8)
    with running_holding(engine, late=False) as proxy:
        proxy.holding = True
        with pytest.raises(TimeoutException):
            await AsyncSandbox.create(metadata=mark, idempotency_key=key, **impatient(proxy))
        proxy.settle()
        assert (proxy.keys, proxy.given_up) == ([key], [])
    async with await AsyncSandbox.create(metadata=mark, idempotency_key=key, **engine.options) as sandbox:
        assert await ids_of(mark, engine) == [sandbox.sandbox_id]
