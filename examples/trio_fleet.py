"""A trio program: a nursery of agents that share a fleet, with warm spares: ``python examples/trio_fleet.py [AGENTS]``.

Plain nurseries and a fleet go together: a task that wants a sandbox waits in line for it.
"""

from __future__ import annotations

import sys

import trio

from grotte import AsyncFleet


async def agent(fleet: AsyncFleet, number: int, answers: dict[int, str]) -> None:
    """A conversation in two turns, each in a sandbox; between them the agent thinks, and holds none."""
    async with fleet.sandbox() as sandbox:
        result = await sandbox.commands.run(f"python3 -c 'print({number} * 6)'")
    thought = int(result.stdout)
    await trio.sleep(0.05)
    async with fleet.sandbox() as sandbox:
        result = await sandbox.commands.run(f"python3 -c 'print({thought} * 7)'")
    answers[number] = result.stdout.strip()


async def main(agents: int) -> None:
    answers: dict[int, str] = {}
    async with AsyncFleet("base", size=8, spares=2, creates_per_second=50) as fleet:
        with trio.move_on_after(120) as scope:
            async with trio.open_nursery() as nursery:
                for number in range(agents):
                    nursery.start_soon(agent, fleet, number, answers)
        stats = fleet.stats()
    print(f"{len(answers)} of {agents} agents answered{', the others were too slow' if scope.cancelled_caught else ''}")
    print(f"{stats.created} sandboxes, each created in {(stats.create_p50 or 0) * 1000:.0f} ms (median)")
    assert all(answer == str(number * 42) for number, answer in answers.items())


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 40)
