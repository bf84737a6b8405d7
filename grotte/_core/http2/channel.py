"""A connected socket, with or without TLS, as two calls that never block: send what fits, receive what is there."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grotte._proto.tls import TlsPump

#: What one system call reads: at first, and once there was as much as that.
FIRST_READ_SIZE = 16 * 1024
READ_SIZE = 256 * 1024
#: GNU's C library gives memory back to the system, and asks for it again page by page, whenever more lies idle than
#: twice the largest block that was ever freed: with the pieces of a large body, once for every few of them.
IDLE_MEMORY = 2 * 1024 * 1024
NOTHING = memoryview(b"")


class Channel:
    """Bytes to and from the peer. Not thread-safe; raises OSError and ssl.SSLError as they come."""

    def __init__(self, sock: socket.socket, tls: TlsPump | None) -> None:
        self.socket = sock
        self.tls = tls
        #: The peer has closed its side.
        self.ended = False
        #: There may be more than the last `receive` returned; it returned as much as one may.
        self.more = self.full = False
        self._buffer = memoryview(bytearray(FIRST_READ_SIZE))
        self.bytes_sent = 0
        self.bytes_received = 0

    def send(self, wire: bytearray) -> bool:
        """Send from the front of `wire` and remove there what is gone; True when nothing waits any more."""
        if self.tls is None:
            return self._send(wire)
        while True:
            self.tls.write(wire)  # nothing, while an earlier backlog waits
            if not self._send(self.tls.unsent):
                return False
            if not wire:
                return True

    def _send(self, data: bytearray) -> bool:
        while data:
            try:
                sent = self.socket.send(data)
            except (BlockingIOError, InterruptedError):
                return False
            self.bytes_sent += sent
            del data[:sent]
        return True

    def receive(self) -> memoryview:
        """Plain bytes that are there, valid until the next call; sets `ended` and `more`."""
        self.more = self.full = False
        if self.tls is not None and self.tls.failure is not None:
            raise self.tls.failure
        try:
            count = self.socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return NOTHING
        self.bytes_received += count
        self.ended = not count
        data = self._buffer[:count]
        if count == len(self._buffer):
            self.more = True
            self.full = count == READ_SIZE
            if not self.full:
                self._expect_much()
        if self.tls is not None and count:
            self.tls.receive(data)
            data = self.tls.read()
            self.ended = self.tls.ended
            if self.tls.failure is not None:
                self.more, self.full = True, False
        return data

    def _expect_much(self) -> None:
        """Receive in large pieces from now on."""
        self._buffer = memoryview(bytearray(READ_SIZE))
        bytes(IDLE_MEMORY)  # freed at once, and never touched

    def close(self) -> None:
        """Close the socket; the peer sees the end of the stream."""
        self.socket.close()
