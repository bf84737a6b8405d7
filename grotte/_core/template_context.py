"""The files that COPY steps send: which they are, their hash, and their archive."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from grotte._archive import ArchiveError, PackedEntries
from grotte._core import _aio
from grotte._core.uploads import PIECE, AsyncFilePieces, AsyncGzip
from grotte._proto.templates.ignoring import Ignored, ignore_lines, is_literal, pattern
from grotte._proto.templates.recipe import Recipe, Step
from grotte.errors import FileUploadException, InvalidArgumentException

IGNORE_FILE = ".dockerignore"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is sent.

    Attributes:
        path: Where it is.
        name: Relative to the context.
        info: What is known of it; of what a link points at, if that is sent instead.
    """

    path: Path
    name: str
    info: os.stat_result


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one COPY sends, and its hash."""

    source: str
    entries: list[Entry]
    digest: str


def bundle_of(recipe: Recipe, step: Step) -> Bundle:
    """Find what a COPY copies.

    Raises:
        InvalidArgumentException: that is nothing, or lies outside of the context.
        FileUploadException: a file cannot be read.
    """
    source, target = step.args[0], step.args[1]
    try:
        context = _Context(recipe, follow=step.resolve_symlinks)
        entries = sorted(context.matching(source), key=lambda entry: entry.name)
        if not entries:
            raise InvalidArgumentException(f"COPY {source}: nothing in {context.root} matches, or all is ignored")
        return Bundle(source, entries, _digest(f"COPY {source} {target}", entries))
    except OSError as error:
        raise FileUploadException(f"COPY {source}: {error.filename}: {error.strerror}") from None


class _Context:
    """The directory that a template copies from."""

    def __init__(self, recipe: Recipe, *, follow: bool) -> None:
        self.root = Path(recipe.context).resolve()
        self._follow = follow
        lines = list(recipe.ignored)
        file = self.root / IGNORE_FILE
        if file.is_file():
            lines += ignore_lines(file.read_text(errors="surrogateescape"))
        self._ignored = Ignored(lines)

    def matching(self, source: str) -> Iterator[Entry]:
        """What a path or pattern means, with all that is in directories that it matches."""
        name = posixpath.normpath(source)
        if name == ".":
            yield from self._below("")
        elif is_literal(name):
            if os.path.lexists(self.root / name):
                yield from self._with_content(name)
        else:
            yield from self._matching(name)

    def _matching(self, glob: str) -> Iterator[Entry]:
        wanted, found = pattern(glob), set()
        for entry in self._below(""):
            parent = posixpath.dirname(entry.name)
            if parent in found or wanted.fullmatch(entry.name):
                found.add(entry.name)
                yield entry

    def _with_content(self, name: str) -> Iterator[Entry]:
        entry = self._entry(name)
        if entry is not None and name not in self._ignored:
            yield entry
        if entry is not None and stat.S_ISDIR(entry.info.st_mode):
            yield from self._below(name)

    def _below(self, directory: str) -> Iterator[Entry]:
        waiting = [directory]
        while waiting:
            above = waiting.pop()
            for child in sorted(os.listdir(self.root / above)):
                name = f"{above}/{child}" if above else child
                ignored = name in self._ignored
                entry = None if ignored and self._ignored.final else self._entry(name)
                if entry is None:
                    continue
                if stat.S_ISDIR(entry.info.st_mode):
                    waiting.append(name)
                if not ignored:
                    yield entry

    def _entry(self, name: str) -> Entry | None:
        """What is there; None if it is nothing that can be copied."""
        path = self.root / name
        info = path.lstat()
        if self._follow and stat.S_ISLNK(info.st_mode) and path.exists():
            self._check_inside(path.resolve(), name)
            if path.is_dir() and path.resolve() in path.absolute().parents:
                raise InvalidArgumentException(f"{name!r} is a link to a directory that it is in")
            return Entry(path.resolve(), name, path.stat())
        self._check_inside(path.parent.resolve(), name)
        kept = stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)
        return Entry(path, name, info) if kept else None

    def _check_inside(self, path: Path, name: str) -> None:
        if not path.is_relative_to(self.root):
            raise InvalidArgumentException(f"{name!r} leads out of the context directory {self.root}")


def _digest(title: str, entries: list[Entry]) -> str:
    """A hash of names, modes and contents; owners and times change nothing."""
    digest = hashlib.sha256(title.encode(errors="surrogateescape"))
    for entry in entries:
        mode = entry.info.st_mode
        # the size of a directory says more about the disk than about what is in it
        size = "" if stat.S_ISDIR(mode) else str(entry.info.st_size)
        digest.update(f"{entry.name}{mode}{size}".encode(errors="surrogateescape"))
        if stat.S_ISLNK(mode):
            digest.update(os.fsencode(os.readlink(entry.path)))
        elif stat.S_ISREG(mode):
            with open(entry.path, "rb") as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
    return digest.hexdigest()


@asynccontextmanager
async def packed(bundle: Bundle) -> AsyncIterator[tuple[IO[bytes], int]]:
    """The archive of a bundle in a file that goes with the block, and its size in bytes.

    Stores want to know the size before they take anything.

    Raises:
        FileUploadException: a file changed or cannot be read, or the disk is full.
    """
    try:
        entries = PackedEntries((entry.path, entry.name, entry.info) for entry in bundle.entries)
        with tempfile.TemporaryFile() as file:
            async for piece in AsyncGzip(AsyncFilePieces(entries.read)):
                await _aio.run_in_thread(file.write, piece)
            size = file.tell()
            file.seek(0)
            yield file, size
    except ArchiveError as error:
        raise FileUploadException(f"COPY {bundle.source}: {error}") from None
    except OSError as error:
        raise FileUploadException(f"COPY {bundle.source}: {error.strerror}") from None
