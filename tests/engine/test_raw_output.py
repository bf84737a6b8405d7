"""Output as it is: for clients that ask for it, and for nobody else."""

from __future__ import annotations

import struct
from collections import defaultdict

import pytest

from tests.engine.wire import Box

RAW = {0x10: "stdout", 0x20: "stderr", 0x40: "pty"}
SCRIPT = "head -c 300000 /dev/zero | tr '\\0' x; printf '\\377ä'; printf err >&2"


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


@pytest.mark.parametrize("asked", ["1", "0", None])
def test_only_who_asks_gets_it(box: Box, asked: str | None) -> None:
    message = {"process": {"cmd": "/bin/sh", "args": ["-c", SCRIPT]}, "stdin": False}
    headers = {} if asked is None else {"grotte_output_raw": asked}
    with box.open("Start", message, **headers) as answer:
        found = envelopes(answer.read())
    assert answer.headers.get("grotte-output-raw") == ("1" if asked == "1" else None)
    output: dict[str, bytes] = defaultdict(bytes)
    for flags, payload in found:
        output[RAW.get(flags, "")] += payload
    assert found[-1] == (2, b"{}")
    if asked == "1":
        assert output["stdout"] == b"x" * 300_000 + b"\xff\xc3\xa4"
        assert output["stderr"] == b"err"
        assert b'"data"' not in output[""]
        assert b'"start"' in found[0][1]
    else:
        assert set(output) == {""}


def test_the_same_of_a_terminal(box: Box) -> None:
    message = {"process": {"cmd": "/bin/sh", "args": ["-c", "printf ä"]}, "pty": {"size": {"cols": 80, "rows": 24}}}
    with box.open("Start", message, grotte_output_raw="1") as answer:
        found = envelopes(answer.read())
    assert b"".join(payload for flags, payload in found if flags == 0x40) == "ä".encode()
