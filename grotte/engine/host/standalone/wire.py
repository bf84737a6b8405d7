"""The guest's end of the link to the engine: length-prefixed JSON over a unix socket, with descriptors."""

from __future__ import annotations

import posix

from . import notation
from .lean import CMSG_SPACE, MSG_CMSG_CLOEXEC, allocate_lock, received_fds, rights, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER_SIZE = 4
MAX_FRAME = 16 << 20
MAX_FDS = 4
CHUNK = 32 << 10  # for more than that, libc asks the kernel for memory each time

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

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self._lock = allocate_lock()
        self._buffer = bytearray()
        self._fds: list[int] = []

    def send(self, message: Json, fds: Sequence[int] = ()) -> None:
        """Send one frame; the descriptors stay open here."""
        if fds:
            message["fds"] = len(fds)
        body = notation.dumps(message)
        if len(body) > MAX_FRAME:
            message = {"id": message.get("id"), "error": ["resource_exhausted", "the answer is too large"]}
            body = notation.dumps(message)
        frame = len(body).to_bytes(HEADER_SIZE, "big") + body
        with self._lock:
            sent = self.sock.sendmsg([frame], rights(fds))
            if sent < len(frame):
                self.sock.sendall(memoryview(frame)[sent:])

    def receive(self) -> list[tuple[Json, list[int]]]:
        """Read what there is; return the requests that are complete, each with its descriptors.

        Raises:
            EOFError: The engine closed the link.
        """
        data, ancillary, _, _ = self.sock.recvmsg(CHUNK, CMSG_SPACE(16 * MAX_FDS), MSG_CMSG_CLOEXEC)
        self._fds += received_fds(ancillary)
        if not data:
            raise EOFError
        self._buffer += data
        return self._complete()

    def _complete(self) -> list[tuple[Json, list[int]]]:
        requests = []
        while len(self._buffer) >= HEADER_SIZE:
            end = HEADER_SIZE + int.from_bytes(self._buffer[:HEADER_SIZE], "big")
            if len(self._buffer) < end:
                break
            message = notation.loads(self._buffer[HEADER_SIZE:end])
            assert isinstance(message, dict)
            del self._buffer[:end]
            count = message.pop("fds", 0)
            assert isinstance(count, int)
            fds, self._fds = self._fds[:count], self._fds[count:]
            requests.append((message, fds))
        return requests


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        posix.close(fd)
