"""How much of the disk sandboxes hold, as a process tells that may look into them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from .frames import close_all
from .served import Served


class DiskUse(msgspec.Struct, frozen=True, array_like=True):
    """What is held of a disk, or free on it.

    Attributes:
        bytes: As the disk counts them, in whole blocks.
        files: With directories, links and all else that has an inode.
    """

    bytes: int = 0
    files: int = 0

    def __add__(self, other: DiskUse) -> DiskUse:
        return DiskUse(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: DiskUse) -> DiskUse:
        return DiskUse(self.bytes - other.bytes, self.files - other.files)

    def beyond(self, limit: DiskUse) -> bool:
        """Whether it is more than this, in bytes or in files."""
        return self.bytes > limit.bytes or self.files > limit.files


class Held(NamedTuple):
    """What the processes of a sandbox hold, and no directory shows.

    Attributes:
        use: Files without a name.
        unseen: Descriptors on their way through sockets: nobody can tell of what, or how large that is.
    """

    use: DiskUse = DiskUse()
    unseen: int = 0


class Gauge:
    """Measures sandboxes.

    Args:
        start: Makes the launcher serve the other end of a link.
    """

    def __init__(self, start: Callable[[int], Awaitable[None]]) -> None:
        self._served = Served(start)

    async def lying(self, place: str, most: DiskUse) -> DiskUse:
        """What lies in a directory; where that is more than `most`, something that is more.

        Args:
            place: Relative to the host's home, as in ``sandboxes/ID``.
            most: Where to stop counting.

        Raises:
            GuestError: ``not_found``, it is gone; ``out_of_range``, it was made in a way that nobody can measure.
        """
        arguments: dict[str, object] = {"place": place, "most_bytes": most.bytes, "most_files": most.files}
        return msgspec.json.decode(await self._ask("walk", arguments), type=DiskUse)

    async def removed_but_open(self) -> dict[str, Held]:
        """What has no name any more, and is held by the processes of a sandbox alone; by sandbox.

        Raises:
            GuestError: Nobody can tell.
        """
        told = msgspec.json.decode(await self._ask("open", {}), type=dict[str, tuple[int, int, int]])
        return {sandbox_id: Held(DiskUse(size, files), unseen) for sandbox_id, (size, files, unseen) in told.items()}

    async def _ask(self, op: str, arguments: dict[str, object]) -> msgspec.Raw:
        answer, fds = await self._served.request(op, arguments)
        close_all(fds)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._served.close()
