"""A thousand creates that are given up at random moments, and what is left of them."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio

from grotte import ApiParams, AsyncSandbox, Sandbox, SandboxQuery, TimeoutException
from tests.support.engine import Engine

CREATES = 1000
FORKS = 100
AT_ONCE = 50
#: How long after the last create nothing of those that were given up may be left, in seconds.
LEFT_SECONDS = 60.0


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


def test_a_thousand_creates_out_of_time_leave_no_sandbox(engine: Engine) -> None:
    """Threads cannot be cancelled: what ends a create there is its time limit, after which nobody knows its sandbox."""
    mark = {"mark": secrets.token_hex(8)}

    def create(limit: float) -> list[Sandbox]:
        options: ApiParams = {**engine.options, "request_timeout": limit}
        return [Sandbox.create(metadata=mark, allow_internet_access=False, **options)]

    give_up_at_random(engine, create, CREATES, SandboxQuery(metadata=mark))


def test_forks_out_of_time_leave_no_sandbox(engine: Engine) -> None:
    mark = {"mark": secrets.token_hex(8)}
    with Sandbox.create(metadata=mark, allow_internet_access=False, **engine.options) as origin:

        def fork(limit: float) -> list[Sandbox]:
            return origin.fork(2, request_timeout=limit)

        give_up_at_random(engine, fork, FORKS, SandboxQuery(metadata=mark), origin.sandbox_id)


def give_up_at_random(
    engine: Engine, make: Callable[[float], list[Sandbox]], times: int, query: SandboxQuery, *known: str
) -> None:
    """Make sandboxes with random time limits; what lives afterwards is what was answered, and no more."""
    rng = random.Random(4)

    def attempt(limit: float) -> list[Sandbox]:
        try:
            return make(limit)
        except TimeoutException:
            return []

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(attempt, [rng.uniform(0.001, rng.choice((0.04, 0.4))) for _ in range(times)]))
        assert sum(not answer for answer in answers) > times // 20, "most were made in time: shorten the limits"
        wanted = {sandbox.sandbox_id for answer in answers for sandbox in answer}.union(known)
        until = time.monotonic() + LEFT_SECONDS
        while (left := listed(engine, query)) != wanted and time.monotonic() < until:
            time.sleep(0.1)
        # a handle that was made with a limit keeps it: another one has all the time it needs
        list(pool.map(lambda sandbox_id: Sandbox.kill(sandbox_id, **engine.options), left.difference(known)))
    assert left == wanted


def listed(engine: Engine, query: SandboxQuery) -> set[str]:
    return {info.sandbox_id for info in Sandbox.list(query, **engine.options)}
