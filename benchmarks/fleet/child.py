"""Creates many sandboxes with an SDK and prints how long each took until its first command was answered. Needs nothing
but the SDK: `e2b` and `grotte` of any version have what is called here. The job, JSON in the first argument, says which
module, how many, how they follow each other, and whether they come from a fleet."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

job = json.loads(sys.argv[1])
sdk = importlib.import_module(job["module"])
LIFE = 600

times: list[float] = []
failures: list[str] = []


async def measured(work: Any) -> None:
    """Note how long it took until the sandbox could be used, or why it cannot be."""
    started = time.perf_counter()
    try:
        await work
    except Exception as error:  # noqa: BLE001 - whatever an SDK raises is its result
        failures.append(f"{type(error).__name__}: {error}"[:200])
    else:
        times.append(time.perf_counter() - started)


async def plain(stack: AsyncExitStack) -> None:
    """A sandbox as every SDK makes it; killed when the stack ends."""
    sandbox = await sdk.AsyncSandbox.create("base", timeout=LIFE)
    stack.push_async_callback(sandbox.kill)
    await sandbox.commands.run("true")


class FromFleet:
    """The same through a fleet, which is ours alone."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet

    async def __call__(self, stack: AsyncExitStack) -> None:
        sandbox = await stack.enter_async_context(self._fleet.sandbox())
        await sandbox.commands.run("true")


async def sequential(make: Any) -> None:
    """One after the other: the next when the one before is gone."""
    for _ in range(job["count"]):
        async with AsyncExitStack() as stack:
            await measured(make(stack))


async def started_by_turns(make: Any, stacks: list[AsyncExitStack]) -> None:
    """Each `gap` seconds after the one before, whatever that one does; all at once for 0."""
    tasks = []
    for stack in stacks:
        tasks.append(asyncio.create_task(measured(make(stack))))
        if job["gap"]:
            await asyncio.sleep(job["gap"])
    await asyncio.gather(*tasks)


async def run(make: Any) -> float:
    """Warm the connection up, then measure; how long all took, without the clean-up of those that overlap."""
    async with AsyncExitStack() as stack:
        await make(stack)
    started = time.perf_counter()
    if job["gap"] is None:
        await sequential(make)
        return time.perf_counter() - started
    stacks = [AsyncExitStack() for _ in range(job["count"])]
    await started_by_turns(make, stacks)
    elapsed = time.perf_counter() - started
    await asyncio.gather(*(stack.aclose() for stack in stacks), return_exceptions=True)
    return elapsed


async def main() -> dict[str, object]:
    if job["fleet"]:
        async with sdk.AsyncFleet("base", size=job["count"], max_starting=job["count"]) as fleet:
            wall, cpu = await run(FromFleet(fleet)), time.process_time()
    else:
        wall, cpu = await run(plain), time.process_time()
    cpu -= at_start
    ordered = sorted(times)

    def part(share: float) -> float | None:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    return {
        "median": part(0.5),
        "p95": part(0.95),
        "p99": part(0.99),
        "wall": wall,
        "cpu_each": cpu / job["count"],
        "failed": len(failures),
        "error": failures[0] if failures else None,
    }


at_start = time.process_time()
answer: object
try:
    answer = asyncio.run(main())
except Exception as error:  # noqa: BLE001 - whatever an SDK raises is its result
    answer = f"{type(error).__name__}: {error}"[:300]
print(json.dumps(answer))
