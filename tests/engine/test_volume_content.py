"""The content of volumes over HTTP: every call, every refusal, and no way out of a volume."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.engine.test_volumes import Volume, mounted, volume
from tests.engine.wire import Wire, check_error

__all__ = ["volume"]
STAT = {"name", "type", "path", "size", "mode", "uid", "gid", "atime", "mtime", "ctime"}


def test_files(volume: Volume) -> None:
    made = volume.write("/a.bin", b"hello")
    assert set(made) == STAT
    wanted = {"name": "a.bin", "type": "file", "path": "/a.bin", "size": 5, "mode": 0o644, "uid": 1000, "gid": 1000}
    assert {name: made[name] for name in wanted} == wanted
    for moment in ("atime", "mtime", "ctime"):
        assert datetime.fromisoformat(made[moment]).tzinfo is not None
    answer = volume.call("GET", "file", "/a.bin")
    assert (answer.content, answer.headers["content-type"]) == (b"hello", "application/octet-stream")
    again = volume.call("GET", "path", "a.bin").json()
    assert {name: again[name] for name in wanted} == wanted
    assert again["mtime"] == made["mtime"]
    assert volume.call("DELETE", "path", "/a.bin").status_code == 204
    for method, what in (("GET", "path"), ("DELETE", "path"), ("GET", "file"), ("PATCH", "path")):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        check_error(volume.call(method, what, "/a.bin", **body), 404)


def test_large_files_both_ways(volume: Volume) -> None:
    data = bytes(range(256)) * 100_000
    assert volume.write("/big", data)["size"] == len(data)
    assert volume.read("/big") == data
    assert volume.write("/empty", b"")["size"] == 0
    assert volume.read("/empty") == b""


def test_what_is_there_is_replaced_only_when_asked(volume: Volume) -> None:
    volume.write("/f", b"first")
    check_error(volume.call("PUT", "file", "/f", content=b"second"), 409)
    assert volume.read("/f") == b"first"
    assert volume.write("/f", b"third", force="true")["size"] == 5
    assert volume.read("/f") == b"third"
    check_error(volume.call("PUT", "file", "/no/parent", content=b"x"), 404)


def test_owner_and_mode(volume: Volume) -> None:
    made = volume.write("/f", b"", uid=5, gid=6, mode=0o600)
    assert (made["uid"], made["gid"], made["mode"]) == (5, 6, 0o600)
    changed = volume.call("PATCH", "path", "/f", json={"uid": 7, "mode": 0o4755}).json()
    assert (changed["uid"], changed["gid"], changed["mode"]) == (7, 6, 0o4755)
    unchanged = volume.call("PATCH", "path", "/f", json={}).json()
    assert unchanged["mode"] == 0o4755
    for fields in ({"uid": -1}, {"uid": 65535}, {"mode": 0o10000}, {"gid": "x"}, {"uid": True}):
        check_error(volume.call("PATCH", "path", "/f", json=fields), 400)
    for query in ({"uid": "x"}, {"mode": 4096}, {"gid": -1}, {"force": "perhaps"}):
        check_error(volume.call("PUT", "file", "/g", content=b"", **query), 400)


def test_directories(volume: Volume) -> None:
    made = volume.call("POST", "dir", "/d", mode=0o700, uid=3)
    assert made.status_code == 201
    stat = made.json()
    assert (stat["type"], stat["path"], stat["mode"], stat["uid"]) == ("directory", "/d", 0o700, 3)
    check_error(volume.call("POST", "dir", "/d"), 409)
    check_error(volume.call("POST", "dir", "/x/y/z"), 404)
    assert volume.call("POST", "dir", "/x/y/z", force="true").status_code == 201
    assert volume.call("POST", "dir", "/x/y/z", force="true").status_code == 201
    volume.write("/x/f", b"1")
    check_error(volume.call("POST", "dir", "/x/f", force="true"), 404)
    check_error(volume.call("GET", "dir", "/x/f"), 404)
    check_error(volume.call("PUT", "file", "/x", content=b"", force="true"), 400)
    check_error(volume.call("GET", "file", "/x"), 400)
    assert volume.call("DELETE", "path", "/x").status_code == 204
    check_error(volume.call("GET", "dir", "/x"), 404)


def paths(volume: Volume, path: str, **query: Any) -> list[str]:
    answer = volume.call("GET", "dir", path, **query)
    assert answer.status_code == 200, answer.text
    return [entry["path"] for entry in answer.json()]


def test_lists(volume: Volume) -> None:
    for name in ("/b/deep/er", "/a"):
        volume.call("POST", "dir", name, force="true")
    volume.write("/b/f", b"")
    assert paths(volume, "/") == paths(volume, "") == ["/a", "/b"]
    assert paths(volume, "/b") == ["/b/deep", "/b/f"]
    assert sorted(paths(volume, "/", depth=2)) == ["/a", "/b", "/b/deep", "/b/f"]
    assert len(paths(volume, "/", depth=64)) == 5
    for depth in ("-1", "x", "65"):
        check_error(volume.call("GET", "dir", "/", depth=depth), 400)
    root = volume.call("GET", "path", "/").json()
    assert (root["name"], root["path"], root["type"]) == ("/", "/", "directory")


@pytest.mark.parametrize("path", ["/..", "../x", "/a/../../x", "/\0", "a/\0"])
def test_paths_that_lead_out_by_name(volume: Volume, path: str) -> None:
    for method, what in (
        ("GET", "path"),
        ("GET", "file"),
        ("PUT", "file"),
        ("POST", "dir"),
        ("GET", "dir"),
        ("DELETE", "path"),
    ):
        check_error(volume.call(method, what, path), 400)


def test_links_that_lead_out(wire: Wire, volume: Volume) -> None:
    with wire.box(**mounted(volume)) as box:
        box.sh(
            "cd /mnt/shared; ln -s /etc out; ln -s ../.. up; ln -s /proc/self/root magic; "
            "ln -s f in; echo 1 > f; ln -s l l"
        )
    for name in ("out", "up", "magic"):
        link = volume.call("GET", "path", f"/{name}").json()
        assert link["type"] == "symlink"
        assert link["target"]
        for method, what, path in (
            ("GET", "file", f"/{name}/passwd"),
            ("PUT", "file", f"/{name}/new"),
            ("POST", "dir", f"/{name}/new"),
            ("GET", "dir", f"/{name}"),
            ("DELETE", "path", f"/{name}/passwd"),
        ):
            check_error(volume.call(method, what, path), 400)
        check_error(volume.call("PATCH", "path", f"/{name}", json={"mode": 0o777}), 400)
    assert volume.read("/in") == b"1\n"
    check_error(volume.call("GET", "file", "/l"), 400)
    assert sorted(paths(volume, "/")) == ["/f", "/in", "/l", "/magic", "/out", "/up"]
    assert volume.call("DELETE", "path", "/in").status_code == 204
    assert volume.read("/f") == b"1\n"


def test_strange_files(wire: Wire, volume: Volume) -> None:
    with wire.box(**mounted(volume)) as box:
        box.sh(
            "cd /mnt/shared; mkfifo pipe; python3 -c \"open(b'\\xff', 'w')\"; mkdir -p $(printf 'd/%.0s' $(seq 300))"
        )
    check_error(volume.call("GET", "file", "/pipe"), 400)
    assert volume.call("GET", "path", "/pipe").json()["type"] == "unknown"
    assert [entry["name"] for entry in volume.call("GET", "dir", "/").json()] == ["d", "pipe", "\ufffd"]
    assert volume.call("DELETE", "path", "/d").status_code == 204


def test_the_volume_itself_stays(volume: Volume) -> None:
    for path in ("", "/", "/.", "//"):
        check_error(volume.call("DELETE", "path", path), 400)
        check_error(volume.call("PUT", "file", path, content=b""), 400)


def test_who_may(wire: Wire, volume: Volume) -> None:
    volume.write("/f", b"secret")
    check_error(volume.call("GET", "file", "/f", token="wrong"), 401)
    check_error(wire.get(f"/volumecontent/{volume.id}/file", params={"path": "/f"}), 401)
    check_error(volume.call("GET", "file"), 400)
    check_error(volume.call("POST", "file", "/f"), 405)
    volume.id = "x" * 20
    check_error(volume.call("GET", "file", "/f"), 404)
    volume.id = "%2e%2e"
    check_error(volume.call("GET", "file", "/f"), 404)


def test_an_upload_that_is_given_up_leaves_nothing(volume: Volume) -> None:
    def broken() -> Any:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        volume.call("PUT", "file", "/f", content=broken())
    check_error(volume.call("GET", "path", "/f"), 404)
    assert paths(volume, "/") == []
