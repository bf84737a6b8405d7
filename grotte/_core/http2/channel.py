"""A connected socket, with or without TLS, as two calls that never block: send what fits, receive what is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from grotte._proto.tls import TlsPump

#: More per system call costs a large allocation; what is still there after a full read follows at once.
READ_SIZE = 64 * 1024
#: Bytes taken from the socket before others get their turn.
READ_BUDGET = 1024 * 1024


class Channel:
    """Bytes to and from the peer. Not thread-safe; raises OSError and ssl.SSLError as they come."""

    def __init__(self, sock: socket.socket, tls: TlsPump | None) -> None:
        self.socket = sock
        self.tls = tls
        #: The peer has closed its side.
        self.ended = False
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

    def receive(self) -> Iterator[bytes]:
        """The plain bytes that are there, in pieces; sets `ended` at the end of the stream."""
        budget = READ_BUDGET
        while budget > 0 and not self.ended:
            try:
                data = self.socket.recv(READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            self.bytes_received += len(data)
            budget -= len(data)
            if not data:
                self.ended = True
            elif self.tls is None:
                yield data
            else:
                yield from self._decrypted(self.tls, data)
            if len(data) < READ_SIZE:
                return

    def _decrypted(self, tls: TlsPump, data: bytes) -> Iterator[bytes]:
        tls.receive(data)
        while plain := tls.read():
            yield plain
        self.ended = self.ended or tls.ended

    def close(self) -> None:
        """Close the socket; the peer sees the end of the stream."""
        self.socket.close()
