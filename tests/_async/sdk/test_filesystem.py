"""`sandbox.filesystem` on the real engine."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grotte import (
    AsyncSandbox,
    AuthenticationException,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    WriteEntry,
)

MIB = 1024 * 1024
ODD_NAMES = ["spaced name", "ümläut-€", 'quo"te', "back\\slash", "new\nline", "per%20cent", "a&b=c;d", "'single'", "--"]


async def test_what_is_written_is_read(sandbox: AsyncSandbox) -> None:
    entry = await sandbox.filesystem.write("/tmp/hello.txt", "wörld")
    assert (entry.name, entry.type, entry.path, entry.size) == ("hello.txt", FileType.FILE, "/tmp/hello.txt", 6)
    assert (entry.mode, entry.permissions, entry.owner, entry.group) == (0o644, "-rw-r--r--", "user", "user")
    assert abs(entry.modified_time - datetime.now(UTC)) < timedelta(minutes=5)
    assert await sandbox.filesystem.read("/tmp/hello.txt") == "wörld"
    assert await sandbox.filesystem.read("/tmp/hello.txt", format="bytes") == "wörld".encode()
    assert sandbox.files is sandbox.filesystem


async def test_text_that_is_no_utf8(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/raw", b"a\xff")
    assert await sandbox.files.read("/tmp/raw") == "a\ufffd"


@pytest.mark.parametrize("size", [0, 1, 300_000, 3 * MIB])
@pytest.mark.parametrize("gzip", [False, True])
async def test_contents_of_every_size(sandbox: AsyncSandbox, size: int, gzip: bool) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    entry = await sandbox.files.write("/tmp/content", content, gzip=gzip)
    assert entry.size == size
    assert await sandbox.files.read("/tmp/content", "bytes", gzip=gzip) == content


async def test_everything_that_can_be_written(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in ("pie", "", "ces"):
            yield piece.encode()

    source = tmp_path / "source"
    source.write_bytes(b"file")
    with source.open("rb") as binary, source.open() as text:
        contents = {
            "str": ("text", "text"),
            "bytearray": (bytearray(b"array"), "array"),
            "memoryview": (memoryview(b"view"), "view"),
            "binary file": (binary, "file"),
            "text file": (text, "file"),
            "BytesIO": (io.BytesIO(b"io"), "io"),
            "StringIO": (io.StringIO("strïng"), "strïng"),
            "list": ([b"a", b"b"], "ab"),
            "generator": ((part for part in (b"c", b"d")), "cd"),
            "async generator": (pieces(), "pieces"),
        }
        for name, (data, expected) in contents.items():
            await sandbox.files.write(f"/tmp/{name}", data)
            assert await sandbox.files.read(f"/tmp/{name}") == expected, name


@pytest.mark.parametrize("data", [None, 3, object(), ["text", 3]])
async def test_what_cannot_be_written(sandbox: AsyncSandbox, data: object) -> None:
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.write("/tmp/x", data)  # type: ignore[arg-type]  # that is the point
    assert not await sandbox.files.exists("/tmp/x")


async def test_both_forms_of_upload(sandbox: AsyncSandbox) -> None:
    for octet in (False, True):
        for gzip in (False, True):
            path = f"/tmp/{octet}-{gzip}"
            await sandbox.files.write(path, "as it is", use_octet_stream=octet, gzip=gzip)
            assert await sandbox.files.read(path) == "as it is"
    await sandbox.files.write("/tmp/stream", io.BytesIO(b"in a form"), use_octet_stream=False)
    assert await sandbox.files.read("/tmp/stream") == "in a form"


async def test_a_stream_arrives_in_pieces(sandbox: AsyncSandbox) -> None:
    await sandbox.commands.run(f"head -c {8 * MIB} /dev/urandom > /tmp/big; sha256sum /tmp/big | cut -d' ' -f1")
    total, count = 0, 0
    async with await sandbox.files.read("/tmp/big", format="stream") as stream:
        async for piece in stream:
            total += len(piece)
            count += 1
    assert total == 8 * MIB
    assert count > 1


async def test_a_stream_that_is_left_early(sandbox: AsyncSandbox) -> None:
    await sandbox.commands.run(f"head -c {8 * MIB} /dev/zero > /tmp/big")
    for _ in range(20):
        async with await sandbox.files.read("/tmp/big", format="stream") as stream:
            assert len(await anext(stream)) > 0
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert await sandbox.files.exists("/tmp/big")


async def test_a_large_upload_from_an_iterable(sandbox: AsyncSandbox) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(64):
            yield bytes([number]) * (MIB // 4)

    entry = await sandbox.files.write("/tmp/big", pieces())
    assert entry.size == 16 * MIB
    result = await sandbox.commands.run("tail -c 1 /tmp/big | od -An -tu1")
    assert result.stdout.strip() == "63"


async def test_several_files_at_once(sandbox: AsyncSandbox) -> None:
    files: list[WriteEntry] = [{"path": f"/tmp/many/{number}", "data": f"content {number}"} for number in range(50)]
    entries = await sandbox.files.write_files(files)
    assert [entry.path for entry in entries] == [file["path"] for file in files]
    assert [entry.size for entry in entries] == [len(f"content {number}") for number in range(50)]
    assert len(await sandbox.files.list("/tmp/many")) == 50
    assert await sandbox.files.read("/tmp/many/49") == "content 49"
    assert await sandbox.files.write_files([]) == []


@pytest.mark.parametrize("gzip", [False, True])
async def test_odd_names(sandbox: AsyncSandbox, gzip: bool) -> None:
    files: list[WriteEntry] = [{"path": f"/tmp/odd/{name}", "data": name} for name in ODD_NAMES]
    await sandbox.files.write_files(files, gzip=gzip)
    for name in ODD_NAMES:
        assert await sandbox.files.read(f"/tmp/odd/{name}") == name
        await sandbox.files.write(f"/tmp/odder/{name}", name)
    assert {entry.name for entry in await sandbox.files.list("/tmp/odd")} == set(ODD_NAMES)
    assert {entry.name for entry in await sandbox.files.list("/tmp/odder")} == set(ODD_NAMES)


async def test_paths_start_at_home(sandbox: AsyncSandbox) -> None:
    assert (await sandbox.files.write("notes", "x")).path == "/home/user/notes"
    assert await sandbox.files.exists("~/notes")
    assert (await sandbox.files.write("notes", "root's", user="root")).path == "/root/notes"
    assert await sandbox.files.read("/home/user/notes") == "x"


async def test_list_goes_as_deep_as_asked(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/tree/a/b/c", "x")
    assert [entry.path for entry in await sandbox.files.list("/tmp/tree")] == ["/tmp/tree/a"]
    deep = [entry.path for entry in await sandbox.files.list("/tmp/tree", depth=3)]
    assert sorted(deep) == ["/tmp/tree/a", "/tmp/tree/a/b", "/tmp/tree/a/b/c"]


async def test_directories(sandbox: AsyncSandbox) -> None:
    assert await sandbox.files.make_dir("/tmp/new/dir") is True
    assert await sandbox.files.make_dir("/tmp/new/dir") is False
    assert (await sandbox.files.get_info("/tmp/new/dir")).type is FileType.DIR
    await sandbox.files.write("/tmp/new/file", "x")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.make_dir("/tmp/new/file")


async def test_rename(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/old", "x")
    entry = await sandbox.files.rename("/tmp/old", "/tmp/elsewhere/new")
    assert entry.path == "/tmp/elsewhere/new"
    assert not await sandbox.files.exists("/tmp/old")
    rename = sandbox.files.rename
    await rename(old_path="/tmp/elsewhere/new", new_path="/tmp/old")  # type: ignore[call-arg]  # the former names
    assert await sandbox.files.read("/tmp/old") == "x"


async def test_remove(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/gone/a/b", "x")
    await sandbox.files.remove("/tmp/gone")
    assert not await sandbox.files.exists("/tmp/gone")
    await sandbox.files.remove("/tmp/gone")


async def test_links(sandbox: AsyncSandbox) -> None:
    await sandbox.commands.run("mkdir -p /tmp/l/d; cd /tmp/l; ln -s d to-dir; ln -s nowhere broken; mkfifo pipe")
    found = {entry.name: entry for entry in await sandbox.files.list("/tmp/l")}
    assert {name: entry.type for name, entry in found.items()} == {
        "d": FileType.DIR,
        "to-dir": FileType.SYMLINK,
        "broken": FileType.SYMLINK,
    }
    assert found["to-dir"].symlink_target == "/tmp/l/d"
    assert found["d"].symlink_target is None
    assert (await sandbox.files.get_info("/tmp/l/pipe")).type is None


async def test_what_is_not_there(sandbox: AsyncSandbox) -> None:
    files = sandbox.files
    for form in ("text", "bytes", "stream"):
        with pytest.raises(FileNotFoundException) as caught:
            await files.read("/tmp/missing", form)
        assert caught.value.sandbox_id == sandbox.sandbox_id
        assert caught.value.request == "GET /files"
        assert caught.value.status_code == 404
    with pytest.raises(FileNotFoundException):
        await files.list("/tmp/missing")
    with pytest.raises(FileNotFoundException) as caught:
        await files.get_info("/tmp/missing")
    assert caught.value.server_message
    with pytest.raises(FileNotFoundException):
        await files.rename("/tmp/missing", "/tmp/other")
    assert await files.exists("/tmp/missing") is False


async def test_a_directory_where_a_file_is_expected(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("/tmp/dir")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.read("/tmp/dir")
    for octet in (False, True):
        with pytest.raises(InvalidArgumentException):
            await sandbox.files.write("/tmp/dir", "x", use_octet_stream=octet)
    await sandbox.files.write("/tmp/file", "x")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.list("/tmp/file")


@pytest.mark.parametrize("path", ["", "/tmp/\0", "\ud800", 3, None, b"/tmp"])
async def test_what_is_no_path_is_refused(sandbox: AsyncSandbox, path: str) -> None:
    files = sandbox.files
    for call in (files.read, files.list, files.exists, files.get_info, files.make_dir, files.remove):
        with pytest.raises(InvalidArgumentException):
            await call(path)
    with pytest.raises(InvalidArgumentException):
        await files.write(path, "x")
    with pytest.raises(InvalidArgumentException):
        await files.write_files([{"path": path, "data": "x"}])
    with pytest.raises(InvalidArgumentException):
        await files.rename("/tmp/a", path)
    with pytest.raises(InvalidArgumentException):
        await files.rename(path, "/tmp/a")


async def test_other_wrong_arguments(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.read("/tmp/x", "lines")  # type: ignore[call-overload]  # that is the point
    for depth in (0, -1, "1", True):
        with pytest.raises(InvalidArgumentException):
            await sandbox.files.list("/tmp", depth=depth)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.write_files([{"path": "/tmp/x"}])  # type: ignore[list-item]  # no data
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.write_files([{"path": "/tmp/x", "data": "1"}, {"path": "/tmp/x", "data": "2"}])


async def test_a_user_who_does_not_exist(sandbox: AsyncSandbox) -> None:
    with pytest.raises(AuthenticationException):
        await sandbox.files.read("/etc/passwd", user="nobody-here")
    with pytest.raises(AuthenticationException):
        await sandbox.files.list("/", user="nobody-here")


async def test_metadata_is_stored_and_replaced(sandbox: AsyncSandbox) -> None:
    entry = await sandbox.files.write("/tmp/a", "x", metadata={"Author": "ada", "run": "7"})
    assert entry.metadata == {"author": "ada", "run": "7"}
    assert (await sandbox.files.get_info("/tmp/a")).metadata == {"author": "ada", "run": "7"}
    entries = await sandbox.files.write_files([{"path": f"/tmp/{n}", "data": ""} for n in "ab"], metadata={"run": "8"})
    assert [entry.metadata for entry in entries] == [{"run": "8"}, {"run": "8"}]
    assert (await sandbox.files.write("/tmp/a", "y")).metadata is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"two words": "x"},
        {"k": "zwei\nzeilen"},
        {"k": "ü"},
        {"": "x"},
        {"k" * 247: "x"},
        {"k": "x" * 4096},
        {"k": 3},
        "k",
    ],
    ids=range(8),
)
async def test_metadata_that_no_header_carries(sandbox: AsyncSandbox, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentException, match="metadata"):
        await sandbox.files.write("/tmp/a", "x", metadata=metadata)
    assert not await sandbox.files.exists("/tmp/a")
