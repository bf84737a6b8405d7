"""A small and fast HTTP/2 server for loads that the fault server is too slow for: frames by hand, one thread for all.

It never decodes header blocks: our encoder writes paths as they are, so that what a request asks for can be found in
its bytes. `/hold` is answered by headers and one piece without an end, `/bytes` by 2 MB as the windows permit, and
everything else by "hello".
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from typing import Self

from grotte._proto.http2 import frames

PREFACE_SIZE = 24
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
DOWNLOAD = 2_000_000
STATUS_200 = b"\x88"


class FastServer:
    """Serves on a thread of its own until the block around it ends.

    Attributes:
        answered: How many requests got a complete answer, or the beginning of a held one.
        resets: How many streams clients gave up.
        connections: All that were ever accepted.
    """

    def __init__(self, *, cap: int = 100, goaway_every: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.cap = cap
        self.goaway_every = goaway_every
        self.answered = 0
        self.resets = 0
        self.connections: list[FastConnection] = []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        start = self._loop.create_server(lambda: FastConnection(self), sock=self._listener, ssl=self._tls)
        server = self._loop.run_until_complete(start)
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for connection in self.connections:
                connection.transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


class FastConnection(asyncio.Protocol):
    """One client."""

    transport: asyncio.Transport

    def __init__(self, server: FastServer) -> None:
        self._server = server
        self._data = bytearray()
        self._out = bytearray()
        self._greeted = self._over = False
        self._served = 0
        self._newest = 0
        #: GOAWAY has promised that streams above this are not served.
        self._last = 2**31 - 1
        self._unanswered: set[int] = set()
        self._holding: set[int] = set()
        #: What is still to be sent of downloads, and what may be.
        self._left: dict[int, int] = {}
        self._windows: dict[int, int] = {}
        self._window = self._initial = frames.DEFAULT_WINDOW

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.append(self)
        values = {MAX_CONCURRENT_STREAMS: self._server.cap, INITIAL_WINDOW_SIZE: 1 << 20}
        transport.write(frames.settings(values) + frames.window_update(0, 1 << 30))

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._data += data
        if not self._greeted:
            if len(self._data) < PREFACE_SIZE:
                return
            del self._data[:PREFACE_SIZE]
            self._greeted = True
        position, buffer = 0, bytes(self._data)
        while position + frames.FRAME_HEADER_SIZE <= len(buffer):
            high, low, kind, flags, stream = frames.HEADER.unpack_from(buffer, position)
            end = position + frames.FRAME_HEADER_SIZE + (high << 16 | low)
            if end > len(buffer):
                break
            self._on_frame(kind, flags, stream, buffer[position + frames.FRAME_HEADER_SIZE : end])
            position = end
        del self._data[:position]
        self._send_downloads()
        if self._out:
            self.transport.write(bytes(self._out))
            self._out.clear()
        if self._last < 2**31 - 1 and not (self._left or self._holding or self._unanswered):
            self._over = True
            self.transport.write_eof()  # and go on reading: closing with bytes unread costs the client answers

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == frames.DATA and payload:
            self._out += frames.window_update(0, len(payload))
        elif kind == frames.PING and not flags & frames.ACK:
            self._out += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            for name, value in struct.iter_unpack(">HL", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self._initial = value
            self._out += frames.frame(frames.SETTINGS, frames.ACK, 0)
        elif kind == frames.WINDOW_UPDATE:
            (increment,) = frames.UINT32.unpack(payload)
            if stream in self._windows:
                self._windows[stream] += increment
            elif not stream:
                self._window += increment
        elif kind == frames.RST_STREAM:
            self._server.resets += 1
            self._unanswered.discard(stream)
            self._holding.discard(stream)
            self._left.pop(stream, None)
            self._windows.pop(stream, None)
        if kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
            self._on_end(stream)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream > self._last:
            return
        self._unanswered.add(stream)
        self._newest = stream
        if b"/hold" in payload:
            self._holding.add(stream)
        elif b"/bytes" in payload:
            self._left[stream], self._windows[stream] = DOWNLOAD, self._initial

    def _on_end(self, stream: int) -> None:
        if stream > self._last:
            return
        self._unanswered.remove(stream)
        self._served += 1
        self._server.answered += 1
        self._out += frames.frame(frames.HEADERS, frames.END_HEADERS, stream, STATUS_200)
        if stream in self._holding:
            self._out += frames.frame(frames.DATA, 0, stream, b"held")
        elif stream not in self._left:
            self._out += frames.frame(frames.DATA, frames.END_STREAM, stream, b"hello")
        if self._served == self._server.goaway_every and self._last == 2**31 - 1:
            self._last = self._newest
            self._out += frames.frame(frames.GOAWAY, 0, 0, frames.TWO_UINT32.pack(self._last, 0))

    def _send_downloads(self) -> None:
        for stream in list(self._left):
            while size := min(self._left[stream], self._windows[stream], self._window, 16_384):
                self._left[stream] -= size
                self._windows[stream] -= size
                self._window -= size
                ends = not self._left[stream]
                self._out += frames.frame(frames.DATA, frames.END_STREAM if ends else 0, stream, bytes(size))
                if ends:
                    del self._left[stream], self._windows[stream]
                    break
