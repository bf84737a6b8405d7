"""`process.Process`: order of events, ends, input, who listens, and for how long."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from typing import Any

import pytest

from tests.engine.background import Background, b64, by_pid, running, start_pid
from tests.engine.wire import Box, Wire, check_rpc_error, first_message, unpack


def test_events_come_in_order(box: Box) -> None:
    result = box.sh("echo out; echo err >&2; exit 0")
    assert result.kinds[0] == "start"
    assert set(result.kinds[1:-1]) == {"data"}
    assert result.kinds[-1] == "end"
    assert result.end_of_stream == {}
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.end == {"exited": True, "status": "exit status 0"}
    assert isinstance(result.events[0]["event"]["start"]["pid"], int)


def test_exit_code(box: Box) -> None:
    expected = {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}
    assert box.sh("exit 3").end == expected


@pytest.mark.parametrize(
    ("number", "text"), [(9, "killed"), (15, "terminated"), (11, "segmentation fault"), (40, "signal 40")]
)
def test_death_by_signal(box: Box, number: int, text: str) -> None:
    end = box.sh(f"ulimit -c 0; kill -{number} $$").end
    assert end == {"exitCode": -1, "status": f"signal: {text}", "error": f"signal: {text}"}


def test_command_not_found_ends_with_127(box: Box) -> None:
    assert box.sh("nope-nope").end["exitCode"] == 127


def test_a_program_that_is_not_there(box: Box) -> None:
    result = box.start("/nope/nope")
    outcome = result.end_of_stream.get("error") or result.end
    assert outcome.get("code", "") in ("not_found", "invalid_argument") or outcome["exitCode"] == 127


def test_large_output_arrives_whole_in_pieces_of_32_kib(box: Box) -> None:
    result = box.start("/usr/bin/head", "-c", "5000000", "/dev/zero")
    assert result.stdout == bytes(5_000_000)
    pieces = [base64.b64decode(m["event"]["data"]["stdout"]) for m in result.events[1:-1]]
    assert max(map(len, pieces)) <= 32 * 1024


def test_characters_are_not_split(box: Box) -> None:
    result = box.start("/usr/bin/python3", "-c", "print('é€😀' * 50_000, end='')")
    pieces = [base64.b64decode(m["event"]["data"]["stdout"]) for m in result.events[1:-1]]
    assert "".join(piece.decode() for piece in pieces) == "é€😀" * 50_000


def test_the_start_of_a_character_is_not_kept_for_ever(box: Box) -> None:
    with box.open("Start", {"process": {"cmd": "/bin/sh", "args": ["-c", "printf 'a\\303'; exec sleep 30"]}}) as answer:
        message, chunks = first_message(answer)
        data = b""
        while b"ww==" not in data:
            data += next(chunks)
        box.rpc("process.Process/SendSignal", by_pid(message["event"]["start"]["pid"], signal="SIGNAL_SIGKILL"))


def test_invalid_utf8_comes_through(box: Box) -> None:
    assert box.sh(r"printf '\377\376\303'").stdout == b"\xff\xfe\xc3"


def test_environment(wire: Wire) -> None:
    with wire.box(envVars={"A": "global", "B": "global", "E2B_SANDBOX_ID": "mine", "HOME": "/tmp"}) as box:
        result = box.start("/usr/bin/env", envs={"B": "own", "GROTTE_SANDBOX": "no"})
        envs = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
        assert envs == {
            "PATH": envs["PATH"],
            "HOME": "/tmp",
            "USER": "user",
            "LOGNAME": "user",
            "A": "global",
            "B": "own",
            "E2B_SANDBOX": "true",
            "E2B_SANDBOX_ID": box.id,
            "E2B_TEMPLATE_ID": box.answer["templateID"],
            "E2B_EVENTS_ADDRESS": "http://127.0.0.1:49983",
            "GROTTE_SANDBOX": "no",
            "GROTTE_SANDBOX_ID": box.id,
            "GROTTE_TEMPLATE_ID": box.answer["templateID"],
            "GROTTE_EVENTS_ADDRESS": "http://127.0.0.1:49983",
        }
        assert "/usr/bin" in envs["PATH"].split(":")
        shown = wire.get("/envs", headers=box.headers).json()
        assert shown["A"] == "global"
        assert shown["E2B_SANDBOX_ID"] == box.id


def test_working_directory(box: Box) -> None:
    assert box.sh("pwd").stdout == b"/home/user\n"
    assert box.sh("pwd", cwd="/tmp").stdout == b"/tmp\n"
    box.fs("MakeDir", path="inner/dir")
    assert box.sh("pwd", cwd="inner/dir").stdout == b"/home/user/inner/dir\n"
    assert box.sh("pwd", cwd="~/inner").stdout == b"/home/user/inner\n"
    error = box.sh("pwd", cwd="/nope").error
    assert error == {"code": "invalid_argument", "message": "cwd '/nope' does not exist"}
    assert box.sh("pwd", cwd="~bob").error["code"] == "invalid_argument"


def test_users(box: Box) -> None:
    def auth(name: str) -> dict[str, str]:
        return {"authorization": "Basic " + b64(f"{name}:".encode())}

    assert box.sh("id -un").stdout == b"user\n"
    assert box.sh("id -un; echo $HOME", headers=auth("root")).stdout == b"root\n/root\n"
    refused = box.sh("true", headers=auth("nobody9"))
    assert refused.events == []
    assert refused.error["code"] == "unauthenticated"
    assert "invalid username" in refused.error["message"]
    check_rpc_error(box.rpc("process.Process/List", **auth("nobody9")), 401, "unauthenticated")


@pytest.mark.parametrize(
    "process",
    [
        {},
        {"cmd": ""},
        {"cmd": "a\0b"},
        {"cmd": "/bin/true", "args": ["\0"]},
        {"cmd": "/bin/true", "envs": {"": "x"}},
        {"cmd": "/bin/true", "envs": {"A=B": "x"}},
        {"cmd": "/bin/true", "envs": {"A": "\0"}},
        {"cmd": "/bin/true", "cwd": "\0"},
    ],
)
def test_start_refuses(box: Box, process: dict[str, object]) -> None:
    (end,) = box.events("Start", {"process": process})
    assert end["error"]["code"] == "invalid_argument"


def test_a_command_line_too_long_for_the_kernel(box: Box) -> None:
    result = box.start("/bin/true", "x" * 10_000_000)
    assert result.events == []
    assert result.error["code"]
    assert box.sh("echo still here").stdout == b"still here\n"


# -- time --------------------------------------------------------------------------------------------------------


def test_the_deadline_kills_the_process_and_says_so(box: Box) -> None:
    mark = uuid.uuid4().hex
    result = box.sh(f"echo {mark}; sleep 100", headers={"connect-timeout-ms": "1500"}, tag=mark)
    assert result.stdout == mark.encode() + b"\n"
    assert result.kinds[-1] == "data"
    assert result.error["code"] == "deadline_exceeded"
    await_end(box, mark)
    connected = box.events("Connect", {"process": {"tag": mark}})
    assert connected[-2]["event"]["end"]["status"] == "signal: killed"


def await_end(box: Box, tag: str) -> None:
    for _ in range(1000):
        if tag not in [process.get("tag") for process in running(box)]:
            return
        time.sleep(0.05)
    raise AssertionError("the process did not end")


def test_the_deadline_counts_on_when_the_client_has_left(box: Box) -> None:
    mark = uuid.uuid4().hex
    process = Background(box, "sleep 100", tag=mark, **{"connect-timeout-ms": 2000})
    assert process.pid in [p["pid"] for p in running(box)]
    await_end(box, mark)


def test_the_deadline_of_connect_leaves_the_process(box: Box) -> None:
    process = Background(box, "sleep 100")
    messages = box.events("Connect", by_pid(process.pid), connect_timeout_ms="1000")
    assert [next(iter(m["event"])) for m in messages[:-1]] == ["start"]
    assert messages[-1]["error"]["code"] == "deadline_exceeded"
    assert process.pid in [p["pid"] for p in running(box)]
    process.signal()


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "12345678901", ""])
def test_malformed_deadlines(box: Box, value: str) -> None:
    assert box.sh("true", headers={"connect-timeout-ms": value}).error["code"] == "invalid_argument"
    answer = box.rpc("process.Process/List", connect_timeout_ms=value)
    check_rpc_error(answer, 400, "invalid_argument")


def test_keepalives_come_in_silence(box: Box) -> None:
    result = box.sh("sleep 2.5", headers={"keepalive-ping-interval": "1"})
    beats = ["keepalive"] * max(2, len(result.kinds) - 2)  # more, if the machine lets it sleep for longer
    assert result.kinds == ["start", *beats, "end"]
    assert len(beats) <= 4
    assert result.events[1] == {"event": {"keepalive": {}}}


# -- who listens -------------------------------------------------------------------------------------------------


def test_a_process_outlives_its_client_and_never_blocks(box: Box) -> None:
    mark = uuid.uuid4().hex
    process = Background(box, f"head -c 3000000 /dev/zero; echo > /tmp/{mark}; read x; exit 5", stdin=True)
    for _ in range(1000):
        if box.fs("Stat", path=f"/tmp/{mark}").status_code == 200:
            break
        time.sleep(0.05)
    answers: list[list[dict[str, Any]]] = []

    def listen() -> None:
        with Wire(str(box.wire.base_url), None) as client:
            answers.append(Box(client, box.answer).events("Connect", by_pid(process.pid)))

    listeners = [threading.Thread(target=listen) for _ in range(3)]
    for thread in listeners:
        thread.start()
    time.sleep(0.3)
    assert box.rpc("process.Process/SendInput", by_pid(process.pid, input={"stdin": b64(b"\n")})).json() == {}
    for thread in listeners:
        thread.join(60)
    assert len(answers) == 3
    for messages in answers:
        assert [next(iter(m["event"])) for m in messages[:-1]] == ["start", "end"]
        assert messages[0]["event"]["start"]["pid"] == process.pid
        assert messages[1]["event"]["end"]["exitCode"] == 5


def test_an_ended_process_can_be_asked_for_30_seconds(box: Box) -> None:
    mark = uuid.uuid4().hex
    pid = box.sh("exit 4", tag=mark).events[0]["event"]["start"]["pid"]
    for selector in ({"pid": pid}, {"tag": mark}):
        start, end, last = box.events("Connect", {"process": selector})
        assert start["event"]["start"]["pid"] == pid
        assert end["event"]["end"]["exitCode"] == 4
        assert last == {}
    assert pid not in [p["pid"] for p in running(box)]
    message = check_rpc_error(box.rpc("process.Process/SendSignal", by_pid(pid, signal=9)), 404, "not_found")
    assert message == f"process with pid {pid} not found"
    box.sh("exit 6", tag=mark)
    assert box.events("Connect", {"process": {"tag": mark}})[1]["event"]["end"]["exitCode"] == 6


def test_unknown_processes(box: Box) -> None:
    (end,) = box.events("Connect", by_pid(99_999_999))
    assert end["error"] == {"code": "not_found", "message": "process with pid 99999999 not found"}
    (end,) = box.events("Connect", {"process": {"tag": "nope"}})
    assert end["error"] == {"code": "not_found", "message": "process with tag nope not found"}
    (end,) = box.events("Connect", {})
    assert end["error"]["code"] == "unimplemented"


def test_a_slow_listener_slows_the_process_down(box: Box) -> None:
    mark = uuid.uuid4().hex
    script = f"head -c 60000000 /dev/zero; echo > /tmp/{mark}"
    with box.open("Start", {"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": False}) as answer:
        _, chunks = first_message(answer)
        time.sleep(1)
        assert box.wire.get(f"/sandboxes/{box.id}").status_code == 200
        if answer.http_version == "HTTP/1.1":
            with Wire(str(box.wire.base_url), None) as other:
                assert Box(other, box.answer).fs("Stat", path=f"/tmp/{mark}").status_code == 404
        size = sum(map(len, chunks))
    assert size > 80_000_000
    assert box.fs("Stat", path=f"/tmp/{mark}").status_code == 200


def test_list_shows_what_was_asked_for(box: Box) -> None:
    mark = uuid.uuid4().hex
    message = {
        "process": {"cmd": "/bin/sh", "args": ["-c", "sleep 50"], "envs": {"A": "1"}, "cwd": "/tmp"},
        "tag": mark,
        "stdin": False,
    }
    with box.open("Start", message) as answer:
        pid = start_pid(answer)
        (listed,) = [p for p in running(box) if p.get("tag") == mark]
        assert listed == {"config": message["process"], "pid": pid, "tag": mark}
        assert (
            box.rpc("process.Process/SendSignal", {"process": {"tag": mark}, "signal": "SIGNAL_SIGKILL"}).json() == {}
        )
    await_end(box, mark)


def test_a_child_that_holds_the_pipe_delays_the_end(box: Box) -> None:
    result = box.sh("(sleep 0.5; echo late) & echo early")
    assert result.stdout == b"early\nlate\n"


@pytest.mark.parametrize("name", ["SIGNAL_SIGKILL", 15])
def test_a_signal_abandons_the_pipes(box: Box, name: str | int) -> None:
    script = "sleep 30 & echo ready; exec sleep 31"
    with box.open("Start", {"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": False}) as answer:
        message, chunks = first_message(answer)
        body = next(chunks)
        pid = message["event"]["start"]["pid"]
        with Wire(str(box.wire.base_url), None) as other:
            assert Box(other, box.answer).rpc("process.Process/SendSignal", by_pid(pid, signal=name)).json() == {}
        *_, end, last = unpack(body + b"".join(chunks))
    assert end["event"]["end"]["status"] == ("signal: killed" if name == "SIGNAL_SIGKILL" else "signal: terminated")
    assert last == {}
    box.sh("pkill -f 'sleep 30'")


@pytest.mark.parametrize(("name", "number"), [("SIGNAL_SIGKILL", "47.1"), (15, "47.2")])
def test_what_a_command_left_holding_its_output_can_be_killed(box: Box, name: str | int, number: str) -> None:
    process = Background(box, f"(setsid sleep {number} &) ; sleep {number} & exit 3")
    until_quiet(box, f"test -d /proc/{process.pid} && echo it runs")
    assert process.pid in [listed["pid"] for listed in running(box)]  # its output has not ended
    with box.open("Connect", by_pid(process.pid)) as answer:
        _, chunks = first_message(answer)
        assert process.signal(name).json() == {}
        *_, end, last = unpack(b"".join(chunks))
    assert (end["event"]["end"]["status"], last) == ("exit status 3", {})
    assert process.pid not in [listed["pid"] for listed in running(box)]
    check_rpc_error(process.signal(name), 404, "not_found")
    await_gone(box, number)


def test_a_timeout_reaches_what_a_command_left(box: Box) -> None:
    script = "(setsid sleep 47.3 &) ; sleep 47.3 & exit 0"
    result = box.sh(script, headers={"connect_timeout_ms": "700"})
    assert result.error["code"] == "deadline_exceeded"
    await_gone(box, "47.3")


def await_gone(box: Box, number: str) -> None:
    """Wait until nothing sleeps for so long any more."""
    until_quiet(box, f"pgrep -fx 'sleep {number}'")


def until_quiet(box: Box, script: str) -> None:
    """Wait until a script has nothing to say."""
    deadline = time.monotonic() + 60
    while box.sh(script).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGNAL_UNSPECIFIED", 0, 2, "SIGNAL_SIGINT", 99, "٩", "9" * 5000])
def test_other_signals_are_not_sent(box: Box, name: str | int) -> None:
    process = Background(box, "sleep 50")
    check_rpc_error(process.signal(name), 501, "unimplemented")
    assert process.signal().json() == {}


# -- the end of the sandbox --------------------------------------------------------------------------------------


def test_killing_the_sandbox_ends_its_streams(wire: Wire) -> None:
    with wire.box() as box, box.open("Start", {"process": {"cmd": "/bin/sleep", "args": ["100"]}}) as answer:
        _, chunks = first_message(answer)
        with Wire(str(wire.base_url), str(wire.headers["x-api-key"])) as other:
            assert other.delete(f"/sandboxes/{box.id}").status_code == 204
        (end,) = unpack(b"".join(chunks))
    assert end["error"] == {"code": "unavailable", "message": "The sandbox was not found"}
