"""The engine's end of the link to one guest: requests, answers and the ends of processes, on the event loop.

There is no task here: the event loop calls back when the socket has something to say, so nothing has to be cancelled
and nothing can be forgotten.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from .frames import FrameDecoder, FrameError, GuestMessage, close_all, encode
from .spec import GuestError

CHUNK = 256 << 10
#: How many questions, and how many bytes of them, may wait for a guest: programs inside can keep it from answering.
MAX_WAITING, MAX_QUEUED = 8192, 64 << 20
ANCILLARY = socket.CMSG_SPACE(256 * 4)

Answer = tuple[msgspec.Raw, list[int]]
Abandoned = Callable[[msgspec.Raw], None]


class GuestLink:
    """Requests to a guest and what comes back.

    Args:
        sock: The connected socket, which the link owns from now on.
        on_event: Called with every event of the guest.
        on_closed: Called once, when the guest hung up or broke the protocol.
    """

    def __init__(
        self, sock: socket.socket, on_event: Callable[[GuestMessage], None], on_closed: Callable[[str], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._on_event = on_event
        self._on_closed = on_closed
        self._waiting: dict[int, tuple[asyncio.Future[Answer], Abandoned | None]] = {}
        self._outgoing: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._queued = 0
        self._next_id = 0
        self._closed: str | None = None
        self._loop.add_reader(sock, self._readable)

    async def request(
        self, op: str, arguments: dict[str, object], fds: Sequence[int] = (), abandoned: Abandoned | None = None
    ) -> Answer:
        """Ask the guest for something.

        Args:
            op: The operation.
            arguments: Its arguments.
            fds: Descriptors to send along; they stay the caller's, and must stay open until the answer.
            abandoned: Called with a successful answer that came after the caller was cancelled.

        Returns:
            The undecoded result, and descriptors that are now the caller's to close.

        Raises:
            GuestError: The guest refused, or is gone.
        """
        if self._closed is not None:
            raise gone(self._closed)
        if len(self._waiting) >= MAX_WAITING or self._queued >= MAX_QUEUED:
            raise GuestError("resource_exhausted", "too much waits for an answer of this sandbox")
        self._next_id += 1
        message = {**arguments, "id": self._next_id, "op": op}
        if fds:
            message["fds"] = len(fds)
        try:
            frame = encode(message)
        except (ValueError, msgspec.MsgspecError) as error:
            raise GuestError("invalid_argument", "the request is too long or not valid text") from error
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[self._next_id] = future, abandoned
        self._send(frame, fds)
        try:
            return await future
        except asyncio.CancelledError:
            self._drop_answer(future, abandoned)
            raise
        finally:
            del future  # an exception in it knows this frame: a cycle, with all that waits for the answer

    def _drop_answer(self, future: asyncio.Future[Answer], abandoned: Abandoned | None) -> None:
        """The caller was cancelled; the answer may have come at the same moment, and then nobody else knows of it."""
        if not future.done() or future.cancelled() or future.exception() is not None:
            return
        result, fds = future.result()
        close_all(fds)
        if abandoned is not None and self._closed is None:
            try:
                self._abandon(abandoned, result)
            except FrameError:
                self.close("the guest broke the protocol")

    def post(self, op: str, arguments: dict[str, object]) -> None:
        """Ask for something whose answer nobody needs."""
        if self._closed is None:
            self._next_id += 1
            future: asyncio.Future[Answer] = self._loop.create_future()
            future.cancel()
            self._waiting[self._next_id] = future, None
            self._send(encode({**arguments, "id": self._next_id, "op": op}), ())

    def close(self, reason: str = "the sandbox was closed") -> None:
        """Hang up; every request that waits fails."""
        if self._closed is not None:
            return
        self._closed = reason
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._decoder.close()
        for _, fds in self._outgoing:
            close_all(fds)
        self._outgoing.clear()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(gone(reason))
        self._waiting.clear()
        # Whoever listened knows this link as well: a cycle would keep all that is known of the sandbox for long.
        tell, self._on_closed, self._on_event = self._on_closed, _ignore, _ignore
        tell(reason)

    def _send(self, frame: bytes, fds: Sequence[int]) -> None:
        # Duplicates, so that a caller who is cancelled may close his own at once.
        self._queued += len(frame)
        self._outgoing.append((memoryview(frame), [_duplicate(fd) for fd in fds]))
        if len(self._outgoing) == 1:
            self._writable()

    def _writable(self) -> None:
        while self._outgoing:
            frame, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([frame[:CHUNK]], rights)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError:
                self.close("the sandbox is gone")
                return
            close_all(fds)
            self._queued -= sent
            if sent < len(frame):
                self._outgoing[0] = frame[sent:], ()
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(CHUNK, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self.close("the sandbox is gone")
            return
        fds = _descriptors(ancillary)
        if not data or flags & socket.MSG_CTRUNC:
            close_all(fds)
            self.close("the sandbox is gone" if not data else "the guest broke the protocol")
            return
        messages: list[tuple[GuestMessage, list[int]]] = []
        try:
            messages = self._decoder.feed(data, fds)
            while messages:
                message, taken = messages.pop(0)
                self._dispatch(message, taken)
        except FrameError:
            close_all(fd for _, taken in messages for fd in taken)
            self.close("the guest broke the protocol")

    def _dispatch(self, message: GuestMessage, fds: list[int]) -> None:
        if message.event is not None and not fds:
            self._on_event(message)
            return
        waiting = self._waiting.pop(message.id or 0, None)
        if waiting is None:
            close_all(fds)
            raise FrameError("an answer to no question")
        future, abandoned = waiting
        if future.done():
            close_all(fds)
            if abandoned is not None and message.error is None:
                self._abandon(abandoned, message.ok)
        elif message.error is not None:
            close_all(fds)
            future.set_exception(GuestError(*message.error))
        else:
            future.set_result((message.ok, fds))

    @staticmethod
    def _abandon(abandoned: Abandoned, result: msgspec.Raw) -> None:
        try:
            abandoned(result)
        except GuestError as error:
            raise FrameError(error.message) from error


def gone(reason: str) -> GuestError:
    """Return the error of every call on a sandbox that is no more."""
    return GuestError("unavailable", reason)


def _ignore(said: object) -> None:
    """Nobody listens any more."""


def _duplicate(fd: int) -> int:
    return os.dup(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return list(fds)
