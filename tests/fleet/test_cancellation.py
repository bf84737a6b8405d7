"""A fleet may be cancelled at any await; its sandboxes are gone when the cancellation comes out of its block."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from grotte import AsyncFleet, AsyncSandbox
from grotte._core.transport import default_transport
from tests.fleet.children import alive
from tests.support.engine import Engine

ROUNDS = 12


async def work(sandbox: AsyncSandbox, item: int) -> None:
    await sandbox.commands.run("sleep 0.05")


async def use(fleet: AsyncFleet) -> None:
    async for result in fleet.map(work, range(1000)):
        result.unwrap()


async def test_the_block_at_random_moments(engine: Engine) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        fleet = AsyncFleet(size=6, spares=2, **engine.options)
        with anyio.move_on_after(rng.uniform(0, 0.6)) as scope:
            async with fleet:
                await use(fleet)
        assert scope.cancelled_caught
        assert alive(fleet.fleet_id, engine.options) == []
    assert default_transport().counters.streams_open == 0


async def test_those_who_wait_and_use_at_random_moments(engine: Engine) -> None:
    rng = random.Random(2)
    async with AsyncFleet(size=4, reuse=True, **engine.options) as fleet:

        async def come_and_go() -> None:
            with anyio.move_on_after(rng.uniform(0, 0.4)):
                async with fleet.sandbox() as sandbox:
                    await sandbox.commands.run("sleep 0.05")

        async def iterate() -> None:
            with anyio.move_on_after(rng.uniform(0, 0.4)):
                async with fleet.map(work, range(100)) as results:
                    async for result in results:
                        result.unwrap()

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for _ in range(15):
                    tasks.start_soon(come_and_go)
                    tasks.start_soon(iterate)
        # whoever was cancelled left nothing behind: all of the fleet is free
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(fleet.run, lambda sandbox, item=number: work(sandbox, item))
        stats = fleet.stats()
        assert (stats.waiting, stats.in_use) == (0, 0)
        assert stats.alive <= 4
    assert alive(fleet.fleet_id, engine.options) == []


async def test_preparing_may_be_cancelled(engine: Engine) -> None:
    async def prepare(sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("sleep 300", timeout=0)

    fleet = AsyncFleet(size=2, prepare=prepare, **engine.options)
    with anyio.move_on_after(0.5) as scope:
        async with fleet:
            raise AssertionError("it is not ready")
    assert scope.cancelled_caught
    assert alive(fleet.fleet_id, engine.options) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelling_as_asyncio_does(engine: Engine, anyio_backend: str) -> None:
    fleet = AsyncFleet(size=3, **engine.options)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            async with fleet:
                await use(fleet)
    assert alive(fleet.fleet_id, engine.options) == []
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
