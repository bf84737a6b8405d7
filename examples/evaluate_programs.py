"""Evaluate many programs, each in a sandbox of its own: ``python examples/evaluate_programs.py [COUNT]``.

The sandboxes start from a snapshot that is prepared once. A program that fails is a result; a sandbox that fails is
replaced, and the program is tried again.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from grotte import AsyncFleet, AsyncSandbox, FleetFailure


@dataclass(frozen=True)
class Task:
    """What a model wrote, and what it should print."""

    program: str
    expected: str


def tasks(count: int) -> list[Task]:
    """Sums of squares; every tenth program is wrong, and every hundredth never ends."""
    found = []
    for number in range(count):
        body = f"print(sum(n * n for n in range({number})){' + 1' if number % 10 == 9 else ''})"
        if number % 100 == 50:
            body = "while True: pass"
        found.append(Task(body, str(sum(n * n for n in range(number)))))
    return found


async def prepare(sandbox: AsyncSandbox) -> None:
    """What all have in common: here a directory; elsewhere the packages that take minutes to install."""
    await sandbox.commands.run("mkdir -p work")


async def evaluate(sandbox: AsyncSandbox, task: Task) -> bool:
    await sandbox.files.write("work/program.py", task.program)
    result = await sandbox.commands.run("python3 work/program.py", timeout=0, check=False)
    return result.stdout.strip() == task.expected


async def main(count: int) -> None:
    right, wrong, late = 0, 0, 0
    async with AsyncFleet("base", size=min(count, 50), spares=4, prepare=prepare, progress=True) as fleet:
        async for result in fleet.map(evaluate, tasks(count), deadline=10):
            if isinstance(result, FleetFailure):
                late += result.kind == "deadline"
                if result.kind != "deadline":
                    print(f"task {result.index}: {result.error}")
            elif result.value:
                right += 1
            else:
                wrong += 1
    print(f"{count} programs: {right} right, {wrong} wrong, {late} without an end")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
