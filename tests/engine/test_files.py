"""`/files`: bytes in, bytes out."""

from __future__ import annotations

import base64
import gzip
import os
import time
import uuid
import zlib
from collections.abc import Iterator

import httpx
import pytest

from grotte._proto.signature import sign
from tests.engine.wire import Box, Wire, check_error


@pytest.fixture
def path() -> str:
    return f"/home/user/{uuid.uuid4().hex}/file.txt"


def multipart(*parts: tuple[str, bytes], name: str = "file") -> tuple[bytes, str]:
    """A form with file names exactly as given."""
    body = b"".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: text/plain\r\n\r\n".encode()
        + data
        + b"\r\n"
        for filename, data in parts
    )
    return body + b"--B--\r\n", "multipart/form-data; boundary=B"


# -- uploads -----------------------------------------------------------------------------------------------------


def test_upload_of_a_form(box: Box, path: str) -> None:
    body, kind = multipart(("ignored", b"hello"))
    headers = box.headers | {"content-type": kind}
    answer = box.wire.post("/files", params={"path": path}, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json() == [{"path": path, "name": "file.txt", "type": "file"}]
    entry = box.fs("Stat", path=path).json()["entry"]
    assert (entry["owner"], entry["permissions"], entry["size"]) == ("user", "-rw-r--r--", "5")
    assert box.fs("Stat", path=os.path.dirname(path)).json()["entry"]["permissions"] == "drwxr-xr-x"


def test_upload_of_several_files_by_their_names(box: Box) -> None:
    mark = uuid.uuid4().hex
    body, kind = multipart((f"{mark}/ä b", b"1"), (f"/tmp/{mark}/%22q", b"2"), (f"~/{mark}/c", b""))
    answer = box.wire.post("/files", content=body, headers=box.headers | {"content-type": kind})
    written = [item["path"] for item in answer.json()]
    assert written == [f"/home/user/{mark}/ä b", f"/tmp/{mark}/%22q", f"/home/user/{mark}/c"]
    assert [box.get_file(item).content for item in written] == [b"1", b"2", b""]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=utf-8''na%C3%AFve%20x", "naïve x"),
        ("filename=plain; filename*=UTF-8'en'star", "star"),
        ("filename=plain; filename*=klingon''star", "plain"),
    ],
)
def test_file_names_in_another_notation(box: Box, parameters: str, name: str) -> None:
    body = f"--B\r\nContent-Disposition: form-data; name=file; {parameters}\r\n\r\nx\r\n--B--\r\n".encode()
    answer = box.wire.post("/files", content=body, headers=box.headers | {"content-type": multipart()[1]})
    assert answer.json() == [{"path": f"/home/user/{name}", "name": name, "type": "file"}]


def test_other_parts_are_skipped(box: Box) -> None:
    body, kind = multipart(("a", b"1"), name="other")
    answer = box.wire.post("/files", content=body, headers=box.headers | {"content-type": kind})
    assert (answer.status_code, answer.json()) == (200, [])


def test_upload_of_bytes(box: Box, path: str) -> None:
    data = os.urandom(3_000_000)
    assert box.put_file(path, data).json() == [{"path": path, "name": "file.txt", "type": "file"}]
    assert box.get_file(path, accept_encoding="identity").content == data
    assert box.put_file(path, b"short").status_code == 200
    assert box.get_file(path).content == b"short"


def test_upload_of_a_stream(box: Box, path: str) -> None:
    headers = box.headers | {"content-type": "application/octet-stream"}
    pieces = (bytes([n]) * 100_000 for n in range(20))
    assert box.wire.post("/files", params={"path": path}, content=pieces, headers=headers).status_code == 200
    assert len(box.get_file(path).content) == 2_000_000


def test_upload_of_gzip(box: Box, path: str) -> None:
    data = b"abc" * 1_000_000
    two_members = gzip.compress(data) + gzip.compress(b"more")
    assert box.put_file(path, two_members, content_encoding="gzip").status_code == 200
    assert box.get_file(path).content == data + b"more"
    body, kind = multipart(("x", data))
    headers = box.headers | {"content-type": kind, "content-encoding": "gzip"}
    assert (
        box.wire.post("/files", params={"path": path}, content=gzip.compress(body), headers=headers).status_code == 200
    )
    assert box.get_file(path).content == data


@pytest.mark.parametrize("data", [b"", b"nonsense", gzip.compress(b"abc" * 1000)[:-5], b"\x1f\x8b\x08"])
def test_upload_of_broken_gzip_changes_nothing(box: Box, path: str, data: bytes) -> None:
    box.put_file(path, b"before")
    check_error(box.put_file(path, data, content_encoding="gzip"), 400)
    assert box.get_file(path).content == b"before"


def test_upload_with_metadata(box: Box, path: str) -> None:
    answer = box.put_file(path, b"x", x_metadata_Color="green blue")
    if answer.status_code == 200:
        assert answer.json()[0]["metadata"] == {"color": "green blue"}
        assert box.fs("Stat", path=path).json()["entry"]["metadata"] == {"color": "green blue"}
        assert "metadata" not in box.put_file(path, b"y").json()[0]
        assert "metadata" not in box.fs("Stat", path=path).json()["entry"]
    check_error(box.put_file(path, b"x", **{"x-metadata-" + "k" * 247: "v"}), 400)
    check_error(box.put_file(path, b"x", x_metadata_k="v" * 4096), 400)
    check_error(box.put_file(path, b"x", **{"x-metadata-": "v"}), 400)


@pytest.mark.parametrize(
    ("params", "headers", "body"),
    [
        ({}, {"content-type": "application/octet-stream"}, b"x"),
        ({"path": ""}, {"content-type": "application/octet-stream"}, b"x"),
        ({"path": "/tmp"}, {"content-type": "application/octet-stream"}, b"x"),
        ({"path": "/tmp/a\0b"}, {"content-type": "application/octet-stream"}, b"x"),
        ({"path": "~bob/x"}, {"content-type": "application/octet-stream"}, b"x"),
        ({"path": "/tmp/x"}, {"content-type": "application/octet-stream", "content-encoding": "br"}, b"x"),
        ({"path": "/tmp/x"}, {"content-type": "text/plain"}, b"x"),
        ({"path": "/tmp/x"}, {}, b"x"),
        ({"path": "/tmp/x"}, {"content-type": "multipart/form-data"}, b"x"),
        ({"path": "/tmp/x"}, {"content-type": "multipart/form-data; boundary=B"}, b"nonsense"),
        ({"path": "/tmp/x"}, {"content-type": multipart()[1]}, multipart(("a", b"1"))[0][:-8]),
        ({"path": "/tmp/x"}, {"content-type": multipart()[1]}, multipart(("a", b"1"), ("b", b"2"))[0]),
        ({}, {"content-type": multipart()[1]}, multipart(("/tmp/x", b"1"), ("/tmp/./x", b"2"))[0]),
        ({}, {"content-type": multipart()[1]}, multipart(("", b"1"))[0]),
        (
            {},
            {"content-type": multipart()[1]},
            b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n1\r\n--B--\r\n',
        ),
        ({}, {"content-type": multipart()[1]}, b"--B\r\nX: " + b"y" * 100_000 + b"\r\n\r\n1\r\n--B--\r\n"),
    ],
)
def test_upload_refuses(box: Box, params: dict[str, str], headers: dict[str, str], body: bytes) -> None:
    check_error(box.wire.post("/files", params=params, content=body, headers=box.headers | headers), 400)


@pytest.mark.parametrize(
    ("meanwhile", "status", "reason"), [("rm -rf", 500, "its directory was removed"), ("mkdir -p", 400, "directory")]
)
def test_a_place_that_is_lost_during_the_upload(box: Box, path: str, meanwhile: str, status: int, reason: str) -> None:
    target = os.path.dirname(path) if meanwhile == "rm -rf" else path

    def pieces() -> Iterator[bytes]:
        yield bytes(2_000_000)
        with box.apart() as other:
            other.sh(f"until ls {os.path.dirname(path)}/.grotte.*; do sleep 0.01; done; {meanwhile} {target}")
        yield b"more"

    headers = box.headers | {"content-type": "application/octet-stream"}
    with box.apart() as mine:
        answer = mine.wire.post("/files", params={"path": path}, content=pieces(), headers=headers)
    assert reason in check_error(answer, status)["message"]
    assert b".grotte" not in box.sh(f"ls -a {os.path.dirname(path)}").stdout


def test_upload_to_where_no_file_can_be(box: Box, path: str) -> None:
    box.put_file(path, b"")
    for impossible in (f"{path}/below", f"{path}/deep/below", "/proc/new"):
        assert impossible in check_error(box.put_file(impossible, b"x"), 500)["message"]


def test_a_refused_form_leaves_no_file(box: Box) -> None:
    mark = uuid.uuid4().hex
    body, kind = multipart((f"/tmp/{mark}/a", b"1"), ("/tmp", b"2"))
    check_error(box.wire.post("/files", content=body, headers=box.headers | {"content-type": kind}), 400)
    assert box.fs("ListDir", path=f"/tmp/{mark}").json().get("entries", []) == []


def test_users_of_uploads(box: Box, path: str) -> None:
    headers = box.headers | {"content-type": "application/octet-stream"}
    answer = box.wire.post("/files", params={"path": "mine", "username": "root"}, content=b"x", headers=headers)
    assert answer.json()[0]["path"] == "/root/mine"
    check_error(box.wire.post("/files", params={"path": path, "username": "bob"}, content=b"x", headers=headers), 401)
    check_error(box.wire.get("/files", params={"path": path, "username": "bob"}, headers=box.headers), 401)
    bob, root = ("Basic " + base64.b64encode(name).decode() for name in (b"bob:", b"root:"))
    check_error(box.get_file("mine", authorization=bob), 401)
    assert box.get_file("mine", authorization=root).content == b"x"


# -- downloads ---------------------------------------------------------------------------------------------------


def test_download(box: Box, path: str) -> None:
    box.put_file(path, "héllo".encode())
    answer = box.get_file(path, accept_encoding="identity")
    assert answer.text == "héllo"
    assert answer.headers["content-length"] == "6"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-disposition"] == "inline; filename=file.txt"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["accept-ranges"] == "bytes"
    assert "last-modified" in answer.headers


def test_download_compressed(box: Box, path: str) -> None:
    data = b"0123456789" * 300_000
    box.put_file(path, data)
    for accepted in ("gzip, deflate", "gzip", "br;q=1.0, gzip;q=0.5", "*"):
        answer = box.get_file(path, accept_encoding=accepted)
        assert answer.headers["content-encoding"] == "gzip"
        assert "content-length" not in answer.headers
        assert answer.content == data
    for refused in ("identity", "gzip;q=0", "br", "", "gzip;q=0.5, identity"):
        assert "content-encoding" not in box.get_file(path, accept_encoding=refused).headers
    with box.wire.stream(
        "GET", "/files", params={"path": path}, headers=box.headers | {"accept-encoding": "gzip"}
    ) as raw:
        assert zlib.decompress(b"".join(raw.iter_raw()), 31) == data


@pytest.mark.parametrize(
    ("asked", "status", "expected", "shown"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-20", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        (f"bytes={10**25}-", 416, None, "bytes */10"),
        (f"bytes=8-{10**25}", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-4", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(box: Box, path: str, asked: str, status: int, expected: bytes | None, shown: str | None) -> None:
    box.put_file(path, b"0123456789")
    answer = box.get_file(path, range=asked, accept_encoding="gzip, identity")
    assert answer.status_code == status
    assert answer.headers.get("content-range") == shown
    if expected is None:
        check_error(answer, status)
    else:
        assert answer.content == expected
        assert "content-encoding" not in answer.headers


def test_conditions(box: Box, path: str) -> None:
    box.put_file(path, b"0123456789")
    modified = box.get_file(path).headers["last-modified"]
    assert box.get_file(path, if_modified_since=modified).status_code == 304
    old = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert box.get_file(path, if_modified_since=old).status_code == 200
    assert box.get_file(path, if_none_match="*").status_code == 304
    assert box.get_file(path, if_none_match='"x"', if_modified_since=modified).status_code == 200
    whole = {"accept_encoding": "identity"}
    assert box.get_file(path, if_match="*", if_unmodified_since=old, **whole).status_code == 200
    check_error(box.get_file(path, if_match='"x"', **whole), 412)
    assert box.get_file(path, if_unmodified_since=modified, **whole).status_code == 200
    check_error(box.get_file(path, if_unmodified_since=old, range="bytes=0-0"), 412)
    assert box.get_file(path, range="bytes=0-0", if_range=modified).status_code == 206
    assert box.get_file(path, range="bytes=0-0", if_range=old).status_code == 200
    assert box.get_file(path, range="bytes=0-0", if_modified_since=modified).status_code == 304
    check_error(box.get_file(path, range="bytes=0-0", accept_encoding="gzip, identity;q=0"), 406)
    check_error(box.get_file(path, accept_encoding="br, *;q=0"), 406)


def test_names_in_the_disposition(box: Box) -> None:
    for name, shown in (
        ("a b.txt", 'inline; filename="a b.txt"'),
        ('q".txt', 'inline; filename="q\\".txt"'),
        ("ü.txt", "inline; filename*=utf-8''%C3%BC.txt"),
    ):
        box.put_file(f"/tmp/{name}", b"")
        assert box.get_file(f"/tmp/{name}").headers["content-disposition"] == shown


def test_kinds_of_content(box: Box) -> None:
    box.put_file("/tmp/x.json", b"{}")
    box.put_file("/tmp/noext", b"plain text")
    box.put_file("/tmp/noext.bin9", b"\0\1\2")
    box.put_file("/tmp/x.txt.gz", b"packed")
    assert box.get_file("/tmp/x.json").headers["content-type"] == "application/json"
    assert box.get_file("/tmp/x.txt.gz").headers["content-type"] == "application/gzip"
    assert box.get_file("/tmp/noext", accept_encoding="identity").headers["content-type"].startswith("text/plain")
    assert box.get_file("/tmp/noext", accept_encoding="gzip").headers["content-type"] == "application/octet-stream"
    assert box.get_file("/tmp/noext.bin9").headers["content-type"] == "application/octet-stream"


def test_download_refuses(box: Box) -> None:
    assert "/nope" in check_error(box.get_file("/nope"), 404)["message"]
    check_error(box.get_file("/tmp"), 400)
    check_error(box.get_file("/dev/null"), 400)
    check_error(box.get_file("~bob/x"), 400)
    check_error(box.get_file("/a\0b"), 400)
    check_error(box.wire.get("/files?path=%FF%FE", headers=box.headers), 400)
    box.sh("mkfifo /tmp/fifo")
    check_error(box.get_file("/tmp/fifo"), 400)
    for method in ("PUT", "DELETE", "PATCH"):
        check_error(box.wire.request(method, "/files", headers=box.headers), 405)


def test_links_are_followed(box: Box, path: str) -> None:
    box.put_file(path, b"real")
    box.sh(f"ln -sf {path} /tmp/link")
    assert box.get_file("/tmp/link").content == b"real"
    assert box.put_file("/tmp/link", b"new").json() == [{"path": "/tmp/link", "name": "link", "type": "file"}]
    assert box.get_file(path).content == b"new"


def test_large_files_both_ways(box: Box, path: str) -> None:
    data = os.urandom(1 << 20) * 40
    assert box.put_file(path, data).status_code == 200
    assert box.get_file(path, accept_encoding="identity").content == data


def test_a_download_that_is_given_up_leaves_the_engine_well(box: Box, path: str) -> None:
    box.put_file(path, bytes(20_000_000))
    for _ in range(5):
        with box.wire.stream("GET", "/files", params={"path": path}, headers=box.headers) as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
        if answer.http_version == "HTTP/2":
            break  # this client never resets a stream: its connection stays full
    with Wire(str(box.wire.base_url), None) as client:
        assert Box(client, box.answer).sh("echo well").stdout == b"well\n"


# -- signatures --------------------------------------------------------------------------------------------------


def signed(box: Box, path: str, operation: str, expires: int | None = None, username: str = "") -> dict[str, str]:
    assert box.token is not None
    assert operation in ("read", "write")
    signature = sign(path, "read" if operation == "read" else "write", username, box.token, expires)
    query = {"path": path, "username": username, "signature": signature}
    if expires is not None:
        query["signature_expiration"] = str(expires)
    return {name: value for name, value in query.items() if value}


@pytest.mark.parametrize("routed", [True, False])
def test_signed_urls(box: Box, path: str, routed: bool) -> None:
    box.put_file(path, b"signed")
    box.put_file("/root/x", b"root's")
    headers = {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"} if routed else {}
    later = int(time.time()) + 60
    assert box.wire.get("/files", params=signed(box, path, "read"), headers=headers).content == b"signed"
    assert box.wire.get("/files", params=signed(box, path, "read", later), headers=headers).content == b"signed"
    as_root = signed(box, "x", "read", username="root")
    assert box.wire.get("/files", params=as_root, headers=headers).content == b"root's"
    octets = headers | {"content-type": "application/octet-stream"}
    put = box.wire.post("/files", params=signed(box, path, "write"), content=b"new", headers=octets)
    assert put.status_code == 200
    body, kind = multipart((path, b"by name"))
    put = box.wire.post(
        "/files", params=signed(box, "", "write"), content=body, headers=headers | {"content-type": kind}
    )
    assert put.json()[0]["path"] == path


def test_a_signature_lets_nobody_choose_a_user(box: Box) -> None:
    # Door: a link without a user, and a user beside it that nobody signed.
    box.put_file("/root/x", b"root's")
    headers = {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"}
    as_root = {"authorization": f"Basic {base64.b64encode(b'root:').decode()}"}
    check_error(box.wire.get("/files", params=signed(box, "x", "read"), headers=headers | as_root), 404)
    octets = headers | as_root | {"content-type": "application/octet-stream"}
    (written,) = box.wire.post("/files", params=signed(box, "mine", "write"), content=b"", headers=octets).json()
    assert box.fs("Stat", path=written["path"]).json()["entry"]["owner"] == "user"


def test_signatures_of_what_no_file_is_called(box: Box) -> None:
    # Door: a long path, hashed anew with the token of every sandbox of the engine.
    assert box.wire.get("/files", params=signed(box, "x" * 10_000, "read")).status_code == 400
    check_error(box.wire.get("/files", params=signed(box, "x" * 20_000, "read")), 401)


@pytest.mark.parametrize("routed", [True, False])
def test_signatures_that_do_not_fit(box: Box, path: str, routed: bool) -> None:
    box.put_file(path, b"signed")
    headers = {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"} if routed else {}
    good = signed(box, path, "read")
    past = signed(box, path, "read", int(time.time()) - 10)
    assert "expired" in check_error(box.wire.get("/files", params=past, headers=headers), 401)["message"]
    for wrong in (
        good | {"path": "/etc/hosts"},
        good | {"username": "root"},
        good | {"signature": "v1_nope"},
        good | {"signature": ""},
        good | {"signature_expiration": "9999999999"},
        good | {"signature_expiration": "x"},
        signed(box, path, "write"),
    ):
        check_error(box.wire.get("/files", params=wrong, headers=headers), 401)
    octets = headers | {"content-type": "application/octet-stream"}
    check_error(box.wire.post("/files", params=good, content=b"x", headers=octets), 401)
    if routed:
        check_error(box.wire.get("/files", params={"path": path}, headers=headers), 401)
        with_token = headers | {"x-access-token": "wrong"}
        check_error(box.wire.get("/files", params=good, headers=with_token), 401)


def test_a_full_disk(box: Box) -> None:
    """`/run` is a small file system of its own."""
    body = check_error(box.put_file("/run/big", bytes(70_000_000)), 507)
    assert "space" in body["message"]
    assert box.fs("Stat", path="/run/big").status_code == 404
    assert box.put_file("/run/small", bytes(1_000_000)).status_code == 200
    box.fs("Remove", path="/run/small")


# -- files that become one ---------------------------------------------------------------------------------------


def composed(box: Box, sources: object, destination: object, **more: object) -> httpx.Response:
    body = {"source_paths": sources, "destination": destination} | more
    return box.wire.post("/files/compose", json=body, headers=box.headers)


def test_composed_files(box: Box, path: str) -> None:
    large = os.urandom(3_000_000)
    for name, data in (("a", b"one-"), ("b", large), ("c", b"")):
        box.put_file(f"{path}.{name}", data)
    answer = composed(box, [f"{path}.a", f"{path}.b", f"{path}.a", f"{path}.c"], f"{path}-new/out.txt")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"path": f"{path}-new/out.txt", "name": "out.txt", "type": "file"}
    assert box.get_file(f"{path}-new/out.txt").content == b"one-" + large + b"one-"
    entry = box.fs("Stat", path=f"{path}-new/out.txt").json()["entry"]
    assert (entry["owner"], entry["permissions"]) == ("user", "-rw-r--r--")
    assert box.fs("ListDir", path=os.path.dirname(path)).json()["entries"][0]["name"] == "file.txt-new"
    assert len(box.fs("ListDir", path=os.path.dirname(path)).json()["entries"]) == 1


def test_composed_files_of_a_user(box: Box) -> None:
    mark = uuid.uuid4().hex
    box.put_file(f"/root/{mark}", b"x")
    assert composed(box, [mark], f"~/{mark}-out", username="root", ignored=1).json()["path"] == f"/root/{mark}-out"
    assert box.fs("Stat", path=f"/root/{mark}-out").json()["entry"]["owner"] == "root"
    check_error(composed(box, [f"/root/{mark}-out"], "/tmp/x", username="bob"), 401)
    check_error(box.wire.post("/files/compose", json={}, headers=box.headers | {"x-access-token": "wrong"}), 401)


@pytest.mark.parametrize(
    ("sources", "destination", "status"),
    [
        (["KEEP", "/tmp/nope"], "NEW", 404),
        (["KEEP", "/tmp"], "NEW", 400),
        (["KEEP", "/dev/null"], "NEW", 400),
        (["KEEP", "~bob/x"], "NEW", 400),
        (["KEEP", "a\0b"], "NEW", 400),
        (["KEEP"], "/tmp", 400),
        (["KEEP"], "~bob/x", 400),
        (["KEEP"], "KEEP", 400),
        (["KEEP"], "LINK", 400),
        (["LINK"], "KEEP", 400),
        (["KEEP"], "", 400),
        (["KEEP"], 5, 400),
        (["KEEP"], None, 400),
        ([], "NEW", 400),
        ([5], "NEW", 400),
        ("KEEP", "NEW", 400),
        (["BIG"], "/run/big", 507),
    ],
)
def test_a_refused_composition_changes_nothing(
    box: Box, path: str, sources: object, destination: object, status: int
) -> None:
    names = {"KEEP": path, "LINK": f"{path}.link", "NEW": f"{path}.new", "BIG": f"{path}.big"}
    box.put_file(path, b"kept")
    box.sh(f"ln -sf {path} {path}.link; test {status} = 400 || truncate -s 70M {path}.big")
    if isinstance(sources, list):
        sources = [names.get(item, item) for item in sources]
    answer = composed(
        box, sources, names.get(destination, destination) if isinstance(destination, str) else destination
    )
    check_error(answer, status)
    assert box.get_file(path).content == b"kept"
    assert box.get_file(names["LINK"]).content == b"kept"
    for missing in (names["NEW"], "/run/big"):
        assert box.fs("Stat", path=missing).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"source_paths":["\xff"],"destination":"x"}'])
def test_a_composition_that_is_none(box: Box, body: bytes) -> None:
    check_error(box.wire.post("/files/compose", content=body, headers=box.headers), 400)
