"""Ctrl-C while sync calls have a thread beside them: nothing else is raised, and nobody waits for ever."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import pytest

from grotte import Sandbox
from grotte._sync import _sio
from tests.support.engine import Engine

ROUNDS = 300
#: The functions in which the main thread sleeps: on a lock, and on sockets.
SLEEPING = ("wait", "_poll_until")


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block when it next sleeps, `after` seconds from now, if it lasts as long."""
    armed = True

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal armed
        if armed and frame is not None and frame.f_code.co_name in SLEEPING:
            armed = False
            raise KeyboardInterrupt
        if armed:  # in the middle of something: the standard library's own locks would not survive that
            signal.setitimer(signal.ITIMER_REAL, 2e-5)

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_a_nursery_raises_it_alone_and_leaves_no_thread() -> None:
    rng = random.Random(1)
    threads = native_threads()
    for _ in range(ROUNDS):
        with suppress(KeyboardInterrupt), interrupted(rng.uniform(1e-6, 4e-4)), _sio.open_nursery() as nursery:
            nursery.start_soon(time.sleep, 0.0001)
    while native_threads() > threads:
        time.sleep(0.01)


def test_a_command_that_is_fed_does_not_go_on(engine: Engine) -> None:
    rng = random.Random(2)
    with Sandbox.create(**engine.options) as sandbox:
        for _ in range(25):
            with pytest.raises(KeyboardInterrupt), interrupted(rng.uniform(0.001, 0.02)):
                sandbox.commands.run("exec sleep 300", stdin=b"x" * 1_000_000, timeout=0)
        assert sandbox.commands.run("echo fine").stdout == "fine\n"
