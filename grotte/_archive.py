"""Local directories as tar streams, and back: in constant memory, links and modes kept.

Who sends an archive is not trusted: nothing is written outside the directory that it is unpacked into.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

#: How much of a file is copied at a time.
PIECE = 256 * 1024
#: So many entries are unpacked between two chances to stop.
BATCH = 200
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


class ArchiveError(Exception):
    """An archive cannot be made or unpacked; the message says why."""


# -- packing -------------------------------------------------------------------------------------------------------


class PackedEntries:
    """Some files, directories and links, as a tar stream to be read.

    Args:
        entries: For each where it is, its name in the archive, and what is known of it.
    """

    def __init__(self, entries: Iterable[tuple[Path, str, os.stat_result]]) -> None:
        self._pieces = _packed(entries)
        self._left = b""

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end.

        Raises:
            ArchiveError: a file cannot be read, or changed meanwhile.
        """
        found = [self._left]
        length = len(self._left)
        while length < size and (piece := next(self._pieces, None)) is not None:
            found.append(piece)
            length += len(piece)
        joined = b"".join(found)
        self._left = joined[size:]
        return joined[:size]


class PackedDirectory(PackedEntries):
    """What is below a directory, as a tar stream; what is no file, directory or link is left out."""

    def __init__(self, root: Path) -> None:
        super().__init__(_entries(root))


def packed_size(root: Path) -> int:
    """How long the stream will be, if nothing changes."""
    sizes = (len(_header(path, name, info)) + _padded(_content_size(info)) for path, name, info in _entries(root))
    return sum(sizes) + len(END)


def _packed(entries: Iterable[tuple[Path, str, os.stat_result]]) -> Iterator[bytes]:
    for path, name, info in entries:
        yield _header(path, name, info)
        if stat.S_ISREG(info.st_mode):
            yield from _content(path, info.st_size)
    yield END


def _entries(root: Path) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Everything below a directory, each directory before what is in it."""
    waiting = [(root, "")]
    try:
        while waiting:
            directory, prefix = waiting.pop()
            for name in sorted(os.listdir(directory)):
                path, inside = directory / name, f"{prefix}{name}"
                info = path.lstat()
                if stat.S_ISDIR(info.st_mode):
                    waiting.append((path, f"{inside}/"))
                if stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                    yield path, inside, info
    except OSError as error:
        raise ArchiveError(f"{error.filename}: {error.strerror}") from error


def _header(path: Path, name: str, info: os.stat_result) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = stat.S_IMODE(info.st_mode) & 0o777, int(max(0, info.st_mtime))
    if stat.S_ISDIR(info.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
    else:
        entry.size = info.st_size
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _content(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, padded; one that grows is cut, and one that shrinks is an error."""
    left = size
    try:
        # a link that took the file's place since it was looked at is not followed
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            while left and (piece := file.read(min(left, PIECE))):
                left -= len(piece)
                yield piece
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror}") from error
    if left:
        raise ArchiveError(f"{path} became shorter while it was read")
    yield bytes(_padded(size) - size)


def _content_size(info: os.stat_result) -> int:
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


# -- unpacking -----------------------------------------------------------------------------------------------------


def unpack(archive: IO[bytes], directory: Path) -> Iterator[int]:
    """Unpack into a directory that is empty and that nobody else can write to, step by step.

    Yields:
        How many entries there were so far, from time to time.

    Raises:
        ArchiveError: it is damaged, or an entry would lie outside.
    """
    unpacker = _Unpacker(directory)
    try:
        with tarfile.open(fileobj=archive, mode="r:", encoding="utf-8", errors="surrogateescape") as entries:
            for number, entry in enumerate(entries):
                yield from unpacker.take(entries, entry, number)
                entries.members = []  # type: ignore[attr-defined]  # it would remember them all
                if number % BATCH == 0:
                    yield number
        unpacker.finish()
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise ArchiveError(f"the archive cannot be unpacked: {error}") from error


class _Unpacker:
    """Makes entries. Links come last: as long as there are none, no path leads outside."""

    def __init__(self, directory: Path) -> None:
        self._root = directory
        self._links: list[tuple[Path, str]] = []
        self._modes: dict[Path, int] = {}

    def take(self, entries: tarfile.TarFile, entry: tarfile.TarInfo, number: int) -> Iterator[int]:
        path = self._inside(entry.name)
        if entry.isdir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._modes[path] = entry.mode & 0o777
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if entry.issym():
            self._links.append((path, entry.linkname))
        elif entry.islnk():
            os.link(self._inside(entry.linkname), path, follow_symlinks=False)
        elif entry.issparse():
            raise ArchiveError(f"{entry.name!r} is sparse, which is not understood")
        elif entry.isreg():
            yield from self._copy(entries, entry, path, number)

    def _copy(self, entries: tarfile.TarFile, entry: tarfile.TarInfo, path: Path, number: int) -> Iterator[int]:
        content = entries.extractfile(entry)
        assert content is not None
        with open(path, "xb") as file:
            left = entry.size
            while left:
                piece = content.read(min(left, PIECE))
                if not piece:
                    raise EOFError("it ends early")
                file.write(piece)
                left -= len(piece)
                yield number
        path.chmod(entry.mode & 0o777)
        os.utime(path, (entry.mtime, entry.mtime))

    def finish(self) -> None:
        """Make the links, then forbid what shall be forbidden, the innermost first."""
        for path, target in self._links:
            os.symlink(target, path)
        for path in sorted(self._modes, key=lambda path: len(path.parts), reverse=True):
            if path != self._root:
                path.chmod(self._modes[path])

    def _inside(self, name: str) -> Path:
        inner = PurePosixPath(name)
        foreign = os.sep != "/" and any(os.sep in part or ":" in part for part in inner.parts)
        if inner.is_absolute() or ".." in inner.parts or foreign:
            raise ArchiveError(f"{name!r} would lie outside the directory")
        return self._root.joinpath(*inner.parts)
