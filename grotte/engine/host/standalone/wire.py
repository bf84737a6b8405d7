"""The guest's end of the link to the engine: length-prefixed JSON over a unix socket, with descriptors."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from collections.abc import Sequence

HEADER = struct.Struct(">I")
MAX_FRAME = 16 << 20
MAX_FDS = 4

Json = dict[str, object]


class RefusedError(Exception):
    """A request that the guest refuses.

    Attributes:
        code: A Connect code.
        message: What to tell the caller.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Wire:
    """Frames to and from the engine. Any thread may send; one receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._fds: list[int] = []

    def send(self, message: Json, fds: Sequence[int] = ()) -> None:
        """Send one frame; the descriptors stay open here."""
        if fds:
            message["fds"] = len(fds)
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > MAX_FRAME:
            message = {"id": message.get("id"), "error": ["resource_exhausted", "the answer is too large"]}
            body = json.dumps(message).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._lock:
            sent = self.sock.sendmsg([HEADER.pack(len(body)), body], rights)
            rest = memoryview(HEADER.pack(len(body)) + body)[sent:]
            if rest:
                self.sock.sendall(rest)

    def receive(self) -> list[tuple[Json, list[int]]]:
        """Read what there is; return the requests that are complete, each with its descriptors.

        Raises:
            EOFError: The engine closed the link.
        """
        data, ancillary, _, _ = self.sock.recvmsg(256 << 10, socket.CMSG_SPACE(16 * MAX_FDS), socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self._fds.extend(received)
        if not data:
            raise EOFError
        self._buffer += data
        return self._complete()

    def _complete(self) -> list[tuple[Json, list[int]]]:
        requests = []
        while len(self._buffer) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            message: Json = json.loads(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            count = message.pop("fds", 0)
            assert isinstance(count, int)
            fds, self._fds = self._fds[:count], self._fds[count:]
            requests.append((message, fds))
        return requests


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
