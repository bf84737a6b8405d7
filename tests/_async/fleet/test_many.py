"""Hundreds of items through a hundred sandboxes while things go wrong: one result each, and nothing is left."""

from __future__ import annotations

from grotte import AsyncFleet, AsyncSandbox, SandboxQuery
from tests.support.engine import Engine
from tests.support.moody_proxy import running_moody

ITEMS = 500
SANDBOXES = 100


async def echo(sandbox: AsyncSandbox, number: int) -> str:
    result = await sandbox.commands.run(f"sleep 0.1; echo {number}")
    if number % 50 == 0:
        raise ValueError(number)
    return result.stdout.strip()


async def test_killed_sandboxes_and_refused_creations_cost_no_result(engine: Engine) -> None:
    found = []
    with running_moody(engine, refusals=0.05, kills=0.05) as proxy:
        async with AsyncFleet("base", size=SANDBOXES, spares=5, **proxy.options) as fleet:
            mark = {"grotte.fleet": fleet.fleet_id}
            async for result in fleet.map(echo, range(ITEMS), retries=10):
                found.append(result)
            stats = fleet.stats()
        left = await AsyncSandbox.list(SandboxQuery(metadata=mark), **engine.options).next_items()

    assert sorted(result.index for result in found) == list(range(ITEMS))
    assert {result.index for result in found if not result.ok} == set(range(0, ITEMS, 50))
    for result in found:
        if result.ok:
            assert result.value == str(result.item)
        else:
            assert isinstance(result.error, ValueError)
            assert result.kind == "function"
    assert left == []
    assert proxy.most_alive <= SANDBOXES
    assert len(proxy.killed) > 5
    assert proxy.refused > 5
    assert stats.done + stats.failed == ITEMS
    assert stats.refused == proxy.refused
    assert stats.retries > 0
