"""The block of a fleet: what it gives, what it keeps ready, and that nothing outlives it."""

from __future__ import annotations

import logging

import pytest

from grotte import (
    ApiParams,
    AsyncFleet,
    AsyncGrotte,
    AsyncSandbox,
    CommandExitException,
    FleetClosedException,
    GrotteException,
    InvalidArgumentException,
    SandboxesLeftException,
    SandboxQuery,
    SharedBudget,
    TimeoutException,
)
from grotte._core import _aio
from tests.support.engine import Engine
from tests.support.moody_proxy import MoodyProxy
from tests.support.stub_service import as_json


async def alive(fleet: AsyncFleet, options: ApiParams) -> set[str]:
    """The ids of a fleet's sandboxes, as the server has them."""
    query = SandboxQuery(metadata={"grotte.fleet": fleet.fleet_id})
    return {info.sandbox_id async for info in AsyncSandbox.list(query, **options)}


async def test_a_block_has_a_sandbox(engine: Engine) -> None:
    async with AsyncFleet("base", size=2, envs={"WHO": "me"}, metadata={"a": "b"}, **engine.options) as fleet:
        async with fleet.sandbox() as sandbox:
            assert (await sandbox.commands.run("echo $WHO")).stdout == "me\n"
            assert (await sandbox.get_info()).metadata["a"] == "b"
            assert await alive(fleet, engine.options) == {sandbox.sandbox_id}
            stats = fleet.stats()
            assert (stats.alive, stats.in_use, stats.ready) == (1, 1, 0)
        assert await alive(fleet, engine.options) == set()
        assert fleet.stats().alive == 0


async def test_the_sandboxes_of_a_client(engine: Engine) -> None:
    async with AsyncGrotte(**engine.options) as client:
        async with AsyncFleet(size=2, sandboxes=client.Sandbox, spares=1) as fleet:
            async with fleet.sandbox() as sandbox:
                await sandbox.commands.run("true")
                assert isinstance(sandbox, client.Sandbox)
        assert client.counters.streams_opened > 0
    assert await alive(fleet, engine.options) == set()


async def test_waiting_is_in_line(engine: Engine) -> None:
    order: list[int] = []

    async with AsyncFleet(size=1, reuse=True, **engine.options) as fleet:

        async def use(number: int) -> None:
            async with fleet.sandbox():
                order.append(number)

        async with _aio.open_nursery() as nursery:
            async with fleet.sandbox():
                for number in range(5):
                    nursery.start_soon(use, number)
                    while fleet.stats().waiting <= number:
                        await _aio.sleep(0.01)
    assert order == [0, 1, 2, 3, 4]


async def test_waiting_may_have_an_end(engine: Engine) -> None:
    async with AsyncFleet(size=1, **engine.options) as fleet:
        async with fleet.sandbox(max_wait=60):
            with pytest.raises(TimeoutException, match="in time"):
                async with fleet.sandbox(max_wait=0.2):
                    raise AssertionError("there is no room")
            assert fleet.stats().waiting == 0
        async with fleet.sandbox(max_wait=60) as sandbox:
            assert await sandbox.is_running()


async def test_an_exception_leaves_nothing_and_is_raised_as_it_is(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with AsyncFleet(size=2, spares=1, **engine.options) as fleet:
            async with fleet.sandbox():
                raise ZeroDivisionError
    assert await alive(fleet, engine.options) == set()


async def test_what_others_hold_ends_with_the_block(engine: Engine) -> None:
    ends: list[Exception] = []
    holding = _aio.Event()

    async def hold(fleet: AsyncFleet) -> None:
        try:
            async with fleet.sandbox() as sandbox:
                holding.set()
                await sandbox.commands.run("sleep 300", timeout=0)
        except GrotteException as error:
            ends.append(error)

    async def wait(fleet: AsyncFleet) -> None:
        try:
            async with fleet.sandbox():
                raise AssertionError("there is no room")
        except FleetClosedException as error:
            ends.append(error)

    async with _aio.open_nursery() as nursery:
        async with AsyncFleet(size=1, **engine.options) as fleet:
            nursery.start_soon(hold, fleet)
            await holding.wait()
            nursery.start_soon(wait, fleet)
            while fleet.stats().waiting < 1:
                await _aio.sleep(0.01)
    assert len(ends) == 2
    assert await alive(fleet, engine.options) == set()


async def test_spares_stand_ready_and_are_replaced(engine: Engine) -> None:
    async with AsyncFleet(size=5, spares=2, **engine.options) as fleet:
        while fleet.stats().ready < 2:
            await _aio.sleep(0.02)
        ready = await alive(fleet, engine.options)
        async with fleet.sandbox() as sandbox:
            assert sandbox.sandbox_id in ready
            while fleet.stats().ready < 2:
                await _aio.sleep(0.02)
        assert fleet.stats().created == 3
    assert await alive(fleet, engine.options) == set()


async def test_spares_that_ended_are_not_given_out(engine: Engine) -> None:
    async with AsyncFleet(size=2, reuse=True, **engine.options) as fleet:
        async with fleet.sandbox() as sandbox:
            first = sandbox.sandbox_id
        await sandbox.kill()
        await _aio.sleep(1.1)  # what was in use a moment ago is not asked
        async with fleet.sandbox() as sandbox:
            assert sandbox.sandbox_id != first
            assert await sandbox.is_running()
        assert fleet.stats().lost == 1


async def test_a_sandbox_may_be_used_again(engine: Engine) -> None:
    resets: list[str] = []

    async def reset(sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("rm -f mark")
        resets.append(sandbox.sandbox_id)

    async with AsyncFleet(size=1, reuse=reset, **engine.options) as fleet:
        async with fleet.sandbox() as first:
            await first.commands.run("touch mark")
        async with fleet.sandbox() as second:
            assert second.sandbox_id == first.sandbox_id
            assert not await second.files.exists("mark")
        with pytest.raises(ValueError):
            async with fleet.sandbox() as third:
                raise ValueError
        async with fleet.sandbox() as fourth:
            assert fourth.sandbox_id != third.sandbox_id
        assert fleet.stats().created == 2
    assert resets == [first.sandbox_id, first.sandbox_id, fourth.sandbox_id]


async def test_a_sandbox_that_cannot_be_reset_is_replaced(engine: Engine) -> None:
    async def reset(sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("false")

    async with AsyncFleet(size=1, reuse=reset, **engine.options) as fleet:
        for _ in range(2):
            async with fleet.sandbox():
                pass
        assert fleet.stats().created == 2


async def test_what_was_prepared_once_is_in_all(engine: Engine) -> None:
    prepared: list[str] = []

    async def prepare(sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("echo installed > tool")
        prepared.append(sandbox.sandbox_id)

    async def look(sandbox: AsyncSandbox, item: int) -> str:
        text = await sandbox.files.read("tool")
        await sandbox.files.write("tool", "spoiled")
        return text

    before = [info.snapshot_id async for info in AsyncSandbox.list_snapshots(**engine.options)]
    async with AsyncFleet(size=3, prepare=prepare, **engine.options) as fleet:
        found = [result.unwrap() async for result in fleet.map(look, range(6))]
        assert len([info async for info in AsyncSandbox.list_snapshots(**engine.options)]) == len(before) + 1
    assert found == ["installed\n"] * 6
    assert len(prepared) == 1
    assert [info.snapshot_id async for info in AsyncSandbox.list_snapshots(**engine.options)] == before


async def test_without_snapshots_each_is_prepared(proxy: MoodyProxy) -> None:
    prepared: list[str] = []

    async def prepare(sandbox: AsyncSandbox) -> None:
        prepared.append(sandbox.sandbox_id)
        proxy.answers[f"POST /sandboxes/{sandbox.sandbox_id}/snapshots"] = as_json({"code": 501, "message": "no"}, 501)

    async with AsyncFleet(size=1, prepare=prepare, **proxy.options) as fleet:
        for _ in range(2):
            async with fleet.sandbox() as sandbox:
                assert sandbox.sandbox_id == prepared[-1]
    assert len(prepared) == 3


async def test_a_preparation_that_fails_ends_the_fleet(engine: Engine) -> None:
    async def prepare(sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("exit 4")

    fleet = AsyncFleet(size=2, prepare=prepare, **engine.options)
    with pytest.raises(CommandExitException):
        async with fleet:
            raise AssertionError("it is not ready")
    assert await alive(fleet, engine.options) == set()


async def test_sandboxes_live_as_long_as_they_are_wanted(engine: Engine) -> None:
    async with AsyncFleet(size=1, timeout=3, **engine.options) as fleet:
        async with fleet.sandbox() as sandbox:
            await sandbox.commands.run("sleep 5")
            assert await sandbox.is_running()


async def test_what_cannot_be_killed_is_named(proxy: MoodyProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "grotte.fleet")
    with pytest.raises(SandboxesLeftException) as caught:
        async with AsyncFleet(size=2, **proxy.options) as fleet:
            async with fleet.sandbox() as sandbox:
                refusal = as_json({"code": 500, "message": "cannot"}, 500)
                proxy.answers[f"DELETE /sandboxes/{sandbox.sandbox_id}"] = refusal
    assert caught.value.sandbox_ids == (sandbox.sandbox_id,)
    assert sandbox.sandbox_id in str(caught.value)
    assert sandbox.sandbox_id in caplog.text
    proxy.kill(sandbox.sandbox_id)


async def test_what_happened_in_the_block_counts_more(proxy: MoodyProxy, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError):
        async with AsyncFleet(size=2, **proxy.options) as fleet:
            async with fleet.sandbox() as sandbox:
                refusal = as_json({"code": 500, "message": "cannot"}, 500)
                proxy.answers[f"DELETE /sandboxes/{sandbox.sandbox_id}"] = refusal
                raise ZeroDivisionError
    assert sandbox.sandbox_id in caplog.text
    proxy.kill(sandbox.sandbox_id)


async def test_an_answer_that_was_lost_leaves_no_sandbox(proxy: MoodyProxy) -> None:
    async with AsyncFleet(size=1, **proxy.options) as fleet:
        proxy.lost_answers = 2
        async with fleet.sandbox() as sandbox:
            assert await sandbox.is_running()
            assert await alive(fleet, proxy.options) == {sandbox.sandbox_id}
        assert fleet.stats().broken == 2


async def test_a_fleet_is_for_one_block(engine: Engine) -> None:
    fleet = AsyncFleet(size=1, **engine.options)
    with pytest.raises(FleetClosedException, match="block"):
        fleet.stats()
    async with fleet:
        pass
    with pytest.raises(FleetClosedException):
        async with fleet.sandbox():
            pass
    with pytest.raises(FleetClosedException):
        async with fleet:
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": "many"},
        {"size": 2, "max_starting": 0},
        {"size": 2, "spares": 3},
        {"size": 2, "creates_per_second": 0},
        {"size": 2, "creates_per_second": float("nan")},
        {"size": 2, "patience": -1},
        {"size": 2, "timeout": 0},
        {"size": 2, "metadata": {"grotte.fleet": "mine"}},
        {"size": 2, "budget": "name"},
    ],
)
def test_wrong_arguments_are_refused_before_anything_happens(engine: Engine, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentException):
        AsyncFleet(**{**engine.options, **wrong})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 200])
def test_names_of_budgets_are_names(name: str) -> None:
    with pytest.raises(InvalidArgumentException):
        SharedBudget(name, 3)
