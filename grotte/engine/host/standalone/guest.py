"""The first process of a sandbox: it spawns, reaps, and does file operations for the engine.

One thread waits for requests and for children, so that starting a process never waits for a disk; a few more do the
file operations. Signals from inside cannot reach it: the kernel drops those that the first process has no handler for.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from . import credentials, stopping, syscalls, usage
from .accounts import Account, Accounts
from .elevations import Elevations
from .files import Files
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
    SimpleQueue,
    allocate_lock,
    set_wakeup_fd,
    signal,
    socket,
    start_new_thread,
    suppress,
)
from .processes import Processes, reap
from .stopping import Stopper
from .terminals import Terminals, read_size
from .watches import Watches
from .wire import Json, RefusedError, Wire, close_all

LINK_FD = 3
FILE_THREADS = 4

FILE_OPERATIONS = frozenset(
    {"stat", "list_dir", "make_dir", "move", "remove", "open_read", "open_write", "commit", "abort"}
    | {"watch", "take_events", "unwatch", "stop_all", "go_on"}
)

Answer = tuple[object, list[int]]


class Guest:
    """Serves the engine until it closes the link."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._accounts = Accounts()
        self._poller = select.poll()
        self._terminals = Terminals(self._poller)
        self._processes = Processes(self._accounts, self._terminals)
        self._elevations = Elevations(self._poller, self._accounts, self._processes.families)
        self._files = Files(self._accounts)
        self._stopper = Stopper()
        self._watches = Watches(self._accounts, lambda number: wire.send({"event": "watch", "watch": number}))
        self._jobs: SimpleQueue[Json] = SimpleQueue()
        self._unbound = allocate_lock()  # held until this process is bound to the life of what holds the sandbox
        self._unbound.acquire()
        start_new_thread(self._bind, ())
        for _ in range(FILE_THREADS - 1):  # now: a full sandbox has no room for another thread
            start_new_thread(self._work, ())

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
                os.read(wake, 4096)
                self._bury()
            self._terminals.serve(ready)
            self._elevations.serve(ready)

    def _bury(self) -> None:
        for pid, status in reap():
            if self._processes.ended(pid):
                self._wire.send({"event": "exit", "pid": pid, "status": status})
            else:
                self._elevations.ended(pid, status)

    def _handle(self, request: Json, fds: list[int]) -> None:
        if request["op"] in FILE_OPERATIONS:
            self._jobs.put(request)
            return
        if request["op"] == "sockets":
            self._answer(request, fresh_sockets)
            return
        try:
            self._answer(request, lambda: (self._process_operation(request, fds), []))
        finally:
            close_all(fds)

    def _bind(self) -> None:
        credentials.end_with_parent()
        self._unbound.release()
        self._work()

    def _work(self) -> None:
        while True:
            self._answer_late(self._jobs.get())

    def _answer_late(self, request: Json) -> None:
        self._answer(request, lambda: self._file_operation(request))

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
                stopping.kill_all()
                return {}
            case "user":
                account = self._accounts.user(str(request["name"]))
                return {"name": account.name, "uid": account.uid, "gid": account.gid, "home": account.home}
            case "usage":
                return usage.add_up()
        raise RefusedError("unimplemented", f"unknown operation {request['op']}")

    def _file_operation(self, request: Json) -> Answer:
        account = self._accounts.user(str(request["user"])) if "user" in request else Account("", 0, 0, "/")
        op, path = request["op"], str(request.get("path", ""))
        if op in ("open_read", "open_write"):
            return self._open(request, path, account)
        return self._plain_operation(request, path, account), []

    def _open(self, request: Json, path: str, account: Account) -> Answer:
        if request["op"] == "open_read":
            described, fd = self._files.open_read(path, account)
        else:
            described, fd = self._files.open_write(path, _texts(request["metadata"]), account)
        return described, [fd]

    def _plain_operation(self, request: Json, path: str, account: Account) -> object:
        match request["op"]:
            case "stat":
                return self._files.stat(path, account)
            case "list_dir":
                return self._files.list_dir(path, _int(request["depth"]), account)
            case "make_dir":
                return self._files.make_dir(path, account)
            case "move":
                return self._files.move(str(request["source"]), str(request["destination"]), account)
            case "remove":
                self._files.remove(path, account)
            case "commit":
                return self._files.commit(_int(request["token"]))
            case "abort":
                self._files.abort(_int(request["token"]))
            case "stop_all":
                self._stopper.stop_all()
            case "go_on":
                self._stopper.go_on()
            case _:
                return self._watch_operation(request, path, account)
        return {}

    def _watch_operation(self, request: Json, path: str, account: Account) -> object:
        match request["op"]:
            case "watch":
                options = (bool(request[name]) for name in ("recursive", "entries", "network"))
                return {"watch": self._watches.create(path, account, *options)}
            case "take_events":
                return self._watches.take(_int(request["watch"]))
        self._watches.remove(_int(request["watch"]))
        return {}


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


def _texts(value: object) -> dict[str, str]:
    assert isinstance(value, dict)
    return {str(key): str(text) for key, text in value.items()}


def main() -> None:
    """Become the sandbox's first process; never returns while the engine lives."""
    # Not readable through /proc by anybody inside, its memory, descriptors and environment included.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.drop_other_capabilities()
    for number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM):  # an engine may have been started to ignore some: nohup, &
        signal(number, SIG_DFL)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal(SIGCHLD, lambda *_: None)
    os.umask(0o022)
    link = socket(fileno=LINK_FD)
    os.set_inheritable(LINK_FD, False)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    wire = Wire(link)
    wire.send({"event": "ready"})
    try:
        Guest(wire).serve(wake_read)
    except (EOFError, OSError):
        os._exit(0)
