"""A thousand creates that are given up at random moments, and what is left of them."""

from __future__ import annotations

import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import anyio

from grotte import ApiParams, AsyncSandbox, Sandbox, SandboxQuery, TimeoutException
from tests.support.engine import Engine

CREATES = 1000
AT_ONCE = 50
#: How long after the last create nothing of those that were given up may be left, in seconds.
LEFT_SECONDS = 5.0
#: How many answers may cross the news that nobody waits any more.
CROSSED = 5


async def test_a_thousand_cancelled_creates_leave_no_sandbox(engine: Engine) -> None:
    rng = random.Random(3)
    mark = {"mark": secrets.token_hex(8)}
    moments = [rng.uniform(0, 0.4) for _ in range(CREATES)]
    kept: list[AsyncSandbox] = []
    cancelled = 0

    async def work() -> None:
        nonlocal cancelled
        while moments:
            with anyio.move_on_after(moments.pop()) as scope:
                made = await AsyncSandbox.create(metadata=mark, allow_internet_access=False, **engine.options)
            cancelled += scope.cancelled_caught
            if not scope.cancelled_caught:
                kept.append(made)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(work)
    assert cancelled > CREATES // 10, "most were made before they were cancelled: shorten the moments"
    until = anyio.current_time() + LEFT_SECONDS
    while (left := await marked(engine, mark)) != {one.sandbox_id for one in kept} and anyio.current_time() < until:
        await anyio.sleep(0.1)
    assert left == {sandbox.sandbox_id for sandbox in kept}
    async with anyio.create_task_group() as tasks:
        for sandbox in kept:
            tasks.start_soon(sandbox.kill)


async def marked(engine: Engine, mark: dict[str, str]) -> set[str]:
    return {info.sandbox_id async for info in AsyncSandbox.list(SandboxQuery(metadata=mark), **engine.options)}


def test_a_thousand_creates_out_of_time_are_ended_by_the_engine(engine: Engine) -> None:
    """Threads cannot be cancelled: what ends a create there is its time limit, after which nobody knows its sandbox.

    An answer that is on its way at that very moment was heard as far as the engine knows: such a sandbox lives out its
    time.
    """
    rng = random.Random(4)
    mark = {"mark": secrets.token_hex(8)}

    def create(limit: float) -> Sandbox | None:
        options: ApiParams = {**engine.options, "request_timeout": limit}
        try:
            return Sandbox.create(metadata=mark, allow_internet_access=False, **options)
        except TimeoutException:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(create, [rng.uniform(0.001, 0.4) for _ in range(CREATES)]))
        kept = [sandbox for sandbox in made if sandbox is not None]
        assert len(kept) < CREATES - CREATES // 10, "most were made in time: shorten the limits"
        wanted = {sandbox.sandbox_id for sandbox in kept}
        until = time.monotonic() + LEFT_SECONDS
        query = SandboxQuery(metadata=mark)
        while (left := {info.sandbox_id for info in Sandbox.list(query, **engine.options)}) != wanted:
            if time.monotonic() >= until:
                assert wanted <= left
                assert len(left - wanted) <= CROSSED
                break
            time.sleep(0.1)
        # the handle that was made with a limit keeps it: another one has all the time it needs
        list(pool.map(lambda sandbox_id: Sandbox.kill(sandbox_id, **engine.options), left))
