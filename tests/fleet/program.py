"""A program with a fleet, to be interrupted: ``program.py WORLD OPTIONS``.

Prints the fleet's id, then "busy" when sandboxes are in use, and "left" if it ever gets behind its block; a world that
counts does small things and prints how many of them it did.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

import trio

from grotte import AsyncFleet, AsyncSandbox, Fleet, Sandbox, SharedBudget
from grotte._core.fleet import recipe
from grotte._sync.fleet import recipe as sync_recipe

SIZE = 8
#: What was never asked for is not waited for as long as elsewhere: the engine here needs no minute for a sandbox.
recipe.CREATE_SECONDS = sync_recipe.CREATE_SECONDS = 3.0
ITEMS = 40
in_use = itertools.count()


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON can carry them: a budget is its name, size and directory."""
    found = {"size": SIZE, **options}
    if "budget" in found:
        name, size, directory = found["budget"]
        found["budget"] = SharedBudget(name, size, directory=directory)
    return found


def say(text: str) -> None:
    print(text, flush=True)


def note_one_more() -> None:
    """One more sandbox is in use: half of them are enough. Which items have got one, nobody knows."""
    if next(in_use) == SIZE // 2:
        say("busy")


async def stay(sandbox: AsyncSandbox, _: int) -> None:
    await sandbox.commands.run("echo here")
    note_one_more()
    await sandbox.commands.run("sleep 300", timeout=0)


async def with_async(options: dict[str, Any]) -> None:
    async with AsyncFleet(**arguments(options)) as fleet:
        say(fleet.fleet_id)
        async for _ in fleet.map(stay, range(1000)):
            pass
    say("left")


async def with_nested(options: dict[str, Any]) -> None:
    async with AsyncFleet(**arguments(options)):
        await with_async(options)
    say("left")


def stay_sync(sandbox: Sandbox, _: int) -> None:
    sandbox.commands.run("echo here")
    note_one_more()
    sandbox.commands.run("sleep 300", timeout=0)


def with_sync(options: dict[str, Any]) -> None:
    with Fleet(**arguments(options)) as fleet:
        say(fleet.fleet_id)
        for _ in fleet.map(stay_sync, range(1000)):
            pass
    say("left")


def with_nested_sync(options: dict[str, Any]) -> None:
    with Fleet(**arguments(options)):
        with_sync(options)
    say("left")


async def echo(sandbox: AsyncSandbox, item: int) -> str:
    return (await sandbox.commands.run(f"echo {item}")).stdout


async def count(options: dict[str, Any]) -> None:
    done = 0
    async with AsyncFleet(**arguments(options)) as fleet:
        say(fleet.fleet_id)
        async for result in fleet.map(echo, range(ITEMS)):
            result.unwrap()
            done += 1
            say(f"{result.index}")
    say(f"done {done}")


def count_sync(options: dict[str, Any]) -> None:
    done = 0
    with Fleet(**arguments(options)) as fleet:
        say(fleet.fleet_id)
        for result in fleet.map(lambda sandbox, item: sandbox.commands.run(f"echo {item}").stdout, range(ITEMS)):
            result.unwrap()
            done += 1
            say(f"{result.index}")
    say(f"done {done}")


def main() -> None:
    world, options = sys.argv[1], json.loads(sys.argv[2])
    programs = {
        "asyncio": lambda: asyncio.run(with_async(options)),
        "trio": lambda: trio.run(with_async, options),
        "sync": lambda: with_sync(options),
        "count asyncio": lambda: asyncio.run(count(options)),
        "count sync": lambda: count_sync(options),
        "nested asyncio": lambda: asyncio.run(with_nested(options)),
        "nested trio": lambda: trio.run(with_nested, options),
        "nested sync": lambda: with_nested_sync(options),
    }
    programs[world]()


if __name__ == "__main__":
    main()
