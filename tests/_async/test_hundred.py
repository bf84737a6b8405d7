"""A hundred sandboxes from one program: each runs a command and is killed, and nothing of them is left."""

from __future__ import annotations

from grotte import AsyncSandbox
from grotte._core import _aio
from tests.support.census import left_since, take_census
from tests.support.engine import Engine

SANDBOXES = 100


async def test_a_hundred_sandboxes_at_once_leave_nothing_behind(engine: Engine) -> None:
    before = take_census(engine.data_dir)
    printed: dict[str, str] = {}

    async def work(number: int) -> None:
        sandbox = await AsyncSandbox.create("base", request_timeout=120, **engine.options)
        try:
            result = await sandbox.commands.run(f"echo {number}")
            printed[sandbox.sandbox_id] = result.stdout
        finally:
            await sandbox.kill()

    async with _aio.open_nursery() as nursery:
        for number in range(SANDBOXES):
            nursery.start_soon(work, number)

    assert sorted(printed.values(), key=int) == [f"{number}\n" for number in range(SANDBOXES)]
    assert len(printed) == SANDBOXES
    assert await AsyncSandbox.list(**engine.options).next_items() == []
    assert left_since(before, engine.data_dir) == {}
