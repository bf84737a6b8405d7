"""The stdin of a command, written while somebody else waits for its end."""

from __future__ import annotations

from grotte._core.command_handle import AsyncCommandHandle
from grotte.errors import GrotteException, NotFoundException

#: How much is sent at a time.
PIECE = 256 * 1024
#: What servers say when a command reads no more.
NOBODY_READS = "writing to stdin"


class AsyncFeeder:
    """Writes all of its data, then closes the stdin.

    A command need not read it all: one that ends early, or closes its stdin, fails nothing.
    """

    def __init__(self, handle: AsyncCommandHandle, data: bytes, timeout: float | None) -> None:
        self._handle = handle
        self._data = data
        #: A command that is slow to read has as long for it as it may run; 0 for no limit.
        self._limit = timeout or 0
        #: Why the data did not arrive.
        self.failure: GrotteException | None = None

    async def feed(self) -> None:
        """Write; what fails is kept for the one that waits, whose command ends."""
        try:
            for start in range(0, len(self._data), PIECE):
                await self._handle.send_stdin(self._data[start : start + PIECE], self._limit)
            await self._handle.close_stdin()
        except NotFoundException:
            return
        except GrotteException as error:
            if NOBODY_READS not in (error.server_message or ""):
                self.failure = error
                await self._handle.abandon()
