"""`upload` and `download` of files and directories, on the real engine."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from grotte import (
    AsyncSandbox,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TransferProgress,
)
from grotte._core import _aio

MIB = 1024 * 1024


def make_tree(root: Path) -> None:
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "ä 'b'").write_bytes(bytes(range(256)) * 5000)
    (root / "run").write_text("#!/bin/sh\necho ran\n")
    (root / "run").chmod(0o755)
    (root / "secret").write_text("")
    (root / "secret").chmod(0o600)
    (root / "link").symlink_to("sub/ä 'b'")
    (root / "broken").symlink_to("/no/such/thing")


def tree(root: Path) -> dict[str, tuple[str, bytes | str | None]]:
    found: dict[str, tuple[str, bytes | str | None]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", os.readlink(path))
        else:
            content = None if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(root))] = (oct(path.stat().st_mode & 0o777), content)
    return found


async def leftovers(sandbox: AsyncSandbox) -> str:
    return (await sandbox.commands.run("ls -A /tmp | grep grotte", check=False)).stdout


async def test_a_file_there_and_back(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(os.urandom(3 * MIB + 7))
    source.chmod(0o750)
    reports: list[TransferProgress] = []
    entry = await sandbox.files.upload(source, "dir/copy", on_progress=reports.append)
    assert (entry.path, entry.size, entry.mode, entry.owner) == ("/home/user/dir/copy", 3 * MIB + 7, 0o750, "user")
    assert reports[0] == TransferProgress(0, 3 * MIB + 7)
    assert reports[-1] == TransferProgress(3 * MIB + 7, 3 * MIB + 7)
    assert [report.transferred for report in reports] == sorted({report.transferred for report in reports})
    reports.clear()

    async def on_progress(progress: TransferProgress) -> None:
        reports.append(progress)

    assert await sandbox.files.download("dir/copy", str(target), on_progress=on_progress) == target
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o750
    assert reports[-1] == TransferProgress(3 * MIB + 7, 3 * MIB + 7)
    assert [path.name for path in target.parent.iterdir()] == ["target"]


async def test_a_directory_there_and_back(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    reports: list[TransferProgress] = []
    await sandbox.files.write("/home/user/a b/kept", "kept")
    entry = await sandbox.files.upload(tmp_path / "source", "~/a b", on_progress=reports.append)
    assert (entry.path, entry.type) == ("/home/user/a b", FileType.DIR)
    assert reports[-1].transferred == reports[-1].total > 256 * 5000
    result = await sandbox.commands.run("./run; cat kept; stat -c '%a %U' run secret sub; readlink link", cwd="a b")
    assert result.stdout == "ran\nkept755 user\n600 user\n755 user\nsub/ä 'b'\n"
    await sandbox.files.remove("a b/kept")
    (tmp_path / "copy").mkdir()
    await sandbox.files.download("a b", tmp_path / "copy", on_progress=reports.append)
    assert tree(tmp_path / "copy") == tree(tmp_path / "source")
    assert reports[-1].transferred == reports[-1].total
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]
    assert await leftovers(sandbox) == ""


async def test_as_root_and_through_a_link(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    await sandbox.files.upload(tmp_path / "source", "/srv/data", "root")
    assert (await sandbox.commands.run("stat -c %U /srv/data/run /srv/data/sub", user="root")).stdout == "root\nroot\n"
    await sandbox.commands.run("ln -s /srv/data /tmp/way; ln -s data/run /srv/run", user="root")
    await sandbox.files.download("/tmp/way", tmp_path / "copy", "root")
    assert tree(tmp_path / "copy") == tree(tmp_path / "source")
    await sandbox.files.download("/srv/run", tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


async def test_many_small_files(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    for number in range(2000):
        path = tmp_path / "many" / str(number % 50) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    await sandbox.files.upload(tmp_path / "many", "/tmp/many")
    assert (await sandbox.commands.run("find /tmp/many -type f | wc -l; cat /tmp/many/7/1957")).stdout == "2000\n1957"
    await sandbox.files.download("/tmp/many", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(tmp_path / "many")


async def test_a_large_file_needs_little_memory(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(192 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await sandbox.files.upload(tmp_path / "large", "/tmp/large")
    await sandbox.files.download("/tmp/large", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 192 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_what_is_there_stays_until_all_has_come(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    await sandbox.files.write("/tmp/file", b"x" * 5 * MIB)
    (tmp_path / "target").write_text("old")

    def on_progress(progress: TransferProgress) -> None:
        assert (tmp_path / "target").read_text() == "old"
        if progress.transferred > MIB:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sandbox.files.download("/tmp/file", tmp_path / "target", on_progress=on_progress)
    assert (tmp_path / "target").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


async def test_a_transfer_that_fails_leaves_nothing(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")

    def on_progress(progress: TransferProgress) -> None:
        if progress.transferred > 0:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sandbox.files.upload(tmp_path / "source", "/tmp/x", on_progress=on_progress)
    await sandbox.files.upload(tmp_path / "source", "/tmp/x")
    with pytest.raises(ZeroDivisionError):
        await sandbox.files.download("/tmp/x", tmp_path / "copy", on_progress=on_progress)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert await leftovers(sandbox) == ""


async def test_several_at_once(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")

    async def both(number: int) -> None:
        await sandbox.files.upload(tmp_path / "source", f"/tmp/{number}")
        await sandbox.files.download(f"/tmp/{number}", tmp_path / str(number))

    async with _aio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(both, number)
    assert all(tree(tmp_path / str(number)) == tree(tmp_path / "source") for number in range(4))


async def test_what_is_not_there(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentException, match="No such file"):
        await sandbox.files.upload(tmp_path / "nothing", "/tmp/x")
    with pytest.raises(FileNotFoundException):
        await sandbox.files.download("/tmp/nothing", tmp_path / "x")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidArgumentException, match="neither"):
        await sandbox.files.upload(tmp_path / "fifo", "/tmp/x")
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


async def test_where_nothing_can_be_written(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    await sandbox.commands.run("mkdir -p /tmp/dir; echo x > /tmp/file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InvalidArgumentException, match="no empty directory"):
        await sandbox.files.download("/tmp/dir", tmp_path / "full")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.download("/tmp/file", tmp_path / "full")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.download("/tmp/file", tmp_path / "full" / "file" / "below")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.upload(tmp_path / "full" / "file", "/tmp/dir")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.upload(tmp_path / "full", "/tmp/file")
    assert tree(tmp_path)["full/file"][1] == b"mine"
    assert len(tree(tmp_path)) == 2


async def test_a_sandbox_without_tar(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    await sandbox.files.write("/home/user/.profile", "PATH=/tmp/bin")
    await sandbox.commands.run("PATH=/usr/bin; mkdir /tmp/bin; ln -s $(command -v mkdir rm) /tmp/bin")
    with pytest.raises(NotFoundException, match="tar"):
        await sandbox.files.upload(tmp_path / "source", "/tmp/x")


async def test_an_archive_from_a_sandbox_that_was_taken_over(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    program = '#!/bin/sh\nexec /usr/bin/tar -P --transform="s,^./,../," "$@"\n'
    await sandbox.files.write("/tmp/bin/tar", program)
    await sandbox.commands.run("chmod +x /tmp/bin/tar; mkdir /tmp/dir; echo evil > /tmp/dir/evil")
    await sandbox.files.write("/home/user/.profile", "PATH=/tmp/bin:$PATH")
    with pytest.raises(SandboxException, match="outside"):
        await sandbox.files.download("/tmp/dir", tmp_path / "inner" / "copy")
    assert list((tmp_path / "inner").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


@pytest.mark.parametrize("local", ["", "a\0b", b"bytes", 3])
async def test_what_is_no_path(sandbox: AsyncSandbox, local: str) -> None:
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.upload(local, "/tmp/x")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.download("/tmp/x", local)
