"""`process.Process` on terminals."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest

from tests.engine.background import Background, b64, by_pid
from tests.engine.test_process import await_gone
from tests.engine.wire import Box, Result, Wire, check_rpc_error, first_message, unpack

SIZE = {"size": {"cols": 80, "rows": 24}}


def on_terminal(box: Box, script: str, **more: Any) -> Result:
    return box.sh(script, pty=SIZE, **more)


def output(chunks: bytes) -> bytes:
    events = [message["event"]["data"] for message in unpack(chunks) if "data" in message.get("event", {})]
    assert all(set(event) == {"pty"} for event in events)
    return b"".join(base64.b64decode(event["pty"]) for event in events)


@pytest.mark.parametrize("stdin", [None, True, False])
def test_all_output_is_pty_output_whatever_stdin_says(box: Box, stdin: bool | None) -> None:
    result = on_terminal(box, "stty size; echo err >&2; test -t 0 && echo tty; exit 3", stdin=stdin)
    assert result.kinds == ["start", "data", "end"] or "data" in result.kinds
    assert result.output("pty") == b"24 80\r\nerr\r\ntty\r\n"
    assert (result.stdout, result.stderr) == (b"", b"")
    assert result.end == {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}


def test_pieces_are_of_16_kib_at_most_and_nothing_is_lost(box: Box) -> None:
    size = 10 << 20
    result = on_terminal(box, f"stty raw; yes | head -c {size}")
    pieces = [base64.b64decode(m["event"]["data"]["pty"]) for m in result.events if "data" in m["event"]]
    assert max(map(len, pieces)) <= 16 * 1024
    assert b"".join(pieces) == b"y\n" * (size // 2)


def test_typing_resizing_and_two_listeners(box: Box) -> None:
    start = {"process": {"cmd": "/bin/bash", "args": ["--norc", "-i"], "envs": {"PS1": "> "}}, "pty": SIZE}
    with box.open("Start", start) as answer:
        message, chunks = first_message(answer)
        pid = message["event"]["start"]["pid"]
        with Wire(str(box.wire.base_url), None) as first, Wire(str(box.wire.base_url), None) as second:
            other, listener = Box(first, box.answer), Box(second, box.answer)
            heard: list[bytes] = []
            with listener.open("Connect", by_pid(pid)) as connected:
                _, rest = first_message(connected)
                thread = threading.Thread(target=lambda: heard.extend(rest))
                thread.start()
                resized = by_pid(pid, pty={"size": {"cols": 132, "rows": 50}})
                assert other.rpc("process.Process/Update", resized).json() == {}
                assert other.rpc("process.Process/Update", by_pid(pid)).json() == {}
                for line in (b"stty size\n", b"exit\n"):
                    assert other.rpc("process.Process/SendInput", by_pid(pid, input={"pty": b64(line)})).json() == {}
                mine = b"".join(chunks)
                thread.join(60)
    assert b"50 132\r\n" in output(mine)
    assert b"50 132\r\n" in output(b"".join(heard))
    *_, last, end = unpack(mine)
    assert last["event"]["end"]["exited"] is True
    assert end == {}


def test_kinds_of_input_are_not_mixed_up(box: Box) -> None:
    process = Background(box, "cat", pty=SIZE)
    answer = box.rpc("process.Process/SendInput", by_pid(process.pid, input={"stdin": b64(b"x")}))
    check_rpc_error(answer, 500, "internal")
    assert "Ctrl+D" in check_rpc_error(box.rpc("process.Process/CloseStdin", by_pid(process.pid)), 500, "unknown")
    assert process.signal().json() == {}


def test_stream_input_types(box: Box) -> None:
    process = Background(box, "read line; echo got $line > /tmp/typed", pty=SIZE)
    with box.open("StreamInput", {"start": by_pid(process.pid)}) as answer:
        answer.read()
    assert list(unpack(answer.content)) == [{}, {}]
    box.rpc("process.Process/SendInput", by_pid(process.pid, input={"pty": b64(b"it\n")}))
    assert box.sh("until test -s /tmp/typed; do sleep 0.05; done; cat /tmp/typed").stdout == b"got it\n"


def test_ctrl_d_is_the_end_of_input(box: Box) -> None:
    with box.open("Start", {"process": {"cmd": "/bin/cat"}, "pty": SIZE}) as answer:
        message, chunks = first_message(answer)
        pid = message["event"]["start"]["pid"]
        with Wire(str(box.wire.base_url), None) as client:
            Box(client, box.answer).rpc("process.Process/SendInput", by_pid(pid, input={"pty": b64(b"\x04")}))
        *_, last, _ = unpack(b"".join(chunks))
    assert last["event"]["end"] == {"exited": True, "status": "exit status 0"}


@pytest.mark.parametrize("size", [{}, {"size": {}}, {"size": {"cols": 0, "rows": 0}}])
def test_no_size_means_unknown(box: Box, size: dict[str, Any]) -> None:
    assert box.sh("stty size", pty=size).output("pty") == b"0 0\r\n"


@pytest.mark.parametrize("size", [{"cols": -1, "rows": 24}, {"cols": 80, "rows": 65536}, {"cols": "x", "rows": 1}])
def test_sizes_that_cannot_be(box: Box, size: dict[str, Any]) -> None:
    (end,) = box.events("Start", {"process": {"cmd": "/bin/sh"}, "pty": {"size": size}})
    assert end["error"]["code"] == "invalid_argument"
    process = Background(box, "sleep 50", pty=SIZE)
    answer = box.rpc("process.Process/Update", by_pid(process.pid, pty={"size": size}))
    check_rpc_error(answer, 400, "invalid_argument")
    process.signal()


def test_what_cannot_be_started_on_a_terminal(box: Box) -> None:
    (end,) = box.events("Start", {"process": {"cmd": "/bin/sh", "cwd": "/no/such"}, "pty": SIZE})
    assert end["error"] == {"code": "invalid_argument", "message": "cwd '/no/such' does not exist"}
    result = box.start("/no/such/command", pty=SIZE)
    assert result.end["exitCode"] == 127


def test_the_deadline_and_a_signal_end_it(box: Box) -> None:
    result = on_terminal(box, "echo there; sleep 94", headers={"connect-timeout-ms": "1500"})
    assert result.output("pty") == b"there\r\n"
    assert result.error["code"] == "deadline_exceeded"
    process = Background(box, "sleep 94", pty=SIZE)
    assert process.signal("SIGNAL_SIGTERM").json() == {}
    end = box.events("Connect", by_pid(process.pid))[-2]["event"]["end"]
    assert end["status"] == "signal: terminated"
    await_gone(box, "94")
