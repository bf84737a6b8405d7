"""The engine's ends of pipes: everything arrives, in whole characters where that can be, as fast as it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte.engine.processes.output import ABANDONED_LIMIT, CHUNK, Pipe


@pytest.fixture
def anyio_backend() -> str:
    """The engine's event loop."""
    return "asyncio"


class Tap:
    """A pipe, what was written to it, and what came of it."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK)
        self.pieces: list[bytes] = []
        self.ends = 0
        self.ended = anyio.Event()
        self.published = anyio.Event()
        self.pipe = Pipe(self.read, self._publish, self._end)

    def _publish(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.published.set()

    def _end(self) -> None:
        self.ends += 1
        self.ended.set()

    async def feed(self, data: bytes) -> None:
        """Write all of it and close the end."""
        view = memoryview(data)
        while view:
            await anyio.wait_writable(self.write)
            view = view[os.write(self.write, view[:5000]) :]
        os.close(self.write)


@contextmanager
def a_tap() -> Iterator[Tap]:
    tap = Tap()
    try:
        yield tap
    finally:
        tap.pipe.close()
        os.close(tap.read)


@given(st.binary(max_size=100_000))
async def test_everything_is_published_in_bounded_pieces(data: bytes) -> None:
    with a_tap() as tap:
        tap.pipe.start()
        await tap.feed(data)
        await tap.ended.wait()
    assert b"".join(tap.pieces) == data
    assert all(0 < len(piece) <= CHUNK for piece in tap.pieces)
    assert tap.ends == 1


async def test_the_first_bytes_of_a_character_wait_for_the_others_but_not_for_long() -> None:
    with a_tap() as tap:
        tap.pipe.start()
        os.write(tap.write, b"a\xc3")
        await tap.published.wait()
        assert tap.pieces == [b"a"]
        tap.published = anyio.Event()
        await tap.published.wait()
        await tap.feed(b"\xa9")
        await tap.ended.wait()
    assert tap.pieces == [b"a", b"\xc3", b"\xa9"]


async def test_what_is_paused_leaves_its_writer_waiting() -> None:
    with a_tap() as tap:
        tap.pipe.start()
        tap.pipe.pause()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tap.feed, bytes(1 << 20))
            await anyio.wait_all_tasks_blocked()
            assert not tap.pieces
            tap.pipe.resume()
        await tap.ended.wait()
    assert sum(map(len, tap.pieces)) == 1 << 20


@pytest.mark.parametrize("paused", [False, True])
async def test_what_is_abandoned_is_read_empty(*, paused: bool) -> None:
    with a_tap() as tap:
        tap.pipe.start()
        os.write(tap.write, b"last words\xc3")
        if paused:
            tap.pipe.pause()
            tap.pipe.abandon()
            assert not tap.ends
            tap.pipe.resume()
        else:
            tap.pipe.abandon()
        assert b"".join(tap.pieces) == b"last words\xc3"
        assert tap.ends == 1
        os.close(tap.write)


async def test_who_goes_on_writing_after_being_abandoned_is_not_heard_for_ever() -> None:
    with a_tap() as tap:
        publish = tap.pieces.append

        def write_more(piece: bytes) -> None:
            publish(piece)
            os.write(tap.write, bytes(CHUNK))

        pipe = Pipe(tap.read, write_more, tap._end)
        os.write(tap.write, b"x")
        pipe.abandon()
        assert ABANDONED_LIMIT < sum(map(len, tap.pieces)) <= ABANDONED_LIMIT + CHUNK
        assert tap.ends == 1
        os.close(tap.write)


async def test_what_is_closed_says_nothing_more() -> None:
    with a_tap() as tap:
        tap.pipe.start()
        tap.pipe.close()
        await tap.feed(b"unheard")
        await anyio.sleep(0)
        tap.pipe.abandon()
        tap.pipe.resume()
    assert not tap.pieces
    assert not tap.ends
