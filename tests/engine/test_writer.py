"""How the bytes of an upload get into a file: one piece is written while the next one comes in, and no more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import anyio
import pytest
from anyio import to_thread

from grotte.engine.data.uploads import PIECE, Writer
from grotte.engine.faults import Fault

#: What a pipe holds.
IN_PIPE = 65_536
ONE, TWO, THREE = (bytes([number]) * PIECE for number in (1, 2, 3))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A file that takes no more than is read from it: its reading end, and its writing end, which the test closes."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def drained(reading: int) -> bytes:
    return b"".join(iter(lambda: os.read(reading, PIECE), b""))


async def test_a_piece_is_written_while_the_next_one_comes_in(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    counted: list[int] = []
    content: list[bytes] = []
    async with anyio.create_task_group() as tasks, anyio.create_task_group() as behind:
        writer = Writer(writing, counted.append, behind)
        await writer.add(ONE)
        await writer.add(TWO[:-1])
        assert counted == [PIECE], "nothing of it was read, so it cannot have been written to its end"
        waiting = anyio.Event()

        async def add_third() -> None:
            await writer.add(TWO[-1:] + THREE)
            waiting.set()
            await writer.end()

        tasks.start_soon(add_third)
        await anyio.wait_all_tasks_blocked()
        assert not waiting.is_set(), "more than one piece lies in memory besides the one that is written"
        content.append(await to_thread.run_sync(drained, reading))
    assert content == [ONE + TWO + THREE]
    assert sum(counted) == 3 * PIECE


async def test_what_could_not_be_written_behind_is_said_later() -> None:
    for more in (ONE, b"little", b""):
        async with anyio.create_task_group() as behind:
            writer = Writer(os.open("/dev/full", os.O_WRONLY), lambda size: None, behind)
            await writer.add(ONE)
            with pytest.raises(Fault, match="not enough disk space"):
                await writer.add(more)
                await writer.end()
        writer.close()


async def test_whoever_is_cancelled_waits_for_what_is_being_written(pipe: tuple[int, int]) -> None:
    """The file is closed next, and its number may be another file's by then."""
    reading, writing = pipe
    read: list[int] = []

    def take_all_but_the_last() -> None:
        while sum(read) < PIECE - IN_PIPE:
            read.append(len(os.read(reading, IN_PIPE)))

    reader = threading.Thread(target=take_all_but_the_last)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as behind:
            await Writer(writing, lambda size: None, behind).add(ONE)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            reader.start()
    assert sum(read) >= PIECE - IN_PIPE - IN_PIPE
    reader.join()
    os.close(writing)
