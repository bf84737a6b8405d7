"""SIGTERM and Ctrl-C kill every sandbox, and the program ends as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from grotte._interrupts import Guard
from tests.fleet.children import alive, running_program
from tests.support.engine import Engine, environment

WORLDS = ["asyncio", "trio", "sync"]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("world", [*WORLDS, *(f"nested {world}" for world in WORLDS)])
def test_nothing_is_left_when_a_busy_program_is_interrupted(engine: Engine, world: str, number: signal.Signals) -> None:
    with running_program(world, engine.options) as child:
        assert child.line() == "busy"
        assert alive(child.fleet_id, engine.options)
        child.process.send_signal(number)
        status, printed = child.finish()
    assert alive(child.fleet_id, engine.options) == []
    assert status == -number
    assert printed == ""


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2])
def test_nothing_is_left_when_creations_are_under_way(engine: Engine, world: str, moment: float) -> None:
    with running_program(world, engine.options) as child:
        time.sleep(moment)
        child.process.send_signal(signal.SIGTERM)
        status, _ = child.finish()
    assert alive(child.fleet_id, engine.options) == []
    assert status == -signal.SIGTERM


@pytest.mark.parametrize("world", WORLDS)
def test_pressing_ctrl_c_again_does_not_help(engine: Engine, world: str) -> None:
    with running_program(world, engine.options) as child:
        assert child.line() == "busy"
        child.process.send_signal(signal.SIGINT)
        until = time.monotonic() + 30
        while child.process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
            child.process.send_signal(signal.SIGINT)
        child.finish()
    assert alive(child.fleet_id, engine.options) == []


FORKING = """
import os, signal, sys, time
from grotte._interrupts import Guard

guard = Guard(lambda: print("aborted", flush=True), raises=False)
guard.install()
ready, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b"1")
    for _ in range(600):  # a handler runs when a sleep ends, at the latest
        time.sleep(0.1)
    os._exit(0)
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
assert os.WTERMSIG(status) == signal.SIGTERM, status
print("the child ended", flush=True)
signal.raise_signal(signal.SIGTERM)
print("the handler came back", flush=True)
guard.remove()
print("never", flush=True)
"""


def test_a_forked_child_ends_by_sigterm_as_ever() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["the child ended", "aborted", "the handler came back"], done.stderr
    assert done.returncode == -signal.SIGTERM


def test_a_handler_of_the_user_is_left_alone() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        guard = Guard(lambda: None, raises=False)
        guard.install()
        assert signal.getsignal(signal.SIGTERM) is mine
        assert guard.remove() is False
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_is_put_off_and_not_lost() -> None:
    guard = Guard(lambda: None, raises=True)
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with guard.closing():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("went on")
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fleets_that_close_at_the_same_time_leave_ctrl_c_as_it_was() -> None:
    first, second = (Guard(lambda: None, raises=False).closing() for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        second.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_trios_handler_is_given_back(anyio_backend: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    guards = [Guard(lambda: None, raises=False) for _ in range(2)]
    for guard in guards:
        guard.install()
    assert (signal.getsignal(signal.SIGINT) is before) is (anyio_backend == "asyncio")
    for guard in guards:
        with guard.closing():
            pass
        assert guard.remove() is False
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
