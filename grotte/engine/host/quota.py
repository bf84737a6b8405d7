"""Whether a sandbox may write, and how much the engine itself may still write for it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from .spec import GuestError


class Room:
    """The disk that all sandboxes share.

    Attributes:
        low: Why nothing more is taken in, or nothing.
        limit: Bytes that each of them may hold.
    """

    def __init__(self) -> None:
        self.low = ""
        self.limit = math.inf

    def check(self) -> None:
        """Let something be written.

        Raises:
            GuestError: ``resource_exhausted``, too little is left.
        """
        if self.low:
            raise GuestError("resource_exhausted", self.low)


class Quota:
    """What of the disk one sandbox may have; whoever measures it keeps this up to date.

    Attributes:
        full: Why it may not write, or nothing. Nothing runs in it then.
        left: Bytes that may be written for it until it is measured again.
        written: Bytes that were written for it.
        had_files: It goes on with files of an earlier time.
        volumes: What it may write to besides, for which it has no limit.
        look_again: Measures it, since somebody may have removed files.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self.full = ""
        self.left = room.limit
        self.written = 0
        self.had_files = False
        self.volumes: tuple[str, ...] = ()
        self.look_again: Callable[[], Awaitable[None]] | None = None

    async def admit(self) -> None:
        """Let something happen that may write.

        Raises:
            GuestError: ``resource_exhausted``, the sandbox has written as much as it may.
        """
        if self.full and self.look_again is not None:
            await self.look_again()
        self._check_full()

    async def admit_upload(self) -> None:
        """Let a file be sent.

        Raises:
            GuestError: ``resource_exhausted``, the sandbox has written as much as it may, or the disk is full.
        """
        self._room.check()
        await self.admit()

    def take(self, size: int) -> None:
        """Let so many bytes be written for it.

        Raises:
            GuestError: ``resource_exhausted``, they do not fit.
        """
        self._room.check()
        self._check_full()
        if size > self.left:
            raise GuestError("resource_exhausted", "disk limit: the file does not fit into what this sandbox may write")
        self.left -= size
        self.written += size

    def _check_full(self) -> None:
        if self.full:
            raise GuestError("resource_exhausted", self.full)
