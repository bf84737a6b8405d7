"""What type checkers see of fleets; checked by `tests/test_typing.py`, never run."""

from __future__ import annotations

from typing import assert_type

from grotte import (
    AsyncFleet,
    AsyncFleetMap,
    AsyncSandbox,
    FleetAttempt,
    FleetFailure,
    FleetStats,
    FleetSuccess,
    SandboxesLeftException,
    SharedBudget,
)


async def measure(sandbox: AsyncSandbox, item: str) -> int:
    return len((await sandbox.commands.run(item)).stdout)


async def version(sandbox: AsyncSandbox) -> str:
    return (await sandbox.commands.run("uname")).stdout


async def fleets() -> None:
    budget = SharedBudget("name", 5, directory="/tmp")
    async with AsyncFleet("base", size=3, prepare=version, reuse=version, budget=budget, api_key="k") as fleet:
        assert_type(fleet, AsyncFleet)
        results = fleet.map(measure, ["a", "b"], ordered=True, deadline=5, retries=1)
        assert_type(results, AsyncFleetMap[str, int])
        async for result in results:
            assert_type(result, FleetSuccess[str, int] | FleetFailure[str])
            assert_type(result.attempts, tuple[FleetAttempt, ...])
            if result.ok:
                assert_type(result.value, int)
            else:
                assert_type(result.error, Exception)
            assert_type(result.unwrap(), int)
        async with fleet.sandbox(max_wait=3) as sandbox:
            assert_type(sandbox, AsyncSandbox)
        assert_type(await fleet.run(version), str)
        assert_type(fleet.stats(), FleetStats)
        fleet.map(version, ["a"])  # type: ignore[arg-type]
        AsyncFleet("base")  # type: ignore[call-arg]


def errors(error: SandboxesLeftException) -> None:
    assert_type(error.sandbox_ids, tuple[str, ...])
