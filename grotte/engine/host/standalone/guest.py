"""The first process of a sandbox: it spawns, reaps, and does file operations for the engine.

One thread waits for requests and for children, so that starting a process never waits for a disk; others do the file
operations. Signals from inside cannot reach it: the kernel drops those that the first process has no handler for.

What not every sandbox needs is imported when it is first asked for.
"""

from __future__ import annotations

import posix
import select

from . import credentials, libc
from .accounts import Accounts
from .lean import (
    AF_INET,
    AF_INET6,
    SIG_DFL,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SOCK_STREAM,
    allocate_lock,
    set_wakeup_fd,
    signal,
    socket,
    suppress,
)
from .processes import Processes, read_size, reap
from .sudo_door import SudoDoor
from .wire import Json, RefusedError, Wire, close_all
from .workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .filework import Answer, FileWork

LINK_FD = 3

PROCESS_OPERATIONS = ("spawn", "signal", "resize", "kill_tree", "kill_all", "user", "usage")


class Guest:
    """Serves the engine until it closes the link."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._accounts = Accounts()
        self._poller = select.poll()
        self._processes = Processes(self._accounts, self._poller)
        self._door = SudoDoor(self._poller, self._accounts, self._processes.families)
        self._files: FileWork | None = None
        self._importing = allocate_lock()
        self._unbound = allocate_lock()  # held until this process is bound to the life of what holds the sandbox
        self._unbound.acquire()
        self._workers = Workers(self._bind, self._answer_late)

    def serve(self, wake: int) -> None:
        """Serve requests and the ends of children until the engine hangs up."""
        self._poller.register(self._wire.sock, select.POLLIN)
        self._poller.register(wake, select.POLLIN)
        while True:
            ready = {fd for fd, _ in self._poller.poll()}
            if self._wire.sock.fileno() in ready:
                for request, fds in self._wire.receive():
                    self._handle(request, fds)
            if wake in ready:
                posix.read(wake, 4096)
                self._bury()
            self._processes.serve(ready)
            self._door.serve(ready)

    def _bury(self) -> None:
        for pid, status in reap():
            if self._processes.ended(pid):
                self._wire.send({"event": "exit", "pid": pid, "status": status})
            else:
                self._door.ended(pid, status)

    def _handle(self, request: Json, fds: list[int]) -> None:
        try:
            if request["op"] == "sockets":
                self._answer(request, fresh_sockets)
            elif request["op"] in PROCESS_OPERATIONS:
                self._answer(request, lambda: (self._process_operation(request, fds), []))
            else:
                self._workers.put(request)
        finally:
            close_all(fds)

    def _bind(self) -> None:
        credentials.end_with_parent()
        self._unbound.release()

    def _answer_late(self, request: Json) -> None:
        self._answer(request, lambda: self._file_work().run(request))

    def _file_work(self) -> FileWork:
        with self._importing:
            if self._files is None:
                from .filework import FileWork

                self._files = FileWork(self._accounts, self._wire)
            return self._files

    def _answer(self, request: Json, run: Callable[[], Answer]) -> None:
        fds: list[int] = []
        try:
            result, fds = run()
            self._wire.send({"id": request["id"], "ok": result}, fds)
        except RefusedError as error:
            self._wire.send({"id": request["id"], "error": [error.code, error.message]})
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
            self._wire.send({"id": request["id"], "error": ["internal", f"{type(error).__name__}: {error}"]})
        finally:
            close_all(fds)

    def _process_operation(self, request: Json, fds: list[int]) -> object:
        match request["op"]:
            case "spawn":
                with self._unbound:  # what follows would take that from the calling thread
                    pid, user = self._processes.spawn(request, fds)
                return {"pid": pid, "user": user}
            case "signal":
                return {"found": self._processes.signal(_int(request["pid"]), _int(request["signal"]))}
            case "resize":
                return {"found": self._processes.resize(_int(request["pid"]), read_size(request["size"]))}
            case "kill_tree":
                self._processes.kill_tree(_int(request["pid"]))
                return {}
            case "kill_all":
                from . import stopping

                stopping.kill_all()
                return {}
            case "user":
                account = self._accounts.user(str(request["name"]))
                return {"name": account.name, "uid": account.uid, "gid": account.gid, "home": account.home}
            case "usage":
                from . import usage

                return usage.add_up()
        raise RefusedError("unimplemented", f"unknown operation {request['op']}")


def fresh_sockets() -> Answer:
    """Make sockets for the engine to connect to ports of this sandbox, one for each version of IP there is."""
    fds = []
    for family in (AF_INET, AF_INET6):
        with suppress(OSError):
            fds.append(socket(family, SOCK_STREAM).detach())
    return {}, fds


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def main() -> None:
    """Become the sandbox's first process; never returns while the engine lives."""
    # Not readable through /proc by anybody inside, its memory, descriptors and environment included.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.drop_other_capabilities()
    for number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM):  # an engine may have been started to ignore some: nohup, &
        signal(number, SIG_DFL)
    wake_read, wake_write = posix.pipe()
    posix.set_blocking(wake_read, False)
    posix.set_blocking(wake_write, False)
    set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal(SIGCHLD, lambda *_: None)
    posix.umask(0o022)
    link = socket(fileno=LINK_FD)
    posix.set_inheritable(LINK_FD, False)
    credentials.settle()
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.close(null)
    wire = Wire(link)
    wire.send({"event": "ready"})
    try:
        Guest(wire).serve(wake_read)
    except (EOFError, OSError):
        posix._exit(0)  # noqa: SLF001 - so it is called, and is no secret
