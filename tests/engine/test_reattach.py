"""Output from an offset: a client that was cut off anywhere, more than once, misses nothing."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

import pytest

from grotte.engine.processes.spool import PER_PROCESS
from tests.engine.background import Background, by_pid
from tests.engine.wire import Box, Result, first_message

HEADER = "grotte-output-from"
MEGABYTES = 3
#: Bytes that differ everywhere, so that a shift of one shows.
NUMBERS = f"seq 1 10000000 | head -c {MEGABYTES * 1_000_000}"


def numbers(size: int = MEGABYTES * 1_000_000) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, size // 5))[:size]


def sh(script: str) -> dict[str, object]:
    return {"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": False}


def whole_events(body: bytes) -> list[dict[str, Any]]:
    """The messages that arrived whole before a stream was cut."""
    messages = []
    while len(body) >= 5 and len(body) >= 5 + (length := struct.unpack(">I", body[1:5])[0]):
        messages.append(json.loads(body[5 : 5 + length]))
        body = body[5 + length :]
    return messages


class Follower:
    """A client that keeps what it got, and goes on from there."""

    def __init__(self, box: Box, *streams: str) -> None:
        self.box = box
        self.got = dict.fromkeys(streams, b"")
        self.pid = 0
        self.end: dict[str, Any] | None = None

    @property
    def place(self) -> str:
        return ", ".join(f"{stream}={len(data)}" for stream, data in self.got.items())

    def listen(self, method: str, message: dict[str, object], cut: int) -> None:
        """Read about `cut` bytes of the answer and hang up."""
        with self.box.apart() as box, box.open(method, message, **{HEADER: self.place}) as answer:
            assert answer.headers[HEADER] == self.place
            body = b""
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) >= cut:
                    break
        for event in whole_events(body[:cut]):
            self._see(event.get("event", {}))

    def _see(self, event: dict[str, Any]) -> None:
        self.pid = event.get("start", {}).get("pid", self.pid)
        self.end = event.get("end", self.end)
        for stream, data in event.get("data", {}).items():
            self.got[stream] += base64.b64decode(data)

    def follow(self, message: dict[str, object], seed: int) -> None:
        """Start and go on until the end has come, cut off after random numbers of bytes."""
        dice = random.Random(seed)
        self.listen("Start", message, dice.randrange(100, 400_000))
        for _ in range(500):
            if self.end is not None:
                return
            self.listen("Connect", by_pid(self.pid), dice.randrange(100, 1_500_000))
        raise AssertionError("the end does not come")


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_that_is_cut_anywhere_is_continued(box: Box, seed: int) -> None:
    follower = Follower(box, "stdout", "stderr")
    follower.follow(sh(f"{NUMBERS} & seq 1 100000 >&2; wait; exit 3"), seed)
    assert follower.got["stdout"] == numbers()
    assert follower.got["stderr"] == b"".join(b"%d\n" % number for number in range(1, 100_001))
    assert follower.end is not None
    assert follower.end["exitCode"] == 3


def test_a_terminal_is_continued(box: Box) -> None:
    follower = Follower(box, "pty")
    follower.follow(sh("stty -opost; seq 1 100000") | {"pty": {"size": {"cols": 80, "rows": 24}}}, 1)
    assert follower.got["pty"] == b"".join(b"%d\n" % number for number in range(1, 100_001))


def test_an_ended_process_gives_its_output_again(box: Box) -> None:
    pid = box.sh("echo out; echo err >&2; exit 3").events[0]["event"]["start"]["pid"]
    for place, out, err in [
        ("stdout=0, stderr=0", b"out\n", b"err\n"),
        ("stdout=2", b"t\n", b""),
        ("stderr=4", b"", b""),
    ]:
        result = Result(box.events("Connect", by_pid(pid), **{HEADER: place}))
        assert (result.stdout, result.stderr) == (out, err)
        assert result.end["exitCode"] == 3
    plain = Result(box.events("Connect", by_pid(pid)))
    assert plain.kinds == ["start", "end"]


def test_the_order_of_streams_is_kept_where_it_was_seen(box: Box) -> None:
    script = "for i in 1 2 3; do echo o$i; sleep 0.1; echo e$i >&2; sleep 0.1; done"
    first = box.sh(script)
    pid = first.events[0]["event"]["start"]["pid"]
    again = Result(box.events("Connect", by_pid(pid), **{HEADER: "stdout=0, stderr=0"}))
    assert again.events == first.events


def test_what_nobody_read_is_kept_up_to_a_bound(box: Box) -> None:
    process = Background(box, "seq 1 10000000 | head -c 12000000; exec sleep 60")
    while box.sh(f"cat /proc/{process.pid}/comm").stdout != b"sleep\n":
        pass
    # The engine reads its pipe on its own time: what is asked for is not there until it has.
    begin = 0
    while begin + PER_PROCESS < 12_000_000 - 100_000:
        with (
            box.apart() as other,
            other.open("Connect", by_pid(process.pid), **{HEADER: "stdout=9, stderr=0"}) as answer,
        ):
            begin = int(answer.headers[HEADER].partition(",")[0].removeprefix("stdout="))
            _, chunks = first_message(answer)
            assert answer.headers[HEADER] == f"stdout={begin}, stderr=0"
            received = b""
            while len(received) < 1_000_000:
                received += next(chunks)
    events = whole_events(received)
    kept = b"".join(base64.b64decode(message["event"]["data"]["stdout"]) for message in events)
    assert kept == numbers(12_000_000)[begin : begin + len(kept)]
    process.signal()


def test_several_listeners_have_places_of_their_own(box: Box) -> None:
    pid = box.sh(NUMBERS).events[0]["event"]["start"]["pid"]
    expected = numbers()
    for place in (0, 1, 1_234_567, len(expected) - 1, len(expected)):
        with box.open("Connect", by_pid(pid), **{HEADER: f"stdout={place}"}) as answer:
            answer.read()
        assert answer.headers[HEADER] == f"stdout={place}, stderr=0"
        events = whole_events(answer.content)
        data = b"".join(base64.b64decode(e["event"]["data"]["stdout"]) for e in events if "data" in e.get("event", {}))
        assert data == expected[place:]


def test_offsets_that_were_never_written_are_answered_with_the_end(box: Box) -> None:
    pid = box.sh("echo abc").events[0]["event"]["start"]["pid"]
    with box.open("Connect", by_pid(pid), **{HEADER: "stdout=999"}) as answer:
        answer.read()
    assert answer.headers[HEADER] == "stdout=4, stderr=0"


def test_an_answer_speaks_of_offsets_only_when_asked(box: Box) -> None:
    with box.open("Start", sh("echo x")) as answer:
        answer.read()
    assert HEADER not in answer.headers
    with box.open("Start", sh("echo x"), **{HEADER: "stdout=0, stderr=0, pty=0"}) as answer:
        answer.read()
    assert answer.headers[HEADER] == "stdout=0, stderr=0"


@pytest.mark.parametrize(
    "text", ["", "x", "stdout", "stdout=", "stdout=-1", "stdout=1;stderr=2", "stdin=0", "pty=1, pty=2"]
)
def test_malformed_offsets(box: Box, text: str) -> None:
    (end,) = box.events("Start", sh("touch /tmp/began"), **{HEADER: text})
    assert end["error"]["code"] == "invalid_argument"
    assert box.fs("Stat", path="/tmp/began").status_code == 404
    (end,) = box.events("Connect", by_pid(1), **{HEADER: text})
    assert end["error"]["code"] == "invalid_argument"
