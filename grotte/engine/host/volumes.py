"""Volumes and the files in them, through the process that is allowed to touch them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from .frames import close_all
from .opened import file_system
from .quota import Room
from .served import Served
from .spec import OpenedFile

T = TypeVar("T")


class VolumeEntry(msgspec.Struct, frozen=True):
    """What is known of one file of a volume.

    Attributes:
        path: Absolute within the volume.
        size: In bytes.
        mode: Permission bits.
        times: Of the last access, the last change of content, and the last change at all, in unix nanoseconds.
        target: What a symlink says.
    """

    name: str
    type: Literal["file", "directory", "symlink", "unknown"]
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    times: tuple[int, int, int]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeUpload:
    """A file on its way into a volume; whoever gets it closes the descriptor."""

    fd: int
    token: int


class _Token(msgspec.Struct):
    token: int


class VolumeKeeper:
    """The volumes of an engine. The process behind it is started when it is first needed, and again if it ended.

    Every call raises `GuestError` with a Connect code for what is refused.

    Args:
        start: Makes the launcher serve the other end of a link.
        home: Where the volumes are.
        room: Whether the disk takes more.
    """

    def __init__(self, start: Callable[[int], Awaitable[None]], home: Path, room: Room) -> None:
        self._room = room
        self._home = home
        self._served = Served(start)

    @property
    def unused(self) -> bool:
        """There is no volume here, and no remains of one."""
        return not os.listdir(self._home)

    @cached_property
    def file_system(self) -> int:
        """The type of the file system that volumes are on."""
        home = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return file_system(home)
        finally:
            os.close(home)

    async def make(self, volume: str) -> None:
        """Make an empty volume that every user inside may write to."""
        await self._ask("make", volume=volume)

    async def drop(self, volume: str) -> None:
        """Remove a volume with all that is in it; there need be none."""
        await self._ask("drop", volume=volume)

    async def sweep(self, keep: Sequence[str]) -> None:
        """Remove all volumes but some, which are made if they are missing."""
        await self._ask("sweep", keep=list(keep))

    async def stat(self, volume: str, path: str) -> VolumeEntry:
        """Describe a file without following it."""
        return await self._one(VolumeEntry, "stat", volume=volume, path=path)

    async def list_dir(self, volume: str, path: str, depth: int) -> list[VolumeEntry]:
        """Describe what is in a directory, and below it down to a depth."""
        return await self._one(list[VolumeEntry], "list", volume=volume, path=path, depth=depth)

    async def make_dir(self, volume: str, path: str, uid: int, gid: int, mode: int, *, force: bool) -> VolumeEntry:
        """Make a directory; with `force` those above it, too, and it may be there already."""
        arguments = {"volume": volume, "path": path, "uid": uid, "gid": gid, "mode": mode, "force": force}
        return await self._one(VolumeEntry, "mkdir", **arguments)

    async def remove(self, volume: str, path: str) -> None:
        """Remove a file or a whole directory, which must be there."""
        await self._ask("remove", volume=volume, path=path)

    async def patch(self, volume: str, path: str, uid: int | None, gid: int | None, mode: int | None) -> VolumeEntry:
        """Change owner and mode; None leaves one as it is."""
        return await self._one(VolumeEntry, "patch", volume=volume, path=path, uid=uid, gid=gid, mode=mode)

    async def open_read(self, volume: str, path: str) -> OpenedFile:
        """Open a regular file for reading."""
        _, fds = await self._request("open_read", {"volume": volume, "path": path})
        (fd,) = fds
        info = os.fstat(fd)
        return OpenedFile(fd, info.st_size, info.st_mtime, path)

    async def open_write(self, volume: str, path: str, uid: int, gid: int, mode: int, *, force: bool) -> VolumeUpload:
        """Open a new file that takes its place when it is committed; with `force` it may replace one."""
        arguments = {"volume": volume, "path": path, "uid": uid, "gid": gid, "mode": mode, "force": force}
        answer, fds = await self._request("open_write", arguments)
        (fd,) = fds
        return VolumeUpload(fd, msgspec.json.decode(answer, type=_Token).token)

    async def commit(self, upload: VolumeUpload) -> VolumeEntry:
        """Put a file in its place."""
        return await self._one(VolumeEntry, "commit", token=upload.token)

    def take(self, size: int) -> None:
        """Let so many bytes be written.

        Raises:
            GuestError: ``resource_exhausted``, the disk is full.
        """
        del size  # a volume may be as large as the disk lets it
        self._room.check()

    def forget(self, upload: VolumeUpload) -> None:
        """Drop a file that does not get its place."""
        self._served.post("abort", {"token": upload.token})

    def close(self) -> None:
        """Hang up."""
        self._served.close()

    async def _one(self, kind: type[T], op: str, **arguments: object) -> T:
        return msgspec.json.decode(await self._ask(op, **arguments), type=kind)

    async def _ask(self, op: str, **arguments: object) -> msgspec.Raw:
        answer, fds = await self._request(op, arguments)
        close_all(fds)
        return answer

    async def _request(self, op: str, arguments: dict[str, object]) -> tuple[msgspec.Raw, list[int]]:
        return await self._served.request(op, arguments, self._abandoned if op == "open_write" else None)

    def _abandoned(self, answer: msgspec.Raw) -> None:
        self._served.post("abort", {"token": msgspec.json.decode(answer, type=_Token).token})
