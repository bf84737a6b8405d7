"""Root file systems of this machine as archives of layers."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path
from typing import BinaryIO, cast

import anyio

from grotte.engine.images import programs
from grotte.engine.images.reference import ImageError

PACK_SECONDS = 1800.0
GZIP_MAGIC = b"\x1f\x8b"
PIECE = 1 << 20


async def pack(source: Path, room: Path) -> Path:
    """An archive of a root file system, which is a directory, or such an archive already.

    Raises:
        ImageError: it is neither, or cannot be read.
    """
    if await anyio.Path(source).is_file():
        return source
    if not await anyio.Path(source).is_dir():
        raise ImageError(f"there is no root file system at {source}")
    tar = programs.find("tar", "tar", "a root file system")
    target = room / "rootfs.tar"
    options = ["--one-file-system", "--numeric-owner", "--sort=name", "--format=posix", "--exclude=./dev/*"]
    options += ["--pax-option=delete=atime,delete=ctime", "--exclude=./proc/*", "--exclude=./sys/*"]
    command = [tar, "--create", f"--file={target}", f"--directory={source}", *options, "."]
    await programs.run(command, lambda _: None, seconds=PACK_SECONDS, envs={"LC_ALL": "C"})
    return target


def digest(file: BinaryIO, limit: float = math.inf) -> str:
    """The digest of an archive, unpacked.

    Args:
        file: The archive.
        limit: How many bytes it may unpack to.

    Raises:
        ImageError: it cannot be read, or is larger.
    """
    start = file.read(2)
    file.seek(0)
    source = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if start == GZIP_MAGIC else file
    found = hashlib.sha256()
    try:
        while piece := source.read(PIECE):
            found.update(piece)
            limit -= len(piece)
            if limit < 0:
                raise ImageError("the archive unpacks to more than it may")
    except (OSError, EOFError) as error:
        raise ImageError(f"the root file system cannot be read: {error}") from None
    return f"sha256:{found.hexdigest()}"
