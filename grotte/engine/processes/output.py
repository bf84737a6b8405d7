"""What a process says, read from its pipes in pieces that end between characters."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

#: The largest piece of output in one event.
CHUNK = 32 * 1024
#: How much is read at a time, and what a pipe holds: every read costs a turn of the loop, and wakes the writer.
READ = 256 * 1024
#: What a pipe holds when it is made, and how much a read brings from one that was full.
SMALL = 64 * 1024
#: The same of a terminal.
TERMINAL_CHUNK = 16 * 1024
#: How long the first bytes of a character wait for the others, in seconds.
SPLIT_GRACE = 0.05
#: What is still read from pipes that others hold open after their process was killed: a full pipe, and then some.
ABANDONED_LIMIT = 1024 * 1024


class Pipe:
    """The engine's end of a process's stdout or stderr, or of what its terminal shows.

    There is no task here: the event loop calls back when there is something to read.

    Args:
        fd: Non-blocking; closed by whoever made it, after `close`.
        publish: Called with all output, in pieces that end between characters where that can be.
        ended: Called once, when there will be nothing more.
        chunk: How much is read at a time.
    """

    def __init__(self, fd: int, publish: Callable[[bytes], None], ended: Callable[[], None], chunk: int = READ) -> None:
        self.fd = fd
        self._chunk = chunk
        self._publish = publish
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._grace: asyncio.TimerHandle | None = None
        self._paused = self._over = self._abandoned = self._grown = False
        self._after_abandon = 0

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self.fd, self._readable)

    def pause(self) -> None:
        """Read nothing until `resume`, so that whoever writes has to wait."""
        if not self._over and not self._paused:
            self._paused = True
            self._loop.remove_reader(self.fd)

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._paused and not self._over:
            self._paused = False
            self.start()
            self._take_rest()

    def abandon(self) -> None:
        """Take what is there and stop, though somebody may still hold the other end."""
        self._abandoned = True
        self._take_rest()

    def close(self) -> None:
        """Read nothing more; `ended` is not called any more."""
        if not self._over:
            self._over = True
            self._loop.remove_reader(self.fd)
            self._let_go()

    def _take_rest(self) -> None:
        while self._abandoned and not self._over and not self._paused:
            self._readable()

    def _readable(self) -> None:
        try:
            piece = os.read(self.fd, self._chunk - len(self._held))
        except BlockingIOError:
            if self._abandoned:
                self._end()
            return
        except OSError:
            piece = b""
        if not piece:
            self._end()
            return
        if len(piece) >= SMALL and not self._grown:
            self._grow()
        self._take(piece)
        self._after_abandon += len(piece) if self._abandoned else 0
        if self._after_abandon > ABANDONED_LIMIT and not self._over:
            self._end()

    def _grow(self) -> None:
        """Let the pipe hold as much as is read at a time: most processes never say so much."""
        self._grown = True
        with suppress(OSError):  # a user who has many large pipes gets no more of them
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, READ)

    def _take(self, piece: bytes) -> None:
        held = self._let_go()
        whole, self._held = cut_between_characters(held + piece if held else piece)
        if self._held:
            self._grace = self._loop.call_later(SPLIT_GRACE, self._publish_held)
        if whole:
            self._publish(whole)

    def _let_go(self) -> bytes:
        """The bytes that were held back, which are nobody's any more."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        held, self._held = self._held, b""
        return held

    def _publish_held(self) -> None:
        """Nothing came to complete the first bytes of a character."""
        if held := self._let_go():
            self._publish(held)

    def _end(self) -> None:
        self._publish_held()
        self.close()
        self._ended()


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
