"""Frames from a guest, as bytes and descriptors arrive. What a guest says is untrusted."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable

import msgspec

HEADER = struct.Struct(">I")
MAX_FRAME = 16 << 20
MAX_FDS = 4


class GuestMessage(msgspec.Struct, frozen=True):
    """An answer (``id`` with ``ok`` or ``error``) or an event."""

    id: int | None = None
    ok: msgspec.Raw = msgspec.Raw()
    error: tuple[str, str] | None = None
    event: str | None = None
    pid: int = 0
    status: int = 0
    fds: int = 0
    watch: int = 0


class FrameError(Exception):
    """The guest broke the protocol; nothing that follows can be trusted."""


def encode(message: dict[str, object]) -> bytes:
    """Return a message as a frame.

    Raises:
        ValueError: It is longer than a frame may be.
    """
    body = msgspec.json.encode(message)
    if len(body) > MAX_FRAME:
        raise ValueError("the message is too long")
    return HEADER.pack(len(body)) + body


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, whatever state they are in."""
    for fd in fds:
        with contextlib.suppress(OSError):  # closed, even if the file behind it had something to complain about
            os.close(fd)


class FrameDecoder:
    """Cuts a stream into messages, each with the descriptors that came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._decoder = msgspec.json.Decoder(GuestMessage)

    def feed(self, data: bytes, fds: Iterable[int] = ()) -> list[tuple[GuestMessage, list[int]]]:
        """Take bytes with their descriptors; return what is complete. Descriptors returned are the caller's to close.

        Raises:
            FrameError: The guest broke the protocol; every descriptor not yet returned is closed.
        """
        self._buffer += data
        self._fds += fds
        complete: list[tuple[GuestMessage, list[int]]] = []
        try:
            while (message := self._next()) is not None:
                count = message.fds
                if not 0 <= count <= min(MAX_FDS, len(self._fds)):
                    raise FrameError("descriptors are missing")
                complete.append((message, self._fds[:count]))
                del self._fds[:count]
            if len(self._fds) > (MAX_FDS if self._buffer else 0):
                raise FrameError("descriptors that belong to no message")
        except FrameError:
            close_all(fd for _, taken in complete for fd in taken)
            self.close()
            raise
        return complete

    def close(self) -> None:
        """Close the descriptors that no message claimed."""
        close_all(self._fds)
        self._fds.clear()
        self._buffer.clear()

    def _next(self) -> GuestMessage | None:
        if len(self._buffer) < HEADER.size:
            return None
        length = HEADER.unpack_from(self._buffer)[0]
        if length > MAX_FRAME:
            raise FrameError("a frame is too long")
        if len(self._buffer) < HEADER.size + length:
            return None
        body = bytes(memoryview(self._buffer)[HEADER.size : HEADER.size + length])
        del self._buffer[: HEADER.size + length]
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"not a message: {type(error).__name__}") from error
