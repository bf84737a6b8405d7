"""Where a reader of output stands, and envelopes that arrive in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte._proto.connect import EnvelopeError, EnvelopeReader, pack
from grotte._proto.messages import DataEvent
from grotte._proto.resume import NOW, OutputPosition, read_offsets, write_offsets


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("stdout=1, stderr=2, pty=3", {"stdout": 1, "stderr": 2, "pty": 3}),
        (" pty = 7 ", {"stdout": 0, "stderr": 0, "pty": 7}),
        ("stdout=1,stderr=2", {"stdout": 1, "stderr": 2, "pty": 0}),
        ("", None),
        (None, None),
        ("now", None),
        ("stdout=-1", None),
        ("stdout=1;stderr=2", None),
        ("stdout=1, other=2", None),
        ("stdout=" + "9" * 19, None),
        ("stdout=1,", None),
    ],
)
def test_what_a_header_says(text: str | None, found: dict[str, int] | None) -> None:
    assert read_offsets(text) == found


@given(st.dictionaries(st.sampled_from(["stdout", "stderr", "pty"]), st.integers(0, NOW)))
def test_offsets_survive_the_way(offsets: dict[str, int]) -> None:
    assert read_offsets(write_offsets(offsets)) == {"stdout": 0, "stderr": 0, "pty": 0} | offsets


def test_output_is_counted_and_asked_for_from_there() -> None:
    position = OutputPosition(from_start=True)
    position.begin("stdout=0, stderr=0")
    for data in (DataEvent(stdout=b"ab"), DataEvent(stderr=b"c"), DataEvent(pty=b"def"), DataEvent()):
        position.take(data)
    assert position.wish() == "stdout=2, stderr=1, pty=3"
    assert position.resume("stdout=2, stderr=1, pty=3")
    assert (position.missing, position.gaps) == (False, 0)
    assert position.resume("stdout=5, stderr=1, pty=3")
    assert (position.missing, position.gaps, position.wish()) == (True, 1, "stdout=5, stderr=1, pty=3")
    assert not position.resume("stdout=4, stderr=1, pty=3"), "a process does not unsay anything"


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=6),
    st.lists(st.integers(1, 20), min_size=1),
    st.integers(0, 4),
)
def test_envelopes_in_any_pieces(wanted: list[tuple[int, bytes]], sizes: list[int], cut: int) -> None:
    stream = b"".join(pack(payload, flags) for flags, payload in wanted) + pack(b"never whole")[:cut]
    reader = EnvelopeReader()
    found = []
    number = 0
    while stream:
        size = sizes[number % len(sizes)]
        found += [(envelope.flags, bytes(envelope.payload)) for envelope in reader.feed(stream[:size])]
        stream = stream[size:]
        number += 1
    assert found == wanted
    if cut:
        with pytest.raises(EnvelopeError, match="ended inside"):
            reader.finish()
    else:
        reader.finish()


@pytest.mark.parametrize("step", [1, 4, 5, 100])
def test_an_envelope_that_is_too_large_is_refused_at_its_head(step: int) -> None:
    reader = EnvelopeReader(max_message=10)
    stream = pack(b"x" * 10) + pack(b"x" * 11)
    with pytest.raises(EnvelopeError, match="over the limit of 10"):
        for start in range(0, len(stream), step):
            reader.feed(stream[start : start + step])
