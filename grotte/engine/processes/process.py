"""One process of a sandbox, from its start until 30 seconds after its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from grotte._proto.connect import pack
from grotte._proto.messages import DataEvent, EndEvent, ProcessConfig, ProcessEvent, ProcessEventResponse, encode
from grotte._proto.resume import RAW_FLAGS
from grotte._proto.signals import SIGNALS
from grotte.engine.faults import RpcFault
from grotte.engine.host import ExitStatus, Guest, GuestError, SpawnedProcess, TerminalSize
from grotte.engine.processes.output import CHUNK, READ, TERMINAL_CHUNK, Pipe, cut
from grotte.engine.processes.spool import Allowance, Piece, Spool

log = logging.getLogger("grotte.engine")


def pack_json(message: ProcessEventResponse) -> bytes:
    """One message as an envelope."""
    return pack(encode(message))


def pack_output(pieces: list[Piece], packed: Callable[[ProcessEventResponse], bytes] = pack_json) -> bytes:
    """Output as the envelopes of its events."""
    return b"".join(
        packed(ProcessEventResponse(event=ProcessEvent(data=_EVENTS[piece.stream](data))))
        for piece in pieces
        for data in cut(piece.data, TERMINAL_CHUNK if piece.stream == "pty" else CHUNK)
    )


def pack_raw(pieces: list[Piece]) -> bytes:
    """Output as it is, in envelopes that name the stream: for clients that asked for it."""
    parts: list[bytes] = []
    for piece in pieces:
        parts += (bytes((RAW_FLAGS[piece.stream],)), len(piece.data).to_bytes(4, "big"), piece.data)
    return b"".join(parts)


#: What a piece of each stream is as an event.
_EVENTS: dict[str, Callable[[bytes], DataEvent]] = {
    "stdout": lambda data: DataEvent(stdout=data),
    "stderr": lambda data: DataEvent(stderr=data),
    "pty": lambda data: DataEvent(pty=data),
}


def end_event(status: ExitStatus, reason: str = "") -> EndEvent:
    """How a process ended, in the words of the protocol.

    Args:
        status: As the kernel tells it.
        reason: Why it was killed, if it was, and the engine knows.
    """
    if status.signal is None:
        code = status.code or 0
        text = f"exit status {code}"
        return EndEvent(exit_code=code, exited=True, status=text, error=text if code else None)
    words = SIGNALS[status.signal][1] if status.signal in SIGNALS else f"signal {status.signal}"
    text = f"signal: {words}" + (" (core dumped)" if status.core_dumped else "")
    why = f"{text} ({reason})" if reason and status.signal == signal.SIGKILL else text
    return EndEvent(exit_code=-1, exited=False, status=text, error=why)


class Process:
    """A process that runs or ran.

    No task sees it through: the event loop calls back with its output, its end and the end of its time.

    Attributes:
        end: The event that said how it ended, once it has.
        lost: It ended with its sandbox, nobody knows how.
        output: The last of what it said.
    """

    def __init__(
        self, guest: Guest, spawned: SpawnedProcess, config: ProcessConfig, tag: str | None, allowance: Allowance
    ) -> None:
        self.pid = spawned.pid
        self.config = config
        self.tag = tag
        self.end: EndEvent | None = None
        self.ended_at = 0.0
        self.lost = False
        self._guest = guest
        self._spawned = spawned
        self._stdin = spawned.stdin
        self._stdin_lock = asyncio.Lock()
        if spawned.stderr is None:
            self.output = Spool(["pty"], allowance)
            self._pipes = [self._pipe(spawned.stdout, "pty", TERMINAL_CHUNK)]
        else:
            self.output = Spool(["stdout", "stderr"], allowance)
            self._pipes = [self._pipe(spawned.stdout, "stdout"), self._pipe(spawned.stderr, "stderr")]
        self._pumping = len(self._pipes)
        self._leave_pipes = self._over = False
        self._status: ExitStatus | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._on_end: Callable[[Process], None]

    @property
    def running(self) -> bool:
        return not self._over

    @property
    def has_terminal(self) -> bool:
        return self._spawned.stderr is None

    def _pipe(self, fd: int, stream: str, chunk: int = READ) -> Pipe:
        return Pipe(fd, partial(self._said, stream), self._pipe_ended, chunk)

    # -- life ----------------------------------------------------------------------------------------------------

    def see_through(self, tasks: TaskGroup, deadline: float | None, on_end: Callable[[Process], None]) -> None:
        """Move its output, reap it, kill it when its time is up.

        Args:
            tasks: Where it is killed.
            deadline: When its time is up, on the event loop's clock; None for never.
            on_end: Called when it has ended and has no more to say.
        """
        self._on_end = on_end
        for pipe in self._pipes:
            pipe.start()
        self._spawned.when_ended(self._reaped)
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_at(deadline, lambda: tasks.start_soon(self._end_in_time))

    def _said(self, stream: str, data: bytes) -> None:
        self.output.put(stream, data)
        if self.output.full:
            for pipe in self._pipes:
                pipe.pause()
            self.output.when_room(self._go_on)

    def _go_on(self) -> None:
        for pipe in self._pipes:
            pipe.resume()

    def _pipe_ended(self) -> None:
        self._pumping -= 1
        self._finish_if_drained()

    def _reaped(self, status: ExitStatus) -> None:
        self._status = status
        if self._leave_pipes:
            self._abandon_pipes()
        self._finish_if_drained()

    def _finish_if_drained(self) -> None:
        """What it left behind may hold its output open after its end."""
        if self._status is not None and not self._pumping:
            self._finish()

    async def _end_in_time(self) -> None:
        """Its time is up, and that of what it left behind."""
        try:
            await self._guest.kill_tree(self.pid)
        except GuestError as error:
            log.warning("event=process_lost pid=%d reason=%s", self.pid, error)
            self._finish()
        self._leave_pipes = True
        if self._status is not None:
            self._abandon_pipes()

    def _abandon_pipes(self) -> None:
        for pipe in self._pipes:
            pipe.abandon()

    def lose(self) -> None:
        """The sandbox is gone, and the process with it."""
        self._status = None
        self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        status = self._status
        self.lost = status is None or (status.code is None and status.signal is None)
        self.end = None if self.lost or status is None else end_event(status, self._guest.quota.full)
        self.ended_at = anyio.current_time()
        self._shut_stdin()
        pipes, self._pipes = self._pipes, []  # which know us: a cycle would keep for long what was said
        for pipe in pipes:
            pipe.close()
            os.close(pipe.fd)
        self.output.end()
        self._on_end(self)

    async def send_signal(self, signum: int) -> None:
        """Signal this one process; what it left behind, if it has ended and that still holds its output open.

        Raises:
            RpcFault: not_found, it has ended.
        """
        self._leave_pipes = True
        found = self.running and await self._guest.signal(self.pid, signum)
        if self.running and self._status is not None:  # it is listed until its output ends, which is now
            self._abandon_pipes()
        elif not found:
            raise RpcFault("not_found", f"process with pid {self.pid} not found")

    async def resize(self, size: TerminalSize) -> None:
        """Resize its terminal.

        Raises:
            RpcFault: internal, it has none; not_found, it has ended.
        """
        if not self.has_terminal:
            raise RpcFault("internal", "the process has no terminal to resize")
        if not await self._guest.resize(self.pid, size):
            raise RpcFault("not_found", f"process with pid {self.pid} not found")

    # -- input ---------------------------------------------------------------------------------------------------

    async def write_stdin(self, data: bytes) -> None:
        """Write all of it, as fast as the process reads.

        Raises:
            RpcFault: internal, its stdin is closed, never was open, or is a terminal.
        """
        if self.has_terminal:
            raise RpcFault("internal", "error writing to stdin: the process has a terminal, which takes pty input")
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        async with self._stdin_lock:
            view = memoryview(data)
            while True:
                if self._stdin is None:
                    raise RpcFault("internal", "error writing to stdin: stdin not enabled or closed")
                if not view:
                    return
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._wait_writable(self._stdin)
                except OSError as error:
                    raise RpcFault("internal", f"error writing to stdin: {error.strerror}") from None

    async def _wait_writable(self, fd: int) -> None:
        try:
            await anyio.wait_writable(fd)
        except anyio.ClosedResourceError:
            raise RpcFault("internal", "error writing to stdin: stdin was closed") from None

    async def type(self, data: bytes) -> None:
        """Write to its terminal.

        Raises:
            RpcFault: internal, it has none.
        """
        if not self.has_terminal:
            raise RpcFault("internal", "error writing to pty: the process has no terminal")
        await self._write(data)

    def close_stdin(self) -> None:
        """Give the process the end of its input; does nothing the second time.

        Raises:
            RpcFault: unknown, it has a terminal.
        """
        if self.has_terminal:
            raise RpcFault("unknown", "a terminal's input cannot be closed: send Ctrl+D to it instead")
        self._shut_stdin()

    def _shut_stdin(self) -> None:
        if self._stdin is not None:
            fd, self._stdin = self._stdin, None
            if self._stdin_lock.locked():
                anyio.notify_closing(fd)  # for whoever waits until it takes more
            os.close(fd)
