"""`filesystem.Filesystem`: watches, on the wire."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.engine.wire import STREAM, Box, Wire, check_rpc_error, pack, unpack


@pytest.fixture
def place(box: Box) -> Iterator[str]:
    box.fs("MakeDir", path="/tmp/watched")
    yield "/tmp/watched"
    box.fs("Remove", path="/tmp/watched")


def watch_dir(box: Box, message: object, **headers: str) -> Any:
    content = pack(json.dumps(message).encode())
    sent = box.headers | STREAM | {name.replace("_", "-"): value for name, value in headers.items()}
    return box.wire.stream("POST", "/filesystem.Filesystem/WatchDir", content=content, headers=sent)


def messages(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    data = b""
    for chunk in answer.iter_raw():
        data += chunk
        while len(data) >= 5 and len(data) >= 5 + (length := struct.unpack(">I", data[1:5])[0]):
            yield json.loads(data[5 : 5 + length])
            data = data[5 + length :]


def watcher(box: Box, **message: object) -> str:
    answer = box.fs("CreateWatcher", **message).json()
    assert set(answer) == {"watcherId"}
    assert re.fullmatch(r"w[a-z0-9]{20}", answer["watcherId"])
    return str(answer["watcherId"])


def test_a_stream_of_events(box: Box, place: str) -> None:
    with watch_dir(box, {"path": place, "recursive": True, "includeEntry": True}) as answer:
        assert answer.headers["content-type"] == "application/connect+json"
        events = messages(answer)
        assert next(events) == {"start": {}}
        with Wire(str(box.wire.base_url), None) as client:
            other = Box(client, box.answer)
            other.sh(f"mkdir {place}/d")
            found = [next(events)["filesystem"]]  # and it is watched as well
            other.sh(f"echo x > {place}/d/f; mv {place}/d/f {place}/g")
        found += [next(events)["filesystem"] for _ in range(4)]
    assert [(event["type"], event["name"]) for event in found] == [
        ("EVENT_TYPE_CREATE", "d"),
        ("EVENT_TYPE_CREATE", "d/f"),
        ("EVENT_TYPE_WRITE", "d/f"),
        ("EVENT_TYPE_RENAME", "d/f"),
        ("EVENT_TYPE_CREATE", "g"),
    ]
    assert found[0]["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert found[4]["entry"]["path"] == f"{place}/g"
    assert found[4]["entry"]["size"] == "2"
    assert "entry" not in found[3]


def test_silence_and_the_deadline(box: Box, place: str) -> None:
    with watch_dir(box, {"path": place}, keepalive_ping_interval="1", connect_timeout_ms="2500") as answer:
        answer.read()
    start, *keepalives, end = unpack(answer.content)
    assert start == {"start": {}}
    assert keepalives
    assert all(message == {"keepalive": {}} for message in keepalives)
    assert end["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/no/such", 404, "not_found"), ("/etc/passwd", 400, "invalid_argument"), ("~bob", 400, "invalid_argument")],
)
def test_what_cannot_be_watched(box: Box, path: str, status: int, code: str) -> None:
    check_rpc_error(box.fs("CreateWatcher", path=path), status, code)
    with watch_dir(box, {"path": path}) as answer:
        answer.read()
    (end,) = unpack(answer.content)
    assert end["error"]["code"] == code


def test_a_watcher_that_is_asked(box: Box, place: str) -> None:
    watched = watcher(box, path=place)
    assert box.fs("GetWatcherEvents", watcherId=watched).json() == {}
    assert box.put_file(f"{place}/new", b"x").status_code == 200
    answer = box.fs("GetWatcherEvents", watcher_id=watched).json()
    assert answer == {
        "events": [{"name": "new", "type": f"EVENT_TYPE_{kind}"} for kind in ("CREATE", "CHMOD", "WRITE")],
    }
    assert box.fs("GetWatcherEvents", watcherId=watched).json() == {}
    assert box.fs("RemoveWatcher", watcherId=watched).json() == {}
    check_rpc_error(box.fs("GetWatcherEvents", watcherId=watched), 404, "not_found")
    check_rpc_error(box.fs("RemoveWatcher", watcherId=watched), 404, "not_found")
    check_rpc_error(box.fs("RemoveWatcher"), 404, "not_found")


def test_paths_start_at_the_home_of_the_user(box: Box) -> None:
    watched = watcher(box, path="")
    box.sh("mkdir ~/fresh; rmdir ~/fresh")
    events = box.fs("GetWatcherEvents", watcherId=watched).json()["events"]
    assert [event["name"] for event in events] == ["fresh", "fresh"]
    box.fs("RemoveWatcher", watcherId=watched)


def test_streams_that_clients_left_are_not_watched_on(box: Box, place: str) -> None:
    for _ in range(260):  # more than a sandbox may have
        with (
            Wire(str(box.wire.base_url), None) as client,
            watch_dir(Box(client, box.answer), {"path": place}) as answer,
        ):
            assert next(messages(answer)) == {"start": {}}
    box.fs("RemoveWatcher", watcherId=watcher(box, path=place))
