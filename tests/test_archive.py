"""Directories as archives, and archives of people with bad intentions."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from grotte._archive import ArchiveError, PackedDirectory, packed_size, unpack


def tree(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Mode and content of everything below a directory."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(path for path in root.rglob("*") if not path.is_fifo()):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[str(path.relative_to(root))] = (0, os.readlink(path))
        else:
            found[str(path.relative_to(root))] = (mode, None if path.is_dir() else path.read_bytes())
    return found


def packed(root: Path, size: int = 1000) -> bytes:
    archive = PackedDirectory(root)
    pieces = []
    while piece := archive.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


def unpacked(content: bytes, root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    root.mkdir()
    for _ in unpack(io.BytesIO(content), root):
        pass
    return tree(root)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o755)
    (root / "ä b\n").write_bytes(b"x" * 700_001)
    (root / "deep/er/run").write_text("#!/bin/sh")
    (root / "deep/er/run").chmod(0o751)
    (root / "secret").write_text("")
    (root / "secret").chmod(0o600)
    (root / ("long" * 60)).write_text("a long name")
    (root / "block").write_bytes(b"y" * 1024)
    (root / "link").symlink_to("deep/er")
    (root / "nowhere").symlink_to("/no/such/thing" * 20)
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"caf\xe9")).write_text("no UTF-8")
    (root / "deep").chmod(0o555)
    return root


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    content = packed(source)
    assert len(content) == packed_size(source)
    expected = tree(source)
    assert unpacked(content, tmp_path / "copy") == expected
    assert not (tmp_path / "copy" / "fifo").exists()
    (tmp_path / "copy/deep").chmod(0o755)
    (source / "deep").chmod(0o755)


def test_other_programs_understand_it(source: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(source)), errors="surrogateescape") as archive:
        names = {entry.name for entry in archive}
    assert {"deep/er/run", "ä b\n", "long" * 60, "nowhere"} <= names
    (source / "deep").chmod(0o755)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    archive = PackedDirectory(tmp_path)
    archive.read(1000)
    os.truncate(tmp_path / "file", 10)
    with pytest.raises(ArchiveError, match="shorter"):
        while archive.read(100_000):
            pass


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a").write_bytes(b"x" * 600)
    (tmp_path / "b" / "b").write_bytes(b"mine")
    (tmp_path / "secret").write_bytes(b"open")
    archive = PackedDirectory(tmp_path / "b")
    archive.read(1)
    (tmp_path / "b" / "a").unlink()
    (tmp_path / "b" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(ArchiveError, match=r"symbolic links|Too many levels"):
        while archive.read(100_000):
            pass


def hostile(*entries: tuple[str, bytes, str]) -> bytes:
    """An archive of (name, type, link target)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, target in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            content = b"evil" if kind == tarfile.REGTYPE else b""
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


FILE, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", FILE, "")],
        [("a/../../evil", FILE, "")],
        [("{outside}/evil", FILE, "")],
        [("../evil", DIR, "")],
        [("../evil", LINK, "x")],
        [("a", LINK, "{outside}"), ("a/evil", FILE, "")],
        [("a", LINK, ".."), ("a/evil", FILE, "")],
        [("a", LINK, "{outside}"), ("a", DIR, ""), ("a/evil", FILE, "")],
        [("a", LINK, "{outside}/evil"), ("a", FILE, "")],
        [("a", LINK, "{outside}"), ("a/evil", LINK, "x")],
        [("b/a", LINK, "{outside}"), ("c", LINK, "b/a"), ("c/evil", LINK, "x")],
        [("a", HARD, "{outside}/victim")],
        [("a", HARD, "../outside/victim")],
        [("b", LINK, "{outside}"), ("a", HARD, "b/victim")],
        [("a", FILE, ""), ("a", FILE, "")],
        [("a", FILE, ""), ("a/b", FILE, "")],
        [("a\0b", FILE, "")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("innocent")
    filled = [(name.format(outside=outside), kind, target.format(outside=outside)) for name, kind, target in entries]
    if "\0" not in filled[0][0]:
        with pytest.raises(ArchiveError):
            unpacked(hostile(*filled), tmp_path / "copy")
    else:
        unpacked(hostile(*filled), tmp_path / "copy")  # names end at a NUL
    assert tree(outside) == {"victim": (stat.S_IMODE((outside / "victim").stat().st_mode), b"innocent")}
    assert (outside / "victim").stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "outside"]


def test_links_within_and_special_files(tmp_path: Path) -> None:
    entries = [("a", FILE, ""), ("b/c", HARD, "./a"), ("pipe", tarfile.FIFOTYPE, ""), ("null", tarfile.CHRTYPE, "")]
    found = unpacked(hostile(*entries), tmp_path / "copy")
    assert sorted(found) == ["a", "b", "b/c"]
    assert found["b/c"][1] == b"evil"


@pytest.mark.parametrize("content", [b"", b"no archive", b"x" * 2048, hostile(("a", FILE, ""))[:700]])
def test_damaged_archives(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpacked(content, tmp_path / "copy")
