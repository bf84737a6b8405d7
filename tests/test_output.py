"""How output is collected: all of it or its end, and at which price."""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from types import FrameType
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte._proto.messages import DataEvent, ProcessEvent
from grotte._proto.output import GROWTH, CommandOutput, TextOutput


@given(st.lists(st.text(max_size=20)), st.integers(0, 40))
def test_the_end_is_kept_and_the_rest_counted(pieces: list[str], limit: int) -> None:
    output = TextOutput(limit)
    for piece in pieces:
        output.feed(piece.encode())
        assert len(output.text()) <= limit
    whole = "".join(pieces)
    assert output.text() == (whole[-limit:] if limit else "")
    assert output.dropped == len(whole) - len(output.text())


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(min_size=1, max_size=9))), st.integers(0, 30))
def test_who_reads_on_misses_no_piece(pieces: list[tuple[Literal["stdout", "stderr"], str]], limit: int) -> None:
    output = CommandOutput(limit)
    seen: list[str] = []
    for name, text in pieces:
        output.trim(len(seen))
        output.feed(event(name, text))
        while len(seen) < output.count:
            piece = output.piece(len(seen))
            seen.append(piece[0] or str(piece[1]))
    assert seen == [text for _, text in pieces]


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(0, 100))
def test_few_pieces_are_kept(sizes: list[int], limit: int) -> None:
    output = CommandOutput(limit)
    for size in sizes:
        output.feed(event("stdout", "x" * size))
        output.trim(output.count)
        kept = [piece[0] or "" for piece in output.pieces]
        # those that are needed, those that wait to be removed with others, and one
        assert len(kept) <= 2 * min(limit + 1, len(kept)) + 1
        assert sum(map(len, kept)) <= 2 * (limit + 50) + 50 * (limit + 1)


def event(name: Literal["stdout", "stderr"], text: str) -> ProcessEvent:
    data = text.encode()
    return ProcessEvent(data=DataEvent(stdout=data) if name == "stdout" else DataEvent(stderr=data))


def calls_for(count: int, limit: int | None) -> Counter[str]:
    """How often what was called to collect so many pieces, the text being looked at in the end."""
    events = [event("stdout", f"{number:09}\n") for number in range(count)]
    output = CommandOutput(limit)
    found: Counter[str] = Counter()

    def profile(frame: FrameType, kind: str, argument: object) -> None:
        if kind == "call":
            found[frame.f_code.co_name] += 1
        elif kind == "c_call":
            found[getattr(argument, "__name__", "?")] += 1

    sys.setprofile(profile)
    try:
        for number, item in enumerate(events):
            output.trim(number)
            output.feed(item)
        output.stdout.text()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("limit", [None, 0, 5000])
def test_four_times_the_output_is_four_times_the_work(limit: int | None) -> None:
    small, large = calls_for(1000, limit), calls_for(4000, limit)
    if limit is None:
        # as often as a text that grows by its share becomes four times as large
        assert large["join"] <= small["join"] + math.log(4, 1 + GROWTH) + 1
    else:
        assert large["join"] == small["join"] == 1
    assert large.total() < 5 * small.total()  # quadratic: 16
    assert large["feed"] == 4 * small["feed"] == 2 * 4000


def test_pieces_that_nobody_will_ask_for_are_not_kept() -> None:
    output = CommandOutput()
    output.keeps_pieces = False
    for number in range(100):
        output.trim(output.count)
        output.feed(event("stdout", f"{number}ä"))
        assert output.piece(number) == (f"{number}ä", None, None)
        assert len(output.pieces) == 1
    assert output.stdout.text() == "".join(f"{number}ä" for number in range(100))
    assert (output.count, output.stdout.dropped) == (100, 0)


def test_line_ends_stay_as_they_are() -> None:
    output = CommandOutput()
    for text in ("a\r\nb\r", "\nc\n\r"):
        output.feed(event("stdout", text))
        assert output.stdout.text() == output.stdout.text()
    assert output.stdout.text() == "a\r\nb\r\nc\n\r"


def test_a_thread_that_looks_on_sees_what_was_there() -> None:
    output = TextOutput()
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(output.text())

    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        for number in range(5000):
            output.feed(b"%d " % number)
    finally:
        over.set()
        onlooker.join()
    whole = "".join(f"{number} " for number in range(5000))
    assert output.text() == whole
    assert all(whole.startswith(text) for text in seen)
    assert [len(text) for text in seen] == sorted(len(text) for text in seen)
