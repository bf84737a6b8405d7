"""One process of a sandbox, from its start until 30 seconds after its end."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable
from functools import partial

import anyio

from grotte._proto.connect import pack
from grotte._proto.messages import DataEvent, EndEvent, ProcessConfig, ProcessEvent, ProcessEventResponse, encode
from grotte._proto.resume import RAW_FLAGS
from grotte.engine.faults import RpcFault
from grotte.engine.host import ExitStatus, Guest, GuestError, SpawnedProcess, TerminalSize
from grotte.engine.processes.output import CHUNK, READ, TERMINAL_CHUNK, Pipe, cut
from grotte.engine.processes.spool import Allowance, Piece, Spool

log = logging.getLogger("grotte.engine")

#: What signals are called by those who wrote the protocol.
_SIGNAL_NAMES = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
}


def pack_event(event: ProcessEvent) -> bytes:
    """One event as an envelope."""
    return pack(encode(ProcessEventResponse(event=event)))


def pack_output(pieces: list[Piece]) -> bytes:
    """Output as the envelopes of its events."""
    return b"".join(
        pack_event(ProcessEvent(data=_EVENTS[piece.stream](data)))
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
    name = _SIGNAL_NAMES.get(signal.Signals(status.signal)) if status.signal in _KNOWN_SIGNALS else None
    text = f"signal: {name or f'signal {status.signal}'}" + (" (core dumped)" if status.core_dumped else "")
    why = f"{text} ({reason})" if reason and status.signal == signal.SIGKILL else text
    return EndEvent(exit_code=-1, exited=False, status=text, error=why)


_KNOWN_SIGNALS = frozenset(signal.Signals)


class Process:
    """A process that runs or ran.

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
        self._stdin_lock = anyio.Lock(fast_acquire=True)
        if spawned.stderr is None:
            self.output = Spool(["pty"], allowance)
            self._pipes = [self._pipe(spawned.stdout, "pty", TERMINAL_CHUNK)]
        else:
            self.output = Spool(["stdout", "stderr"], allowance)
            self._pipes = [self._pipe(spawned.stdout, "stdout"), self._pipe(spawned.stderr, "stderr")]
        self._leave_pipes = self._reaped = False
        self._pumping = len(self._pipes)
        self._drained = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def running(self) -> bool:
        return self.end is None and not self.lost

    @property
    def has_terminal(self) -> bool:
        return self._spawned.stderr is None

    def _pipe(self, fd: int, stream: str, chunk: int = READ) -> Pipe:
        return Pipe(fd, partial(self.output.put, stream), chunk)

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self, deadline: float | None) -> None:
        """See the process to its end: move its output, reap it, kill it when its time is up.

        Args:
            deadline: On the event loop's clock; None for never.
        """
        status: ExitStatus | None = None
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    for pipe in self._pipes:
                        tasks.start_soon(self._pump, pipe)
                    status = await self._reap(deadline)
                    self._reaped = True
                    if self._leave_pipes:
                        self._abandon_pipes()
                    await self._drain(None if self._leave_pipes else deadline)
        except GuestError as error:
            log.warning("event=process_lost pid=%d reason=%s", self.pid, error)
        except Exception:
            # One process's trouble must not end the engine, whose task this is.
            log.exception("event=process_failed pid=%d", self.pid)
        finally:
            self._finish(status)

    async def _reap(self, deadline: float | None) -> ExitStatus:
        if deadline is not None:
            with anyio.CancelScope(deadline=deadline):
                return await self._spawned.wait()
            self._leave_pipes = True
            await self._guest.kill_tree(self.pid)
        return await self._spawned.wait()

    async def _pump(self, pipe: Pipe) -> None:
        await pipe.pump()
        self._pumping -= 1
        if not self._pumping:
            self._drained.set()

    async def _drain(self, deadline: float | None) -> None:
        """Wait for the end of its output, which what it left behind may hold open; that goes when the time is up."""
        with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
            await self._drained.wait()
            return
        await self._guest.kill_tree(self.pid)
        self._abandon_pipes()

    def _abandon_pipes(self) -> None:
        for pipe in self._pipes:
            pipe.abandon()

    def lose(self) -> None:
        """The sandbox is gone, and the process with it."""
        self._scope.cancel()

    def _finish(self, status: ExitStatus | None) -> None:
        gone = status is None or (status.code is None and status.signal is None)
        self.lost = gone or self._scope.cancelled_caught
        self.end = None if self.lost or status is None else end_event(status, self._guest.quota.full)
        self.ended_at = anyio.current_time()
        self._shut_stdin()
        for pipe in self._pipes:
            os.close(pipe.fd)
        self.output.end()

    async def send_signal(self, signum: int) -> None:
        """Signal this one process; what it left behind, if it has ended and that still holds its output open.

        Raises:
            RpcFault: not_found, it has ended.
        """
        self._leave_pipes = True
        found = self.running and await self._guest.signal(self.pid, signum)
        if self.running and self._reaped:  # it is listed until its output ends, which is now
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
            anyio.notify_closing(fd)
            os.close(fd)
