"""One live sandbox, as the engine's services see it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import msgspec

from . import ports
from .frames import GuestMessage, close_all
from .guest_network import GuestNetwork
from .link import GuestLink
from .opened import require_readable, require_writable
from .quota import Quota, Room
from .spec import Entry, ExitStatus, GuestError, OpenedFile, SpawnRequest, TerminalSize, UploadSlot, UserEntry
from .usage import Usage
from .watch import TakenEvents, Watch

T = TypeVar("T")
MAX_EARLY = 4096
#: Of one list, in as many answers as it takes.
MAX_ENTRIES = 200_000
#: Commands open their own streams by name, too (``/dev/stderr``), and not as the user who made them.
OPEN_TO_ALL = 0o666


class _Spawned(msgspec.Struct):
    pid: int
    user: str


class _Usage(msgspec.Struct):
    cpu: float
    memory: float


class _Found(msgspec.Struct):
    found: bool


class _Watching(msgspec.Struct):
    watch: int


class _Page(msgspec.Struct):
    entries: list[Entry]
    next: int


class _Opened(msgspec.Struct):
    path: str
    token: int = 0


@dataclass(slots=True)
class SpawnedProcess:
    """A process in a sandbox, with the engine's ends of its pipes: non-blocking, and the holder's to close.

    Attributes:
        pid: As seen inside.
        user: The name of the user whose it is.
        stdin: Where to write, or None if it reads ``/dev/null``.
        stdout: Where to read; all that a terminal shows, if it has one.
        stderr: Where to read; None if it has a terminal.
    """

    pid: int
    user: str
    stdin: int | None
    stdout: int
    stderr: int | None
    _ended: asyncio.Future[ExitStatus] = field(repr=False)

    async def wait(self) -> ExitStatus:
        """Wait until it has ended. Any number of callers may wait, and may be cancelled."""
        return await asyncio.shield(self._ended)

    def when_ended(self, tell: Callable[[ExitStatus], None]) -> None:
        """Call back once it has ended."""
        self._ended.add_done_callback(lambda ended: tell(ended.result()))


class Guest:
    """The link to one sandbox.

    Attributes:
        sandbox_id: Which one.
        closed: Set when the sandbox has died, for whatever reason.
        ready: Set when it has said that it can be used.
        settled: Set when it has said so, or has died.
        network: What it may reach.
        quota: What of the disk it may have.
    """

    def __init__(
        self,
        sandbox_id: str,
        sock: socket.socket,
        bury: Callable[[], Awaitable[None]],
        network: GuestNetwork,
        volumes: int = 0,
        room: Room | None = None,
    ) -> None:
        self.sandbox_id = sandbox_id
        self._volumes = volumes  # the type of their file system
        self.network = network
        self.quota = Quota(room or Room())
        self.closed = anyio.Event()
        self.ready = anyio.Event()
        self.settled = anyio.Event()
        self._bury = bury
        self._tell_closed: list[Callable[[], object]] = []
        self._processes: dict[int, asyncio.Future[ExitStatus]] = {}
        self._watches: dict[int, Watch] = {}
        self._spawning = 0
        self._early: dict[int, ExitStatus] = {}  # ended before the caller of spawn() ran again
        self._link = GuestLink(sock, self._event, self._hung_up)

    def when_closed(self, tell: Callable[[], object]) -> None:
        """Call back soon after the sandbox has died, or at once if it has."""
        if self.closed.is_set():
            asyncio.get_running_loop().call_soon(tell)
        else:
            self._tell_closed.append(tell)

    async def spawn(self, request: SpawnRequest) -> SpawnedProcess:
        """Start a process.

        Raises:
            GuestError: It could not be started.
        """
        await self.quota.admit()
        on_terminal = request.terminal is not None
        pipes = [_pipe_from_engine()] if request.stdin or on_terminal else []
        outputs = 1 if on_terminal else 2
        try:
            pipes += [_pipe_to_engine() for _ in range(outputs)]
            theirs = [end for _, end in pipes]
            try:
                answer = await self._spawn(request, theirs)
            finally:
                close_all(theirs)
        except BaseException:
            close_all(ours for ours, _ in pipes)
            raise
        ours = [end for end, _ in pipes]
        stdin = ours.pop(0) if len(ours) > outputs else None
        stderr = None if on_terminal else ours[1]
        return SpawnedProcess(answer.pid, answer.user, stdin, ours[0], stderr, self._watch(answer.pid))

    async def _spawn(self, request: SpawnRequest, fds: list[int]) -> _Spawned:
        arguments: dict[str, object] = {
            "command": [request.cmd, *request.args],
            "envs": request.envs,
            "cwd": request.cwd,
            "user": request.user,
            "pty": request.terminal,
            "identify": request.identify,
        }
        self._spawning += 1
        try:
            answer, extra = await self._link.request("spawn", arguments, fds, self._abandoned_process)
            close_all(extra)
            return _decode(answer, _Spawned)
        finally:
            self._spawning -= 1

    def _watch(self, pid: int) -> asyncio.Future[ExitStatus]:
        ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        if self.closed.is_set():
            ended.set_result(ExitStatus(None, None))
        elif (status := self._early.pop(pid, None)) is not None:
            ended.set_result(status)
        elif pid in self._processes:
            self.hang_up("the guest broke the protocol")
            ended.set_result(ExitStatus(None, None))
        else:
            self._processes[pid] = ended
        if not self._spawning:
            self._early.clear()
        return ended

    def _abandoned_process(self, answer: msgspec.Raw) -> None:
        """A cancelled caller gets no process, so there must be none."""
        self._link.post("kill_tree", {"pid": _decode(answer, _Spawned).pid})

    async def signal(self, pid: int, signum: int) -> bool:
        """Signal a process that was spawned and has not ended; False if there is none."""
        return _decode((await self._ask("signal", pid=pid, signal=signum))[0], _Found).found

    async def resize(self, pid: int, size: TerminalSize) -> bool:
        """Resize the terminal of a process; False if there is no such process.

        Raises:
            GuestError: It has no terminal.
        """
        return _decode((await self._ask("resize", pid=pid, size=size))[0], _Found).found

    async def kill_tree(self, pid: int) -> None:
        """Kill a spawned process with all its descendants."""
        await self._ask("kill_tree", pid=pid)

    async def kill_all(self) -> None:
        """Kill all processes inside; the sandbox itself lives on."""
        await self._ask("kill_all")

    async def stop_all(self) -> None:
        """Stop all processes by signals, for machines that cannot freeze them; see `go_on`.

        Raises:
            GuestError: They cannot be stopped, and run.
        """
        await self._ask("stop_all")

    def go_on(self) -> None:
        """Let the processes that `stop_all` stopped go on."""
        self._link.post("go_on", {})

    async def user(self, name: str) -> UserEntry:
        """Look a user up.

        Raises:
            GuestError: ``unauthenticated``, if there is no such user.
        """
        return _decode((await self._ask("user", name=name))[0], UserEntry)

    async def stat(self, path: str, user: str) -> Entry:
        """Describe a file without following it."""
        return _decode((await self._ask("stat", path=path, user=user))[0], Entry)

    async def list_dir(self, path: str, depth: int, user: str) -> list[Entry]:
        """Describe what is in a directory, and below it down to a depth."""
        found: list[Entry] = []
        seen = 0
        while True:
            answer, _ = await self._ask("list_dir", path=path, depth=depth, skip=seen, user=user)
            page = _decode(answer, _Page)
            found += page.entries
            if page.next <= seen:
                return found
            seen = page.next
            if max(seen, len(found)) > MAX_ENTRIES:
                raise GuestError("resource_exhausted", f"{path}: there are more than {MAX_ENTRIES} entries")

    async def make_dir(self, path: str, user: str) -> Entry:
        """Make a directory with its missing parents."""
        await self.quota.admit_upload()
        return _decode((await self._ask("make_dir", path=path, user=user))[0], Entry)

    async def move(self, source: str, destination: str, user: str) -> Entry:
        """Rename a file or directory."""
        await self.quota.admit()
        return _decode((await self._ask("move", source=source, destination=destination, user=user))[0], Entry)

    async def remove(self, path: str, user: str) -> None:
        """Remove a file or a whole directory; a missing path is no error."""
        await self._ask("remove", path=path, user=user)

    async def open_read(self, path: str, user: str) -> OpenedFile:
        """Open a regular file for reading."""
        answer, fds = await self._link.request("open_read", {"path": path, "user": user})
        try:
            opened = _decode(answer, _Opened)
            info = require_readable(fds, self._volumes)
        except BaseException:
            close_all(fds)
            raise
        return OpenedFile(fds[0], info.st_size, info.st_mtime, opened.path)

    async def open_write(self, path: str, user: str, metadata: Mapping[str, str] | None = None) -> UploadSlot:
        """Open a file that takes the place of the target when it is committed; parents are made.

        Args:
            path: The target.
            user: Whose file it will be.
            metadata: What replaces the target's metadata.
        """
        await self.quota.admit_upload()
        arguments: dict[str, object] = {"path": path, "user": user, "metadata": dict(metadata or {})}
        answer, fds = await self._link.request("open_write", arguments, (), self._abandoned_upload)
        try:
            opened = _decode(answer, _Opened)
            require_writable(fds, self._volumes)
        except BaseException:
            close_all(fds)
            raise
        return UploadSlot(fds[0], opened.path, opened.token)

    def _abandoned_upload(self, answer: msgspec.Raw) -> None:
        self._link.post("abort", {"token": _decode(answer, _Opened).token})

    async def commit(self, slot: UploadSlot) -> Entry:
        """Put an uploaded file in its place."""
        return _decode((await self._ask("commit", token=slot.token))[0], Entry)

    async def abort(self, slot: UploadSlot) -> None:
        """Drop an upload."""
        await self._ask("abort", token=slot.token)

    async def usage(self) -> Usage:
        """What its processes use, as they say themselves: for machines that count nothing for a whole sandbox."""
        told = _decode((await self._ask("usage"))[0], _Usage)
        return Usage(max(0.0, told.cpu), max(0, int(told.memory)), 0)

    async def connect(self, port: int) -> socket.socket:
        """Connect to what listens on a TCP port of the sandbox's loopback; the socket is the caller's to close.

        Args:
            port: 1 to 65535.

        Raises:
            GuestError: ``unavailable``, nothing listens there.
        """
        _, fds = await self._link.request("sockets", {})
        return await ports.connect(fds, port)

    async def watch(
        self, path: str, user: str, *, recursive: bool = False, entries: bool = False, network: bool = False
    ) -> Watch:
        """Watch a directory; close the watch in the end.

        Args:
            path: The directory.
            user: Whose home relative paths start at.
            recursive: Watch everything below it, too.
            entries: Describe what was made, written or changed.
            network: Whether it may be on a network file system, where changes can go unseen.
        """
        arguments: dict[str, object] = {"path": path, "user": user}
        arguments |= {"recursive": recursive, "entries": entries, "network": network}
        answer, extra = await self._link.request("watch", arguments, (), self._abandoned_watch)
        close_all(extra)
        number = _decode(answer, _Watching).watch
        watch = Watch(lambda: self._take_events(number), lambda: self._forget_watch(number))
        self._watches[number] = watch
        return watch

    async def _take_events(self, number: int) -> TakenEvents:
        return _decode((await self._ask("take_events", watch=number))[0], TakenEvents)

    def _forget_watch(self, number: int) -> None:
        if self._watches.pop(number, None) is not None:
            self._link.post("unwatch", {"watch": number})

    def _abandoned_watch(self, answer: msgspec.Raw) -> None:
        self._link.post("unwatch", {"watch": _decode(answer, _Watching).watch})

    async def kill(self) -> None:
        """End the sandbox: when this returns, its processes, mounts, limits and files are gone. Idempotent."""
        self.hang_up()
        with anyio.CancelScope(shield=True):  # bounded by whoever buries
            await self._bury()

    def hang_up(self, reason: str = "the sandbox was killed") -> None:
        """Close the link; every call on the sandbox fails from now on."""
        self._link.close(reason)

    async def _ask(self, op: str, **arguments: object) -> tuple[msgspec.Raw, list[int]]:
        answer, fds = await self._link.request(op, arguments)
        if fds:
            close_all(fds)
            self.hang_up("the guest broke the protocol")
        return answer, fds

    def _event(self, message: GuestMessage) -> None:
        if message.event == "ready":
            self.ready.set()
            self.settled.set()
        elif message.event == "watch":
            if (watch := self._watches.get(message.watch)) is not None:
                watch.ring()
        elif message.event == "exit":
            ended = self._processes.pop(message.pid, None)
            if ended is not None:
                ended.set_result(_exit_status(message.status))
            elif self._spawning and len(self._early) < MAX_EARLY:
                self._early[message.pid] = _exit_status(message.status)

    def _hung_up(self, reason: str) -> None:
        for ended in self._processes.values():
            if not ended.done():
                ended.set_result(ExitStatus(None, None))
        self._processes.clear()
        self.closed.set()
        self.settled.set()
        for watch in self._watches.values():
            watch.ring()
        tells, self._tell_closed, self.quota.look_again = self._tell_closed, [], None  # they know this guest
        for tell in tells:
            asyncio.get_running_loop().call_soon(tell)


def _exit_status(status: int) -> ExitStatus:
    if os.WIFSIGNALED(status):
        return ExitStatus(None, os.WTERMSIG(status), os.WCOREDUMP(status))
    return ExitStatus(os.WEXITSTATUS(status), None)


def _pipe_to_engine() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    os.fchmod(write, OPEN_TO_ALL)
    return read, write


def _pipe_from_engine() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write, False)
    os.fchmod(read, OPEN_TO_ALL)
    return write, read


def _decode(answer: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise GuestError("internal", "the guest gave an answer that makes no sense") from error
