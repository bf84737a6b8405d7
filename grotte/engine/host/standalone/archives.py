"""Reading tar archives of people one does not know: what is in them is checked before any of it is written."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

MAX_MEMBERS = 4_000_000
MAX_NAME = 4096
#: An archive that grows to more than this many times its size, beyond so many bytes, is made to fill disks.
BOMB_RATIO, BOMB_BYTES = 200, 1 << 30
GZIP_MAGIC = b"\x1f\x8b"
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class ArchiveError(Exception):
    """The archive is not what it should be."""


class Archive:
    """A tar archive, perhaps compressed with gzip, that is read from its first to its last byte.

    Args:
        raw: Where it comes from.
        limit: How many bytes it may unpack to.
        size: How many bytes it has as it is, or 0 if nobody knows.
        image: It is a layer of an image: with whiteouts and named pipes; devices below ``/dev`` are left out.

    Attributes:
        size: How many bytes it has unpacked to so far.
    """

    def __init__(self, raw: BinaryIO, limit: int, size: int = 0, *, image: bool = False) -> None:
        start = raw.read(2)
        joined = cast("BinaryIO", Prefixed(start, raw))
        self._source: BinaryIO = cast("BinaryIO", gzip.GzipFile(fileobj=joined)) if start == GZIP_MAGIC else joined
        self._limit = min(limit, max(BOMB_BYTES, BOMB_RATIO * size)) if size else limit
        self.size = 0
        self._written = 0
        self._digest = hashlib.sha256()
        self._image = image
        self._kinds: dict[str, str] = {"": "d"}
        self._tar = tarfile.open(fileobj=cast("BinaryIO", self), mode="r|", bufsize=1 << 16)  # noqa: SIM115 - its caller's

    def read(self, size: int) -> bytes:
        """Bytes of the unpacked archive, for the reader of archives.

        Raises:
            ArchiveError: It has become too large.
        """
        data = self._source.read(size)
        self._digest.update(data)
        self.size += len(data)
        self._check_size(self.size)
        return data

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise ArchiveError(f"it unpacks to more than {self._limit >> 20} MiB")

    def members(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Yield the path of each member relative to the root, and the member.

        Raises:
            ArchiveError: It holds what it must not.
        """
        for number, member in enumerate(self._tar):
            if number >= MAX_MEMBERS:
                raise ArchiveError(f"it holds more than {MAX_MEMBERS} files")
            self._tar.members = []  # type: ignore[attr-defined]  # the library would remember them all
            path = _path(member)
            kind = self._kind(path, member)
            self._written += member.size
            self._check_size(self._written)
            if kind:
                self._enter(path, kind)
                yield path, member

    def _kind(self, path: str, member: tarfile.TarInfo) -> str:
        """One letter for what a member is; nothing for what is left out."""
        name = os.path.basename(path)
        if self._image and name.startswith(WHITEOUT):
            return _whiteout(path, name, member)
        if member.isdir():
            return "d"
        if not path:
            raise ArchiveError("its root is no directory")
        if member.issym():
            return "l"
        if member.isreg():
            return "f"
        if member.islnk():
            return self._hard_link(path, member)
        if self._image and member.isfifo():
            return "p"
        if self._image and (member.ischr() or member.isblk()) and path.startswith("dev/"):
            return ""  # hidden by the sandbox's own
        raise ArchiveError(f"it holds what is neither file, directory nor link: {path!r}")

    def _hard_link(self, path: str, member: tarfile.TarInfo) -> str:
        target = _clean(member.linkname, f"{path!r} is a hard link to")
        if self._kinds.get(target) not in ("f", "l", "p") or target == path:
            raise ArchiveError(f"{path!r} is a hard link to {member.linkname!r}, which is no file before it")
        self._check_parents(target)
        member.linkname = target
        return self._kinds[target]

    def _enter(self, path: str, kind: str) -> None:
        self._check_parents(path)
        before = self._kinds.get(path, kind)
        if before != kind and "d" in (before, kind):
            raise ArchiveError(f"it holds {path!r} as a directory and as something else")
        self._kinds[path] = kind

    def _check_parents(self, path: str) -> None:
        parent = os.path.dirname(path)
        kind = self._kinds.get(parent)
        if kind == "d":
            return
        if kind is not None:
            raise ArchiveError(f"it holds a path that leads through a link or file: {path!r}")
        self._check_parents(parent)
        self._kinds[parent] = "d"

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        file = self._tar.extractfile(member)
        while file is not None and (piece := file.read(1 << 18)):
            yield piece

    def finish(self) -> str:
        """Read on to the end; return the SHA-256 of the unpacked archive, in hexadecimal digits."""
        while self.read(1 << 18):
            pass
        return self._digest.hexdigest()


class Prefixed:
    """A stream whose first bytes have been read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self._start:
            start, self._start = self._start, b""
            return start
        return self._rest.read(size)


def _path(member: tarfile.TarInfo) -> str:
    return _clean(member.name, "it holds the path")


def _clean(name: str, what: str) -> str:
    """A path without its dots, relative to the root.

    Raises:
        ArchiveError: It leads out, or is none.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ArchiveError(f"{what} {name!r}, which leads out of it")
    if len(name) > MAX_NAME or "\0" in name:
        raise ArchiveError(f"{what} {name[:100]!r}, which is no path")
    return "/".join(parts)


def _whiteout(path: str, name: str, member: tarfile.TarInfo) -> str:
    if name == OPAQUE:
        return "o"
    if name.startswith(f"{WHITEOUT}{WHITEOUT}"):
        return ""  # bookkeeping of another file system
    if name[len(WHITEOUT) :] in ("", ".", "..") or not member.isreg():
        raise ArchiveError(f"it holds a malformed whiteout: {path!r}")
    return "w"


def main() -> None:
    """Check the archive on stdin: ``limit size``; what is wrong is said on stderr, with status 1."""
    limit, size = (int(text) for text in sys.argv[-2:])
    try:
        archive = Archive(sys.stdin.buffer, limit, size)
        for _ in archive.members():
            pass
        archive.finish()
    except MemoryError:
        sys.exit("the archive needs too much memory")
    except (ArchiveError, OSError, tarfile.TarError, EOFError, ValueError) as error:
        sys.exit(f"the archive cannot be used: {error}")
