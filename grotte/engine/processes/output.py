"""What a process says, read from its pipes in pieces that end between characters."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import anyio
import anyio.lowlevel

#: The largest piece of output in one event.
CHUNK = 32 * 1024
#: How much is read at a time, and what a pipe holds: every read costs a turn of the loop, and wakes the writer.
READ = 128 * 1024
#: The same of a terminal.
TERMINAL_CHUNK = 16 * 1024
#: How long the first bytes of a character wait for the others, in seconds.
SPLIT_GRACE = 0.05
#: What is still read from pipes that others hold open after their process was killed: a full pipe, and then some.
ABANDONED_LIMIT = 1024 * 1024


class Pipe:
    """The engine's end of a process's stdout or stderr, or of what its terminal shows.

    Attributes:
        fd: Non-blocking; closed by whoever made it.
    """

    def __init__(self, fd: int, publish: Callable[[bytes], Awaitable[None]], chunk: int = READ) -> None:
        self.fd = fd
        with suppress(OSError):  # a user who has many large pipes gets no more of them
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, READ)
        self._chunk = chunk
        self._publish = publish
        self._waiting: anyio.CancelScope | None = None
        self._abandoned = False
        self._eager = False

    def abandon(self) -> None:
        """Take what is there and stop, though somebody may still hold the other end."""
        self._abandoned = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def pump(self) -> None:
        """Publish all output, in pieces that end between characters where that can be."""
        held = b""
        after_abandon = 0
        while (piece := await self._read(self._chunk - len(held), patient=not held)) is not None:
            if not piece:  # nothing came to complete the held bytes
                await self._publish(held)
                held = b""
                continue
            whole, held = cut_between_characters(held + piece)
            if whole:
                await self._publish(whole)
            after_abandon += len(piece) if self._abandoned else 0
            if after_abandon > ABANDONED_LIMIT:
                break
        if held:
            await self._publish(held)

    async def _read(self, size: int, *, patient: bool) -> bytes | None:
        """The next bytes; none when `patient` is off and they do not come soon; None at the end."""
        if self._eager:
            # Even when there always is something to read, others must get their turn.
            await anyio.lowlevel.checkpoint()
        while True:
            try:
                self._eager = True
                return os.read(self.fd, size) or None
            except BlockingIOError:
                if self._abandoned:
                    return None
            except OSError:
                return None
            self._eager = False
            if not await self._wait(math.inf if patient else anyio.current_time() + SPLIT_GRACE):
                return b""

    async def _wait(self, deadline: float) -> bool:
        """Wait until there is something to read, or until the pipe is abandoned; False when the deadline passes."""
        with anyio.CancelScope(deadline=deadline) as scope:
            self._waiting = scope
            await anyio.wait_readable(self.fd)
        self._waiting = None
        return self._abandoned or not scope.cancelled_caught


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Pieces of at most `size` bytes, which end between characters where that can be.

    Example:
        >>> [piece.decode() for piece in cut("aéa".encode(), 2)]
        ['a', 'é', 'a']
    """
    start = 0
    while len(data) - start > size:
        piece, _ = cut_between_characters(data[start : start + size])
        piece = piece or data[start : start + size]
        yield piece
        start += len(piece)
    yield data[start:] if start else data


def cut_between_characters(data: bytes) -> tuple[bytes, bytes]:
    """Split off the first bytes of a UTF-8 character that is not complete yet.

    Example:
        >>> cut_between_characters("aé".encode()[:-1])
        (b'a', b'\\xc3')
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return (data[:-back], data[-back:]) if length > back else (data, b"")
    return data, b""
