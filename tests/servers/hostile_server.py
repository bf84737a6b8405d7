"""A server that attacks its first client, and serves all later ones well; frames by hand, a thread a client."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator

from grotte._proto.http2 import frames
from grotte._proto.http2.hpack import integers
from tests.servers.threaded import ThreadedServer

OK = b"\x88"
#: What is sent to the first client once its request is there, given the stream's id.
Attack = Callable[[int], Iterable[bytes]]


class HostileServer(ThreadedServer):
    """Serves until the block around it ends.

    Attributes:
        sent: Bytes of the attack that were taken.
        clients: How many connected.
    """

    def __init__(
        self,
        attack: Attack,
        *,
        tls: ssl.SSLContext | None = None,
        cut: bool = False,
        greeting: bytes | None = None,
    ) -> None:
        """Make one that listens.

        Args:
            attack: What the first client gets.
            tls: Speak it.
            cut: Close in the middle of the attack's TLS record.
            greeting: Say only this, to everybody.
        """
        super().__init__()
        self._attack = attack
        self._tls = tls
        self._cut = cut
        self._greeting = greeting
        self.sent = 0
        self.clients = 0

    def _welcome(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        self.clients += 1
        self._start(self._serve, sock, self.clients == 1)

    def _serve(self, sock: socket.socket, hostile: bool) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), sock:
            if self._greeting is not None:
                sock.sendall(self._greeting)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass
                return
            line = Line(sock, self._tls)
            if line.protocol == "http/1.1":
                line.answer_http1(b"old")
                return
            line.send(frames.settings({}))
            for kind, flags, stream in line.frames():
                if kind not in (frames.HEADERS, frames.DATA) or not flags & frames.END_STREAM:
                    continue
                if not hostile:
                    line.send(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, OK))
                    line.send(frames.frame(frames.DATA, frames.END_STREAM, stream, b"hello"))
                    continue
                for piece in self._attack(stream):
                    line.send(piece, cut=self._cut)
                    self.sent += len(piece)
                    if self._cut:
                        return


class Line:
    """A socket, perhaps with TLS on it whose records can be cut."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if tls is None else tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while self._tls is not None:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(self._outgoing.read())
                self._incoming.write(sock.recv(65_536))

    @property
    def protocol(self) -> str | None:
        return None if self._tls is None else self._tls.selected_alpn_protocol()

    def answer_http1(self, body: bytes) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += self._receive()
        self.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def send(self, data: bytes, *, cut: bool = False) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._sock.sendall(data[: len(data) // 2] if cut else data)

    def _receive(self) -> bytes:
        while self._tls is not None:
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                data = self._sock.recv(65_536)
                if not data:
                    return b""
                self._incoming.write(data)
        return self._sock.recv(65_536)

    def frames(self) -> Iterator[tuple[int, int, int]]:
        """Kind, flags and stream of each frame that arrives, after the preface."""
        data, skip = b"", 24
        while piece := self._receive():
            data += piece
            while len(data) >= skip + frames.FRAME_HEADER_SIZE:
                high, low, kind, flags, stream = frames.HEADER.unpack_from(data, skip)
                end = skip + frames.FRAME_HEADER_SIZE + (high << 16 | low)
                if len(data) < end:
                    break
                data, skip = data[end:], 0
                yield kind, flags, stream


def headers(stream: int, block: bytes, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, stream, block)


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream, content)


def literal(name: bytes, value: bytes, pattern: int = 0x00) -> bytes:
    """A field spelt out; with the pattern 0x40 it enters the table."""
    return bytes([pattern]) + b"".join(integers.encode(len(text), 0x7F, 0) + text for text in (name, value))


def blocks(stream: int, block: bytes) -> Iterator[bytes]:
    """A long block as HEADERS and CONTINUATIONs."""
    yield headers(stream, block[:16_384], 0)
    for start in range(16_384, len(block), 16_384):
        flags = frames.END_HEADERS if start + 16_384 >= len(block) else 0
        yield frames.frame(frames.CONTINUATION, flags, stream, block[start : start + 16_384])


def flood(piece: bytes, start: bytes = b"") -> Iterator[bytes]:
    """64 MiB of the same, if somebody takes that much."""
    yield start
    batch = piece * (65_536 // len(piece) + 1)
    for _ in range((64 << 20) // len(batch)):
        yield batch
