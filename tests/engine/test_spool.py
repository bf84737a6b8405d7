"""The spool of a process's output: what is kept, for whom, how much, and when the process is made to wait."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte.engine.data.offsets import format_offsets, parse_offsets
from grotte.engine.faults import RpcFault
from grotte.engine.processes.spool import LAG, PIECE_COST, Allowance, Reader, Spool

PIECES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=50)), max_size=30)


def a_spool(limit: int = 1 << 20, allowance: Allowance | None = None) -> Spool:
    return Spool(["stdout", "stderr"], allowance or Allowance(), limit)


def is_full(spool: Spool) -> bool:
    """A function, so that nobody takes the answer for the same after something has happened."""
    return spool.full


def is_idle(reader: Reader) -> bool:
    """The same of a listener."""
    return reader.idle


async def rest(reader: Reader) -> dict[str, bytes]:
    """All that a listener still gets, by stream; pieces must follow one another."""
    seen = dict.fromkeys(reader.begins, b"")
    while pieces := await reader.take():
        for stream, offset, data in pieces:
            assert offset == reader.begins[stream] + len(seen[stream])
            seen[stream] += data
    return seen


@given(PIECES, st.integers(0, 500), st.integers(0, 500), st.integers(1, 8000))
async def test_a_listener_gets_what_follows_its_offsets(
    pieces: list[tuple[str, bytes]], out: int, err: int, limit: int
) -> None:
    spool = a_spool(limit)
    whole = {"stdout": b"", "stderr": b""}
    for stream, data in pieces:
        spool.put(stream, data)
        whole[stream] += data
    assert spool.cost <= limit
    spool.end()
    wanted = {"stdout": out, "stderr": err}
    reader = spool.listen(wanted)
    for stream, data in (await rest(reader)).items():
        begin = reader.begins[stream]
        assert begin >= min(wanted[stream], len(whole[stream]))
        assert data == whole[stream][begin:]


@given(PIECES)
async def test_the_order_of_streams_is_kept(pieces: list[tuple[str, bytes]]) -> None:
    spool = a_spool()
    for stream, data in pieces:
        spool.put(stream, data)
    spool.end()
    reader = spool.listen({"stdout": 0, "stderr": 0})
    assert [(stream, data) for stream, _, data in await reader.take()] == pieces


async def test_a_listener_without_offsets_begins_at_the_present() -> None:
    spool = a_spool()
    spool.put("stdout", b"old")
    spool.put("stderr", b"old")
    plain, half = spool.listen(), spool.listen({"stdout": 1, "pty": 5})
    assert (plain.begins, half.begins) == ({"stdout": 3, "stderr": 3}, {"stdout": 1, "stderr": 3})
    spool.put("stdout", b"new")
    spool.end()
    assert await rest(plain) == {"stdout": b"new", "stderr": b""}
    assert await rest(half) == {"stdout": b"ldnew", "stderr": b""}


async def test_offsets_beyond_the_end_are_told_from_it() -> None:
    spool = a_spool()
    spool.put("stdout", b"abc")
    assert spool.listen({"stdout": 99}).begins == {"stdout": 3, "stderr": 0}


async def test_a_spool_is_full_while_one_listener_is_behind() -> None:
    spool = a_spool()
    slow, fast = spool.listen(), spool.listen()
    room: list[str] = []
    for stream in ("stdout", "stderr"):
        assert not is_full(spool)
        spool.put(stream, bytes(LAG))
        assert is_full(spool)
        spool.when_room(partial(room.append, stream))
        assert await fast.take()
        assert not room
        assert await slow.take()
        assert room.pop() == stream
    assert not is_full(spool)
    assert not room


async def test_nobody_waits_for_a_listener_that_left() -> None:
    spool = a_spool()
    room: list[bool] = []
    reader = spool.listen()
    spool.put("stdout", bytes(LAG))
    spool.when_room(partial(room.append, True))
    reader.close()
    assert room == [True]
    assert not is_full(spool)


async def test_a_listener_waits_for_output_and_for_the_end() -> None:
    spool = a_spool()
    reader = spool.listen()
    assert is_idle(reader)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.wait)
        await anyio.wait_all_tasks_blocked()
        spool.put("stdout", b"x")
    assert not is_idle(reader)
    assert [piece.data for piece in reader.take_now()] == [b"x"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.wait)
        await anyio.wait_all_tasks_blocked()
        spool.end()
    assert reader.over
    assert not is_idle(reader)
    assert await reader.take() == []


async def test_what_a_listener_waits_for_is_not_dropped() -> None:
    allowance = Allowance(1000)
    spool = a_spool(500, allowance)
    spool.put("stdout", b"before" * 50)
    reader = spool.listen()
    for number in range(100):
        spool.put("stdout", b"%03d" % number)
    spool.end()
    assert spool.cost > 500
    assert (await rest(reader))["stdout"] == b"".join(b"%03d" % number for number in range(100))
    spool.shrink(500)
    assert spool.cost <= 500


async def test_the_spools_of_a_sandbox_share_an_allowance() -> None:
    allowance = Allowance(100_000)
    small, large = a_spool(allowance=allowance), a_spool(allowance=allowance)
    small.put("stdout", b"precious")
    for _ in range(100):
        large.put("stdout", bytes(4000))
        assert small.cost + large.cost <= 100_000
    assert small.listen({"stdout": 0}).begins["stdout"] == 0
    kept = large.cost
    large.close()
    fresh = a_spool(allowance=allowance)
    fresh.put("stdout", bytes(kept))
    assert fresh.listen({"stdout": 0}).begins["stdout"] == 0


async def test_ended_processes_make_room_first() -> None:
    allowance = Allowance(100_000)
    large = a_spool(allowance=allowance)
    large.put("stdout", bytes(50_000))
    ended = [a_spool(allowance=allowance) for _ in range(3)]
    for spool in ended:
        spool.put("stdout", bytes(10_000))
        spool.end()
    large.put("stdout", bytes(25_000))
    begins = [spool.listen({"stdout": 0}).begins["stdout"] for spool in (large, *ended)]
    assert begins == [0, 10_000, 0, 0]


async def test_tiny_pieces_are_counted_with_what_they_cost() -> None:
    spool = a_spool(100 * (PIECE_COST + 1))
    for _ in range(1000):
        spool.put("stdout", b"x")
    assert spool.listen({"stdout": 0}).begins["stdout"] == 900


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("stdout=1, stderr=2", {"stdout": 1, "stderr": 2}), (" pty=0 ", {"pty": 0}), ("stderr=3,stdout=007", None)],
)
def test_offsets_are_read(text: str, wanted: Mapping[str, int] | None) -> None:
    read = parse_offsets(text)
    assert read == (wanted or {"stderr": 3, "stdout": 7})
    assert parse_offsets(format_offsets(read)) == read


@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"((stdout|pty)=[0-9]{0,30},? ?)*", fullmatch=True))
def test_malformed_offsets_are_refused(text: str) -> None:
    try:
        read = parse_offsets(text)
    except RpcFault:
        return
    assert parse_offsets(format_offsets(read)) == read
