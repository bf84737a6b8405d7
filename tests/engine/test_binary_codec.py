"""Clients that speak protobuf, by Connect or by gRPC-Web, get what clients in JSON get."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from grotte._proto.connect import EnvelopeReader
from tests.engine.speech import KINDS, STREAMS, Refused, Speech
from tests.engine.wire import Box, check_error, check_rpc_error, pack

START, CONNECT = "process.Process/Start", "process.Process/Connect"
STAT, LIST_DIR = "filesystem.Filesystem/Stat", "filesystem.Filesystem/ListDir"
CAT = {"cmd": "/bin/cat", "envs": {"A": "ä"}, "cwd": "/tmp"}
GARBAGE = [b"\xff", b"\x0a\x05abc", b"\x0c", b"\x0b" * 300, b"\x08" + b"\xff" * 11]


@pytest.fixture(params=["connect", "grpc-web"])
def speech(request: pytest.FixtureRequest, box: Box) -> Speech:
    return Speech(box, web=request.param == "grpc-web")


def output(events: Iterator[dict[str, Any]], expected: bytes, name: str = "stdout") -> bytes:
    """Read on until a text has been printed."""
    found = b""
    while expected not in found:
        found += base64.b64decode(next(events)["event"]["data"][name])
    return found


def test_a_command_from_its_start_to_its_end(speech: Speech) -> None:
    script = "printf 'out \\377'; printf err >&2; exit 3"
    request = {"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": False}
    start, *data, end = [message["event"] for message in speech.exchange(START, request)]
    assert start["start"]["pid"] > 1
    assert sorted(next(iter(piece["data"].items())) for piece in data) == [
        ("stderr", base64.b64encode(b"err").decode()),
        ("stdout", base64.b64encode(b"out \xff").decode()),
    ]
    assert end == {"end": {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}}


def test_much_output_comes_in_pieces_that_others_take_too(speech: Speech) -> None:
    request = {"process": {"cmd": "/bin/sh", "args": ["-c", "yes ü | head -c 600000"]}}
    pieces = [m["event"]["data"]["stdout"] for m in speech.exchange(START, request) if "data" in m["event"]]
    printed = [base64.b64decode(piece) for piece in pieces]
    assert b"".join(printed) == ("ü\n" * 200_000).encode()
    assert max(map(len, printed)) <= 32 * 1024


def test_input_of_every_kind(speech: Speech) -> None:
    selector = {"tag": "binary"}
    with speech.open(START, {"process": CAT, "tag": "binary", "stdin": True}) as (_, events):
        pid = next(events)["event"]["start"]["pid"]
        (listed,) = [p for p in speech.ask("process.Process/List")["processes"] if p["pid"] == pid]
        assert listed == {"config": CAT, "pid": pid, "tag": "binary"}
        assert speech.ask("process.Process/Update", {"process": {"pid": pid}}) == {}
        with speech.open(CONNECT, {"process": {"pid": pid}}) as (_, heard):
            assert next(heard) == {"event": {"start": {"pid": pid}}}
            speech.ask("process.Process/SendInput", {"process": selector, "input": {"stdin": b"\xff\0one\n"}})
            assert output(events, b"one\n") == output(heard, b"one\n") == b"\xff\0one\n"
        sent = [{"start": {"process": selector}}, {"keepalive": {}}, {"data": {"input": {"stdin": b"two\n"}}}]
        assert speech.exchange("process.Process/StreamInput", *sent) == [{}]
        output(events, b"two\n")
        assert speech.ask("process.Process/CloseStdin", {"process": selector}) == {}
        assert next(events) == {"event": {"end": {"exited": True, "status": "exit status 0"}}}
        assert list(events) == []


def test_a_terminal(speech: Speech) -> None:
    request = {"process": {"cmd": "/bin/sh"}, "pty": {"size": {"cols": 71, "rows": 23}}}
    with speech.open(START, request) as (_, events):
        selector = next(events)["event"]["start"]
        for size, asked in (("23 71", None), ("29 91", {"cols": 91, "rows": 29})):
            if asked:
                speech.ask("process.Process/Update", {"process": selector, "pty": {"size": asked}})
            speech.ask("process.Process/SendInput", {"process": selector, "input": {"pty": b"stty size\n"}})
            output(events, f"{size}\r\n".encode(), "pty")
        speech.ask("process.Process/SendSignal", {"process": selector, "signal": "SIGNAL_SIGKILL"})
        *_, last = events
    assert last == {"event": {"end": {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}}}


def test_files_are_what_they_are_in_json(speech: Speech) -> None:
    box = speech.box
    box.sh(
        "mkdir /tmp/tree; cd /tmp/tree; echo x > file; echo > old; touch -d 1969-07-20T20:17:40.5Z old; ln -s file link"
    )
    for path in ("/tmp/tree", "/tmp/tree/file", "/tmp/tree/link", "/tmp/tree/old", "/"):
        assert speech.ask(STAT, {"path": path}) == box.fs("Stat", path=path).json()
    listed = speech.ask(LIST_DIR, {"path": "/tmp", "depth": 2})
    assert listed == box.fs("ListDir", path="/tmp", depth=2).json()
    assert len(listed["entries"]) >= 4
    box.sh("rm -r /tmp/tree")


def test_files_are_made_moved_and_removed(speech: Speech) -> None:
    call = "filesystem.Filesystem/"
    made = speech.ask(call + "MakeDir", {"path": "/tmp/made"})
    assert made["entry"]["permissions"] == "drwxr-xr-x"
    with pytest.raises(Refused) as refused:
        speech.ask(call + "MakeDir", {"path": "/tmp/made"})
    assert refused.value.code == "already_exists"
    moved = speech.ask(call + "Move", {"source": "/tmp/made", "destination": "/tmp/moved"})
    assert moved["entry"] == made["entry"] | {"name": "moved", "path": "/tmp/moved"}
    assert speech.ask(call + "Remove", {"path": "/tmp/moved"}) == {}
    with pytest.raises(Refused) as refused:
        speech.ask(STAT, {"path": "/tmp/moved"})
    assert refused.value.code == "not_found"


def test_changes_are_told(speech: Speech) -> None:
    call = "filesystem.Filesystem/"
    speech.box.sh("mkdir -p /tmp/watched")
    wish = {"path": "/tmp/watched", "recursive": True, "includeEntry": True}
    watcher = speech.ask(call + "CreateWatcher", wish)
    with speech.open(call + "WatchDir", wish) as (_, told):
        assert next(told) == {"start": {}}
        speech.box.sh("mkdir /tmp/watched/new")
        made = next(told)["filesystem"]
        speech.box.sh("rmdir /tmp/watched/new")
        assert (made["name"], made["type"]) == ("new", "EVENT_TYPE_CREATE")
        assert made["entry"]["path"] == "/tmp/watched/new"
        assert next(event for event in told if event["filesystem"]["type"] == "EVENT_TYPE_REMOVE")
    events = speech.ask(call + "GetWatcherEvents", watcher)["events"]
    assert events[0] == made
    assert speech.ask(call + "RemoveWatcher", watcher) == {}
    with pytest.raises(Refused) as refused:
        speech.ask(call + "GetWatcherEvents", watcher)
    assert refused.value.code == "not_found"


def test_silence_is_broken_in_every_encoding(speech: Speech) -> None:
    with speech.open(START, {"process": CAT, "stdin": True}, keepalive_ping_interval="1") as (_, events):
        selector = next(events)["event"]["start"]
        assert next(events) == {"event": {"keepalive": {}}}
        speech.ask("process.Process/CloseStdin", {"process": selector})


def test_bytes_are_those_of_the_protocol(box: Box) -> None:
    """By numbers of fields and types, written down here once more."""
    headers = box.headers | {"content-type": "application/connect+proto"}
    process = b"\x0a\x07/bin/sh\x12\x02-c\x12\x0dkill -KILL $$" + b"\x1a\x06\x0a\x01A\x12\x01b" + b"\x22\x01/"
    request = b"\x0a" + bytes([len(process)]) + process + b"\x1a\x03tag" + b"\x20\x00"
    answer = box.wire.post(f"/{START}", content=pack(request), headers=headers)
    end = b"\x08\x01" + b"\x1a\x0esignal: killed" + b"\x22\x0esignal: killed"
    end = b"\x0a" + bytes([len(end) + 2]) + b"\x1a" + bytes([len(end)]) + end
    assert answer.content.endswith(pack(end) + pack(b"{}", 2))
    answer = box.wire.post(
        f"/{STAT}", content=b"\x0a\x01/", headers=box.headers | {"content-type": "application/proto"}
    )
    assert b"\x0a\x01/\x10\x02\x1a\x01/" in answer.content


@pytest.mark.parametrize("more", [b"\x9a\x06\x03abc", b"\xa3\x06\x08\x01\xa4\x06", b"\x95\x06abcd", b"\x0a\x05/proc"])
def test_what_newer_clients_send_is_skipped_and_the_last_of_a_field_counts(speech: Speech, more: bytes) -> None:
    body = b"\x0a\x01/" + more
    answer = speech.post(STAT, pack(body) if speech.web else body)
    (message,) = speech.read(STAT, answer)
    assert message["entry"]["path"] == ("/proc" if b"proc" in more else "/")


@pytest.mark.parametrize("method", KINDS)
def test_garbage_is_refused(speech: Speech, method: str) -> None:
    for garbage in GARBAGE:
        answer = speech.post(method, pack(garbage) if speech.enveloped(method) else garbage)
        with pytest.raises(Refused) as refused:
            speech.read(method, answer)
        assert refused.value.code == "invalid_argument"
        assert "unmarshal message" in refused.value.message


def test_an_empty_message_is_one(speech: Speech) -> None:
    with pytest.raises(Refused) as refused:
        speech.exchange(START, {})
    assert refused.value.code == "invalid_argument"
    with pytest.raises(Refused) as refused:
        speech.exchange(START)
    assert refused.value.code == "unimplemented"


def test_errors_of_calls_are_json(box: Box) -> None:
    speech = Speech(box, web=False)
    message = check_rpc_error(speech.post(STAT, speech.body(STAT, {"path": "/nö"})), 404, "not_found")
    assert "/nö" in message
    check_error(speech.post(STAT, b"", x_access_token="wrong"), 401)


def test_an_error_by_grpc_is_text_of_one_line(box: Box) -> None:
    speech = Speech(box, web=True)
    answer = speech.post(STAT, speech.body(STAT, {"path": "/nö%\r\ngrpc-status: 0"}))
    flags, trailers = answer.content[0], answer.content[5:]
    assert (answer.status_code, flags) == (200, 0x80)
    assert trailers.startswith(b"grpc-status: 5\r\ngrpc-message: ")
    assert trailers.count(b"\r\n") == 2
    assert b"/n%C3%B6%25%0D%0Agrpc-status: 0" in trailers


def test_unknown_users_are_refused(speech: Speech) -> None:
    for method in (STAT, START):
        with pytest.raises(Refused) as refused:
            speech.exchange(method, {}, authorization="Basic " + base64.b64encode(b"nobody-here:").decode())
        assert refused.value.code == "unauthenticated"


def test_the_clients_time_is_the_commands(speech: Speech) -> None:
    headers = {"grpc_timeout": "700m"} if speech.web else {"connect_timeout_ms": "700"}
    with pytest.raises(Refused) as refused:
        speech.exchange(START, {"process": {"cmd": "/bin/sleep", "args": ["977"]}, "tag": "late"}, **headers)
    assert refused.value.code == "deadline_exceeded"
    with pytest.raises(Refused) as refused:
        speech.exchange(CONNECT, {"process": {"tag": "none"}}, **headers)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize("timeout", ["", "1", "S", "1s", "123456789S", "-1S", "1 S"])
def test_times_that_are_none(box: Box, timeout: str) -> None:
    with pytest.raises(Refused) as refused:
        Speech(box, web=True).ask("process.Process/List", grpc_timeout=timeout)
    assert refused.value.code == "invalid_argument"


@pytest.mark.parametrize("timeout", ["1H", "2M", "50S", "50000m", "50000000u"])
def test_units_of_time(box: Box, timeout: str) -> None:
    speech = Speech(box, web=True)
    with speech.open(START, {"process": CAT, "stdin": True}, grpc_timeout=timeout) as (_, events):
        selector = next(events)["event"]["start"]
        speech.ask("process.Process/CloseStdin", {"process": selector})
        assert next(events)["event"]["end"]["exited"]


def test_output_as_it_is_has_no_place_here(speech: Speech) -> None:
    request = {"process": {"cmd": "/bin/echo", "args": ["x"]}}
    with speech.open(START, request, grotte_output_raw="1") as (answer, events):
        assert "grotte-output-raw" not in answer.headers
        next(events)
        assert output(events, b"x\n") == b"x\n"


def test_output_goes_on_where_it_broke(speech: Speech) -> None:
    with speech.open(START, {"process": CAT, "stdin": True}) as (_, events):
        selector = next(events)["event"]["start"]
        speech.ask("process.Process/SendInput", {"process": selector, "input": {"stdin": b"0123456789"}})
        output(events, b"9")
        with speech.open(CONNECT, {"process": selector}, grotte_output_from="stdout=6") as (answer, again):
            assert answer.headers["grotte-output-from"].startswith("stdout=6")
            next(again)
            assert output(again, b"9") == b"6789"
        speech.ask("process.Process/CloseStdin", {"process": selector})


def test_json_in_the_envelopes_of_grpc(box: Box) -> None:
    headers = box.headers | {"content-type": "application/grpc-web+json"}
    answer = box.wire.post(f"/{STAT}", content=pack(b'{"path": "/"}'), headers=headers)
    assert answer.headers["content-type"] == "application/grpc-web+json"
    message, end = EnvelopeReader().feed(answer.content)
    assert json.loads(bytes(message.payload))["entry"]["path"] == "/"
    assert (end.flags, bytes(end.payload)) == (0x80, b"grpc-status: 0\r\n")


def test_grpc_without_a_codec_is_protobuf(box: Box) -> None:
    headers = box.headers | {"content-type": "application/grpc-web"}
    answer = box.wire.post(f"/{STAT}", content=pack(b"\x0a\x01/"), headers=headers)
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert answer.content.endswith(pack(b"grpc-status: 0\r\n", 0x80))


@pytest.mark.parametrize("method", [START, STAT])
def test_a_sandbox_that_is_gone(box: Box, method: str) -> None:
    with box.wire.box() as gone:
        speech = Speech(gone, web=True)
        box.wire.delete(f"/sandboxes/{gone.id}")
        answer = speech.post(method, speech.body(method, {}))
    assert answer.status_code == 502
    assert "was not found" in answer.json()["message"]


@pytest.mark.parametrize("method", KINDS)
def test_only_post(speech: Speech, method: str) -> None:
    box = speech.box
    answer = box.wire.get(f"/{method}?encoding=proto&message=", headers=box.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    wrong = "application/proto" if method in STREAMS else "application/connect+proto"
    refused = box.wire.post(f"/{method}", content=b"", headers=box.headers | {"content-type": wrong})
    check_error(refused, 415)
    assert speech.content_type(method) in refused.headers["accept-post"].split(", ")
