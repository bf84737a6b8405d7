"""`fleet.map` and `fleet.run` on real sandboxes: one result for each item, whatever becomes of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from grotte import (
    AsyncFleet,
    AsyncSandbox,
    DoNotRetryException,
    FleetClosedException,
    InvalidArgumentException,
    SandboxNotRunningException,
    TemplateException,
    TimeoutException,
)
from tests.support.engine import Engine
from tests.support.moody_proxy import MoodyProxy
from tests.support.stub_service import as_json


async def echo(sandbox: AsyncSandbox, text: str) -> str:
    return (await sandbox.commands.run(f"echo {text}")).stdout.strip()


async def sleepy(sandbox: AsyncSandbox, seconds: float) -> float:
    await sandbox.commands.run(f"sleep {seconds}", timeout=60)
    return seconds


async def suicide(sandbox: AsyncSandbox, item: object) -> None:
    await sandbox.kill()
    await sandbox.commands.run("true")


async def test_results_in_the_order_of_the_items(engine: Engine) -> None:
    async with AsyncFleet(size=4, **engine.options) as fleet:
        found = [result async for result in fleet.map(sleepy, [0.4, 0.0, 0.2, 0.0, 0.0], ordered=True)]
        assert [result.index for result in found] == [0, 1, 2, 3, 4]
        assert [result.unwrap() for result in found] == [0.4, 0.0, 0.2, 0.0, 0.0]
        assert all(len(result.attempts) == 1 for result in found)


async def test_results_as_they_are_done(engine: Engine) -> None:
    async with AsyncFleet(size=2, **engine.options) as fleet:
        found = [result.item async for result in fleet.map(sleepy, [1.5, 0.0, 0.0])]
    assert found == [0.0, 0.0, 1.5]


async def test_nothing_comes_of_nothing(engine: Engine) -> None:
    nothing: list[str] = []
    async with AsyncFleet(size=2, **engine.options) as fleet:
        assert [result async for result in fleet.map(echo, nothing)] == []
        assert fleet.stats().created == 0


async def test_few_items_need_few_sandboxes(engine: Engine) -> None:
    async with AsyncFleet(size=50, **engine.options) as fleet:
        assert len([result async for result in fleet.map(echo, ["a", "b"])]) == 2
        assert fleet.stats().created == 2


async def test_a_function_that_fails_is_a_result(engine: Engine) -> None:
    async def fail(sandbox: AsyncSandbox, command: str) -> None:
        await sandbox.commands.run(command)

    async with AsyncFleet(size=2, **engine.options) as fleet:
        found = [result async for result in fleet.map(fail, ["exit 3", "true"], ordered=True)]
    assert [result.ok for result in found] == [False, True]
    assert not found[0].ok
    assert found[0].kind == "function"
    assert len(found[0].attempts) == 1
    with pytest.raises(type(found[0].error)):
        found[0].unwrap()


async def test_a_sandbox_that_ends_is_replaced(engine: Engine) -> None:
    seen: list[str] = []

    async def fragile(sandbox: AsyncSandbox, item: str) -> str:
        seen.append(sandbox.sandbox_id)
        if len(seen) < 3:
            await sandbox.kill()
        return await echo(sandbox, item)

    async with AsyncFleet(size=1, **engine.options) as fleet:
        found = [result async for result in fleet.map(fragile, ["x"])]
        assert fleet.stats().retries == 2
    assert found[0].unwrap() == "x"
    assert [attempt.sandbox_id for attempt in found[0].attempts] == seen
    assert len(set(seen)) == 3
    assert [type(attempt.error) for attempt in found[0].attempts[:2]] == [SandboxNotRunningException] * 2


async def test_retries_are_a_budget(engine: Engine) -> None:
    async with AsyncFleet(size=2, **engine.options) as fleet:
        found = [result async for result in fleet.map(suicide, [None], retries=1)]
        assert fleet.stats().lost == 2
    assert not found[0].ok
    assert found[0].kind == "infrastructure"
    assert len(found[0].attempts) == 2


async def test_a_function_may_forbid_another_try(engine: Engine) -> None:
    async def once(sandbox: AsyncSandbox, item: object) -> None:
        try:
            await suicide(sandbox, item)
        except SandboxNotRunningException as error:
            raise DoNotRetryException("it may have happened") from error

    async with AsyncFleet(size=2, **engine.options) as fleet:
        found = [result async for result in fleet.map(once, [None])]
    assert not found[0].ok
    assert found[0].kind == "function"
    assert len(found[0].attempts) == 1


async def test_a_deadline_ends_the_item_and_its_sandbox(engine: Engine) -> None:
    ids: list[str] = []

    async def endless(sandbox: AsyncSandbox, item: str) -> None:
        ids.append(sandbox.sandbox_id)
        await sandbox.commands.run("sleep 300", timeout=0)

    async with AsyncFleet(size=2, reuse=True, **engine.options) as fleet:
        found = [result async for result in fleet.map(endless, ["x"], deadline=0.5)]
        assert fleet.stats().alive == 0
    assert not found[0].ok
    assert found[0].kind == "deadline"
    assert isinstance(found[0].error, TimeoutException)
    assert len(ids) == 1


async def test_a_template_that_does_not_exist_is_said_once_for_each_item(engine: Engine) -> None:
    async with AsyncFleet("no-such-template", size=2, **engine.options) as fleet:
        found = [result async for result in fleet.map(echo, ["a", "b", "c"])]
    assert [type(result.error) for result in found if not result.ok] == [TemplateException] * 3
    assert all(len(result.attempts) == 1 for result in found)


async def test_items_may_be_endless_and_the_iteration_be_left(engine: Engine) -> None:
    async with AsyncFleet(size=3, **engine.options) as fleet:
        async with fleet.map(echo, map(str, itertools.count())) as results:
            found = []
            async for result in results:
                found.append(result.unwrap())
                if len(found) == 5:
                    break
        assert len(set(found)) == 5
        assert [result async for result in results] == []
        # the fleet goes on
        assert [result.unwrap() async for result in fleet.map(echo, ["y"])] == ["y"]


async def test_work_keeps_only_a_little_ahead(engine: Engine) -> None:
    taken = itertools.count()

    def items() -> Iterator[float]:
        for _ in taken:
            yield 0.0

    async with AsyncFleet(size=2, reuse=True, **engine.options) as fleet:
        async with fleet.map(sleepy, items()) as results:
            async for _ in results:
                break
            async with fleet.sandbox() as sandbox:
                await sandbox.commands.run("sleep 1")
    assert next(taken) < 100


async def test_items_that_fail_end_the_iteration_after_what_was_taken(engine: Engine) -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise RuntimeError("no more")

    found = []
    async with AsyncFleet(size=2, **engine.options) as fleet:
        with pytest.raises(RuntimeError, match="no more"):
            async for result in fleet.map(echo, items()):
                found.append(result.unwrap())
    assert found == ["a"]


async def test_an_iteration_ends_with_its_fleet(engine: Engine) -> None:
    async with AsyncFleet(size=2, **engine.options) as fleet:
        results = fleet.map(sleepy, [0.0, 30.0, 30.0])
        async for result in results:
            assert result.item == 0.0
            break
    with pytest.raises(FleetClosedException):
        async for _ in results:
            pass


async def test_one_function(engine: Engine) -> None:
    async def hello(sandbox: AsyncSandbox) -> str:
        return await echo(sandbox, "hello")

    async def fail(sandbox: AsyncSandbox) -> None:
        raise ValueError("mine")

    async with AsyncFleet(size=1, **engine.options) as fleet:
        assert await fleet.run(hello) == "hello"
        with pytest.raises(ValueError, match="mine"):
            await fleet.run(fail)
        with pytest.raises(TimeoutException, match="deadline"):
            await fleet.run(lambda sandbox: sleepy(sandbox, 300), deadline=0.3)
        assert fleet.stats().done == 1
        assert fleet.stats().failed == 2


async def test_refusals_wait_for_room_and_are_told_when_there_is_none(proxy: MoodyProxy) -> None:
    proxy.refusals = 1.0
    async with AsyncFleet(size=3, patience=0.5, **proxy.options) as fleet:
        found = [result async for result in fleet.map(echo, ["a", "b", "c"], retries=0)]
        assert fleet.stats().start_limit == 1
        proxy.refusals = 0
        assert [result.unwrap() async for result in fleet.map(echo, ["d"])] == ["d"]
    assert [result.ok for result in found] == [False] * 3
    assert {str(result.error)[:3] for result in found if not result.ok} == {"429"}


async def test_a_long_wish_of_the_server_does_not_outlast_patience(proxy: MoodyProxy) -> None:
    refusal = as_json({"code": 429, "message": "much later"}, 429, Retry_After="3600")
    proxy.answers["POST /sandboxes"] = refusal
    async with AsyncFleet(size=3, patience=0.5, **proxy.options) as fleet:
        found = [result async for result in fleet.map(echo, ["a", "b", "c", "d"])]
        assert [str(result.error)[:3] for result in found if not result.ok] == ["429"] * 4
        assert fleet.stats().refused <= 3


@pytest.mark.parametrize("wrong", [{"deadline": -1}, {"retries": -1}, {"retries": 1.5}])
async def test_wrong_arguments_are_refused(engine: Engine, wrong: dict[str, object]) -> None:
    async with AsyncFleet(size=1, **engine.options) as fleet:
        with pytest.raises(InvalidArgumentException):
            fleet.map(echo, ["a"], **wrong)  # type: ignore[arg-type]  # that is the point
