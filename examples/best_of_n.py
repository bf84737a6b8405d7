"""Go on from one state in many ways, and keep the best: ``python examples/best_of_n.py [N]``.

One sandbox is worked in for a while; then it is forked, and each copy tries something else from there. A fork is a
sandbox like any other, so its block ends it.
"""

from __future__ import annotations

import asyncio
import sys

import anyio

from grotte import AsyncFleet, AsyncSandbox

#: What a search for a square root begins with; a model would write this.
SETUP = """
target = 1_234_321
guess = 1.0
for _ in range(3):
    guess = (guess + target / guess) / 2
open("guess", "w").write(str(guess))
"""


async def improve(sandbox: AsyncSandbox, number: int, found: dict[int, float]) -> None:
    """One continuation: so many more steps from the common state; its score is how far it is off."""
    async with sandbox:
        steps = f"for _ in range({number}): guess = (guess + 1_234_321 / guess) / 2"
        program = f"guess = float(open('guess').read())\n{steps}\nprint(abs(guess - 1111))"
        await sandbox.files.write("improve.py", program)
        found[number] = float((await sandbox.commands.run("python3 improve.py")).stdout)


async def main(count: int) -> None:
    found: dict[int, float] = {}
    async with AsyncFleet("base", size=1) as fleet, fleet.sandbox() as sandbox:
        await sandbox.files.write("setup.py", SETUP)
        await sandbox.commands.run("python3 setup.py")
        forks = await sandbox.fork(count)
        async with anyio.create_task_group() as tasks:
            for number, fork in enumerate(forks):
                tasks.start_soon(improve, fork, number, found)
    best = min(found, key=lambda number: found[number])
    print(f"best of {count}: number {best}, off by {found[best]:.3g}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
