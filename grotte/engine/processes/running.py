"""Programs that the engine itself runs in a sandbox, from their start to their end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio import to_thread

from grotte.engine.host import ExitStatus, Guest, SpawnedProcess, SpawnRequest
from grotte.engine.processes.output import Pipe

#: How long a program that nobody waits for any more may take to die, in seconds.
KILL_GRACE = 5.0
PIECE = 256 * 1024
#: A line that is longer is cut, in characters.
MAX_LINE = 16 * 1024

#: Called with each line, and whether it is stderr's.
OnLine = Callable[[str, bool], None]


@dataclass(slots=True)
class _Lines:
    """Whole lines of a stream of pieces.

    Attributes:
        failure: What went wrong with a line: the event loop brings pieces, which is nobody to tell.
    """

    on_line: OnLine
    is_error: bool
    held: str = ""
    failure: Exception | None = None

    def add(self, piece: bytes) -> None:
        try:
            self._add(piece)
        except Exception as error:  # noqa: BLE001  (raised by `end`)
            self.failure = self.failure or error

    def _add(self, piece: bytes) -> None:
        *lines, self.held = (self.held + piece.decode(errors="replace")).split("\n")
        while len(self.held) > MAX_LINE:
            lines.append(self.held[:MAX_LINE])
            self.held = self.held[MAX_LINE:]
        for line in lines:
            self.on_line(line.rstrip("\r"), self.is_error)

    def end(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.held:
            self.on_line(self.held, self.is_error)


async def run(guest: Guest, request: SpawnRequest, on_line: OnLine, stdin: int | None = None) -> ExitStatus:
    """Run a program to its end; a cancelled one is killed.

    Args:
        guest: Where.
        request: What.
        on_line: Is told of every line of its output as it comes.
        stdin: A file of the engine's that it gets to read, if it was asked for with a standard input.

    Raises:
        GuestError: it could not be started.
    """
    spawned = await guest.spawn(request)
    assert spawned.stderr is not None
    streams = [_Lines(on_line, is_error=False), _Lines(on_line, is_error=True)]
    fds = [spawned.stdout, spawned.stderr]
    pipes = [Pipe(fd, lines.add, _ignore) for fd, lines in zip(fds, streams, strict=True)]
    try:
        status = await _see_through(spawned, pipes, stdin)
    except BaseException:
        with anyio.move_on_after(KILL_GRACE, shield=True):
            await guest.kill_tree(spawned.pid)
        raise
    finally:
        for pipe in pipes:
            pipe.close()
            os.close(pipe.fd)
    for lines in streams:
        lines.end()
    return status


async def _see_through(spawned: SpawnedProcess, pipes: list[Pipe], stdin: int | None) -> ExitStatus:
    async with anyio.create_task_group() as tasks:
        for pipe in pipes:
            pipe.start()
        if spawned.stdin is not None:
            tasks.start_soon(_feed, spawned.stdin, stdin)
        status = await spawned.wait()
        # Abandoned pipes are read empty; what the program left behind may hold them open for ever.
        for pipe in pipes:
            pipe.abandon()
    return status


def _ignore() -> None:
    """What counts is the end of the program, not that of its output."""


async def _feed(target: int, source: int | None) -> None:
    """Write a file to a program; that it reads no further is its own business."""
    try:
        while source is not None and (piece := memoryview(await to_thread.run_sync(os.read, source, PIECE))):
            while piece:
                try:
                    piece = piece[os.write(target, piece) :]
                except BlockingIOError:
                    await anyio.wait_writable(target)
    except BrokenPipeError:
        pass
    finally:
        anyio.notify_closing(target)
        os.close(target)
