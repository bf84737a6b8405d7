"""One budget for many processes: never exceeded, not even when one of them is killed with -9, and shared by turns."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from grotte import AsyncFleet, Fleet, GrotteException, SharedBudget
from grotte._budget import POLL_SECONDS, Slot, SlotNote
from tests.fleet.children import running_program
from tests.fleet.program import ITEMS
from tests.support.engine import Engine
from tests.support.moody_proxy import MoodyProxy, running_moody

BUDGET = 5


@pytest.fixture
def proxy(engine: Engine) -> Iterator[MoodyProxy]:
    with running_moody(engine) as running:
        yield running


def options_of(proxy: MoodyProxy, folder: Path) -> Mapping[str, object]:
    return {**proxy.options, "budget": ["shared", BUDGET, str(folder)]}


def test_two_programs_stay_within_it_and_both_get_on(proxy: MoodyProxy, tmp_path: Path) -> None:
    options = options_of(proxy, tmp_path)
    with running_program("count asyncio", options) as first, running_program("count sync", options) as second:
        ends = [child.finish() for child in (first, second)]
    assert [status for status, _ in ends] == [0, 0]
    assert all(printed.endswith(f"done {ITEMS}\n") for _, printed in ends)
    assert proxy.most_alive <= BUDGET
    assert proxy.alive == set()


@pytest.mark.parametrize("world", ["asyncio", "sync"])
def test_what_a_killed_program_had_is_killed_before_it_is_used_again(
    proxy: MoodyProxy, tmp_path: Path, world: str
) -> None:
    options = options_of(proxy, tmp_path)
    with running_program(world, options) as victim:
        assert victim.line() == "busy"  # it has all of the budget
        with running_program("count asyncio", options) as heir:
            assert len(proxy.alive) == BUDGET
            victim.process.kill()
            status, printed = heir.finish()
    assert status == 0
    assert printed.endswith(f"done {ITEMS}\n")
    assert proxy.most_alive <= BUDGET
    assert proxy.alive == set()


def test_programs_that_are_killed_while_they_create(proxy: MoodyProxy, tmp_path: Path) -> None:
    options = options_of(proxy, tmp_path)
    rng = random.Random(5)
    with running_program("count sync", options) as heir:
        for _ in range(4):
            with running_program("trio", options) as victim:
                time.sleep(rng.uniform(0, 0.3))
                victim.process.send_signal(signal.SIGKILL)
                victim.process.wait()
        status, _ = heir.finish()
    assert status == 0
    assert proxy.most_alive <= BUDGET


# -- the slots themselves ------------------------------------------------------------------------------------------


def take_all(budget: SharedBudget) -> list[Slot]:
    line = budget.line()
    slots = []
    while (slot := line.try_take()) is not None:
        slots.append(slot)
    line.leave()
    return slots


def test_there_are_as_many_slots_as_it_has(tmp_path: Path) -> None:
    budget = SharedBudget("b", 3, directory=tmp_path / "deep" / "er")
    slots = take_all(budget)
    assert len(slots) == 3
    assert take_all(budget) == []
    slots[1].release()
    assert len(take_all(budget)) == 1
    assert take_all(SharedBudget("other", 2, directory=tmp_path))


def test_whoever_waits_is_served_before_one_who_has_just_been(tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    (slot,) = take_all(budget)
    now = [0.0]
    lines = [budget.line() for _ in range(2)]
    for line in lines:
        line._clock = lambda: now[0]
    served: list[int] = []
    while len(served) < 20:
        now[0] += POLL_SECONDS
        for number, line in enumerate(lines):
            got = line.try_take()
            if got is not None:
                served.append(number)
                slot = got
        slot.release()
    assert min(served.count(0), served.count(1)) >= 9


def test_a_slot_says_what_its_holder_left(tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    (slot,) = take_all(budget)
    assert slot.note is None
    note = SlotNote(api_url="u", mark="m", created=1.0, until=2.0)
    slot.write(SlotNote(api_url="u" * 100, mark="m", sandbox_id="i" * 20, created=1.0, until=2.0))
    slot.write(note)
    slot.abandon()
    (slot,) = take_all(budget)
    assert slot.note == note
    slot.release()
    (slot,) = take_all(budget)
    assert slot.note is None
    slot.release()


def test_a_slot_that_cannot_be_read_is_left_alone_for_long(tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    take_all(budget)[0].release()
    (tmp_path / "budget-b" / "slot-00000").write_bytes(b'{"api_url": "u", "ma')
    (slot,) = take_all(budget)
    assert slot.note is not None
    assert slot.note.until > time.time() + 300
    slot.abandon()


def hold_for_ever(ready: int) -> None:
    os.write(ready, b"1")
    time.sleep(60)


def test_a_forked_child_does_not_hold_its_parents_slots(tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    (slot,) = take_all(budget)
    read, write = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=hold_for_ever, args=(write,))
    child.start()
    try:
        os.read(read, 1)
        slot.release()
        assert len(take_all(budget)) == 1
    finally:
        child.kill()
        child.join()
        os.close(read)
        os.close(write)


async def test_a_budget_that_breaks_is_told_to_all_who_wait(engine: Engine, tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    async with AsyncFleet(size=2, budget=budget, **engine.options) as fleet:
        async with fleet.sandbox():
            pass
        shutil.rmtree(tmp_path / "budget-b")
        for _ in range(2):
            with pytest.raises(GrotteException, match="budget-b"):
                async with fleet.sandbox():
                    pass


def test_a_sync_fleet_is_told_so_too(engine: Engine, tmp_path: Path) -> None:
    budget = SharedBudget("b", 1, directory=tmp_path)
    with Fleet(size=2, budget=budget, **engine.options) as fleet:
        shutil.rmtree(tmp_path / "budget-b")
        with pytest.raises(GrotteException, match="budget-b"):
            fleet.run(lambda sandbox: sandbox.sandbox_id)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "budget-b").touch()
    with pytest.raises(GrotteException, match="budget-b"):
        SharedBudget("b", 1, directory=tmp_path).line()
    line = SharedBudget("c", 1, directory=tmp_path).line()
    (tmp_path / "budget-c").rmdir()
    with pytest.raises(GrotteException, match="budget-c"):
        line.try_take()
