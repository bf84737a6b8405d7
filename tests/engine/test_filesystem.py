"""`filesystem.Filesystem`, as clients see it."""

from __future__ import annotations

import base64
import uuid

import pytest

from tests.engine.wire import Box, check_rpc_error


@pytest.fixture
def home(box: Box) -> str:
    """A fresh directory."""
    path = f"/home/user/{uuid.uuid4().hex}"
    assert box.fs("MakeDir", path=path).status_code == 200
    return path


def names(box: Box, path: str, depth: int = 0) -> list[str]:
    entries = box.fs("ListDir", path=path, depth=depth).json().get("entries", [])
    return [entry["path"] for entry in entries]


def test_stat_of_a_file(box: Box, home: str) -> None:
    box.put_file(f"{home}/a b.txt", b"12345")
    entry = box.fs("Stat", path=f"{home}/a b.txt").json()["entry"]
    assert entry.pop("modifiedTime").endswith("Z")
    assert entry == {
        "name": "a b.txt",
        "type": "FILE_TYPE_FILE",
        "path": f"{home}/a b.txt",
        "size": "5",
        "mode": 0o644,
        "permissions": "-rw-r--r--",
        "owner": "user",
        "group": "user",
    }


@pytest.mark.parametrize(
    ("seconds", "shown", "header"),
    [
        (10**12, "9999-12-31T23:59:59Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-(10**12), "0001-01-01T00:00:00Z", "Mon, 01 Jan 0001 00:00:00 GMT"),
        (-(3 * 10**10), "1019-05-04T18:40:00Z", "Tue, 04 May 1019 18:40:00 GMT"),
    ],
)
def test_times_beyond_the_calendar(box: Box, seconds: int, shown: str, header: str) -> None:
    path = f"/dev/shm/{uuid.uuid4().hex}"
    box.put_file(path, b"")
    box.sh(f"touch -d @{seconds} {path}")
    assert box.fs("Stat", path=path).json()["entry"]["modifiedTime"] == shown
    assert box.get_file(path).headers["last-modified"] == header


def test_stat_of_directories_and_links(box: Box, home: str) -> None:
    tmp = box.fs("Stat", path="/tmp").json()["entry"]
    assert (tmp["type"], tmp["permissions"]) == ("FILE_TYPE_DIRECTORY", "dtrwxrwxrwx")
    box.sh(f"cd {home}; ln -s /etc/hosts file; ln -s /tmp dir; ln -s /nope broken; mkfifo pipe")
    link = box.fs("Stat", path=f"{home}/file").json()["entry"]
    assert (link["type"], link["symlinkTarget"], link["isSymlink"]) == ("FILE_TYPE_FILE", "/etc/hosts", True)
    assert link["permissions"] == "Lrwxrwxrwx"
    assert box.fs("Stat", path=f"{home}/dir").json()["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    broken = box.fs("Stat", path=f"{home}/broken").json()["entry"]
    assert broken.get("type", "FILE_TYPE_UNSPECIFIED") == "FILE_TYPE_UNSPECIFIED"
    assert "mode" not in broken
    pipe = box.fs("Stat", path=f"{home}/pipe").json()["entry"]
    assert pipe.get("type", "FILE_TYPE_UNSPECIFIED") == "FILE_TYPE_UNSPECIFIED"
    assert pipe["permissions"].startswith("p")


def test_paths(box: Box) -> None:
    for path in ("", "~", "~/", "."):
        assert box.fs("Stat", path=path).json()["entry"]["path"].rstrip("/.") == "/home/user"
    check_rpc_error(box.fs("Stat", path="~bob"), 400, "invalid_argument")
    check_rpc_error(box.fs("Stat", path="/a\0b"), 400, "invalid_argument")
    check_rpc_error(box.fs("Stat", path="/nope"), 404, "not_found")
    root = {"authorization": "Basic " + base64.b64encode(b"root:").decode()}
    entry = box.rpc("filesystem.Filesystem/Stat", {"path": "~"}, **root).json()["entry"]
    assert entry["path"] == "/root"


def test_list(box: Box, home: str) -> None:
    for path in ("b/c/d", "a"):
        box.fs("MakeDir", path=f"{home}/{path}")
    box.put_file(f"{home}/b/file", b"")
    assert names(box, home) == [f"{home}/a", f"{home}/b"]
    assert names(box, home, 1) == names(box, home)
    assert names(box, home, 2) == [f"{home}/a", f"{home}/b", f"{home}/b/c", f"{home}/b/file"]
    assert f"{home}/b/c/d" in names(box, home, 9)
    assert box.fs("ListDir", path=f"{home}/a").json() == {}
    box.sh(f"ln -s {home}/b {home}/link")
    assert names(box, f"{home}/link") == [f"{home}/link/c", f"{home}/link/file"]
    check_rpc_error(box.fs("ListDir", path=f"{home}/nope"), 404, "not_found")
    check_rpc_error(box.fs("ListDir", path=f"{home}/b/file"), 400, "invalid_argument")
    check_rpc_error(box.fs("ListDir", path=home, depth=-1), 400, "invalid_argument")


def test_make_dir(box: Box, home: str) -> None:
    entry = box.fs("MakeDir", path=f"{home}/x/y").json()["entry"]
    assert (entry["path"], entry["permissions"], entry["owner"]) == (f"{home}/x/y", "drwxr-xr-x", "user")
    check_rpc_error(box.fs("MakeDir", path=f"{home}/x"), 409, "already_exists")
    box.put_file(f"{home}/file", b"")
    check_rpc_error(box.fs("MakeDir", path=f"{home}/file"), 400, "invalid_argument")
    check_rpc_error(box.fs("MakeDir", path=f"{home}/file/below"), 500, "internal")


def test_move(box: Box, home: str) -> None:
    box.put_file(f"{home}/a", b"new")
    box.put_file(f"{home}/b", b"old")
    entry = box.fs("Move", source=f"{home}/a", destination=f"{home}/b").json()["entry"]
    assert (entry["name"], entry["path"]) == ("b", f"{home}/b")
    assert box.get_file(f"{home}/b").content == b"new"
    assert box.fs("Move", source=f"{home}/b", destination=f"{home}/deep/er/c").status_code == 200
    check_rpc_error(box.fs("Move", source=f"{home}/b", destination=f"{home}/c"), 404, "not_found")
    in_the_way = box.fs("Move", source=f"{home}/deep", destination=f"{home}/deep/er/c/d")
    assert f"{home}/deep/er/c/d" in check_rpc_error(in_the_way, 500, "internal")


def test_remove(box: Box, home: str) -> None:
    box.put_file(f"{home}/d/e/f", b"")
    assert box.fs("Remove", path=f"{home}/d").json() == {}
    assert names(box, home) == []
    assert box.fs("Remove", path=f"{home}/d").json() == {}
