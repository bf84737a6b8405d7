"""The content of volumes: directories that outlive sandboxes, served by one process that is root only inside.

It runs in a user namespace with the map of every sandbox, so that owners are what sandboxes see, and what is not
theirs is closed to it. Within that, the kernel resolves each path beneath its volume: no link and no ``..`` leads out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial

from . import gauge, syscalls, trees
from .entries import printable
from .files import refusal
from .namespaces import DATA, IdMap, fork_mapped
from .wire import Json, RefusedError, Wire, close_all

HOME = f"{DATA}/host/volumes"
UPLOADS = f"{HOME}/.uploads"
TRASH = f"{HOME}/.trash"
THREADS = 4
MAX_ENTRIES = 50_000
MAX_DEPTH = 64
LINK_FD = 3
_ID = re.compile(r"[a-z0-9]{20}")
_WAY = os.O_PATH | os.O_DIRECTORY


class Keepers:
    """The launcher's side: the processes that serve the engine itself, of which there are few, or none.

    Args:
        reset: Undoes in a forked process what only the launcher wants.
    """

    def __init__(self, ids: IdMap, reset: Callable[[], None]) -> None:
        self._ids = ids
        self._reset = reset
        self.pids: set[int] = set()

    def start(self, what: str, link: int) -> None:
        """Serve one of them on the engine's end of a link."""
        if what == "gauge":
            self._start_gauge(link)
            return
        owner = self._ids.owner(0)
        real = self._ids.keeper(owner)
        self.pids.add(fork_mapped(self._ids, owner, self._reset, lambda: serve(link, real)))

    def _start_gauge(self, link: int) -> None:
        pid = os.fork()  # it takes the launcher's own rights to look into all sandboxes
        if pid == 0:
            try:
                self._reset()
                gauge.serve(link)
            finally:
                os._exit(0)
        self.pids.add(pid)

    def reaped(self, pid: int) -> bool:
        """A process has ended; tell whether it was one of these."""
        known = pid in self.pids
        self.pids.discard(pid)
        return known

    def end(self) -> None:
        """Stop at once; what is half done is removed by the next one."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def serve(link: int, real: int) -> None:
    """Answer the engine until it hangs up.

    Args:
        link: To the engine.
        real: The real id to take on, see `namespaces.IdMap.keeper`.
    """
    os.setresuid(real, 0, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(link, LINK_FD)
    os.closerange(LINK_FD + 1, os.sysconf("SC_OPEN_MAX"))  # the launcher's are not its business
    os.umask(0)
    keeper = Keeper(Wire(socket.socket(fileno=LINK_FD)))
    with contextlib.suppress(EOFError, OSError):
        keeper.serve()


class Keeper:
    """Takes requests in, and answers them from a few threads: a slow disk holds up nobody else."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._volumes = Volumes()
        self._jobs: queue.SimpleQueue[Json] = queue.SimpleQueue()
        for _ in range(THREADS):
            threading.Thread(target=self._work, daemon=True).start()

    def serve(self) -> None:
        """Serve until the engine hangs up."""
        while True:
            for request, fds in self._wire.receive():
                close_all(fds)
                self._jobs.put(request)

    def _work(self) -> None:
        while True:
            request = self._jobs.get()
            fds: list[int] = []
            try:
                answer, fds = self._volumes.handle(request)
                self._wire.send({"id": request["id"], "ok": answer}, fds)
            except RefusedError as error:
                self._wire.send({"id": request["id"], "error": [error.code, error.message]})
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
                self._wire.send({"id": request["id"], "error": ["internal", f"{type(error).__name__}: {error}"]})
            finally:
                close_all(fds)


class Volumes:
    """What can be done with volumes, and with files in them; any thread may call."""

    def __init__(self) -> None:
        self._uploads: dict[int, tuple[str, Json]] = {}
        self._lock = threading.Lock()
        self._next = 0
        trees.remove(UPLOADS)
        for place in (UPLOADS, TRASH):
            os.makedirs(place, 0o700, exist_ok=True)
        self._trash: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in os.listdir(TRASH):
            self._trash.put(f"{TRASH}/{name}")
        threading.Thread(target=self._empty_trash, daemon=True).start()

    def handle(self, request: Json) -> tuple[object, list[int]]:
        """Do what a request says; its answer, and descriptors that go with it."""
        op = str(request["op"])
        if op == "sweep":
            return self._sweep(request), []
        if op in ("commit", "abort"):
            return self._end_upload(request, commit=op == "commit"), []
        if not _ID.fullmatch(str(request["volume"])):
            raise RefusedError("not_found", "no such volume")
        if op in ("make", "drop"):
            return (self._make if op == "make" else self._drop)(f"{HOME}/{request['volume']}"), []
        with _root_of(request) as root:
            return self._file_operation(op, root, request)

    def _make(self, home: str) -> object:
        os.mkdir(home)
        os.chmod(home, 0o777)  # noqa: S103 - for every user of every sandbox that has it
        return {}

    def _drop(self, home: str) -> object:
        trash = f"{TRASH}/{os.path.basename(home)}.{os.urandom(8).hex()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(home, trash)  # from here on there is none, however long the removal takes
            self._trash.put(trash)
        return {}

    def _empty_trash(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # the next keeper tries again
                trees.remove(self._trash.get())

    def _sweep(self, request: Json) -> object:
        """Make what there is what there should be: an engine may have been killed in between."""
        keep = request["keep"]
        assert isinstance(keep, list)
        for name in {name for name in keep if _ID.fullmatch(name)} - set(os.listdir(HOME)):
            self._make(f"{HOME}/{name}")
        for name in set(os.listdir(HOME)) - {*keep, os.path.basename(UPLOADS), os.path.basename(TRASH)}:
            self._drop(f"{HOME}/{name}")
        return {}

    def _file_operation(self, op: str, root: int, request: Json) -> tuple[object, list[int]]:
        path = clean(str(request["path"]))
        try:
            match op:
                case "stat":
                    return _stat(root, path), []
                case "list":
                    return list(_listed(root, path, _int(request["depth"]))), []
                case "mkdir":
                    return _mkdir(root, path, request), []
                case "remove":
                    return _remove(root, path), []
                case "patch":
                    return _patch(root, path, request), []
                case "open_read":
                    return {}, [_open_file(root, path)]
                case "open_write":
                    return self._open_write(root, path, request)
        except OSError as error:
            raise _refusal(error, path) from error
        raise RefusedError("unimplemented", f"unknown operation {op}")

    def _open_write(self, root: int, path: str, request: Json) -> tuple[object, list[int]]:
        """A file beside all volumes, which takes its place when it is whole."""
        with _parent(root, path) as (parent, name):
            _check_target(parent, name, path, force=bool(request["force"]))
        temporary = f"{UPLOADS}/{os.urandom(8).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(fd, _int(request["uid"]), _int(request["gid"]))
        os.fchmod(fd, _int(request["mode"]))
        with self._lock:
            self._next += 1
            self._uploads[self._next] = temporary, request
            return {"token": self._next}, [fd]

    def _end_upload(self, request: Json, *, commit: bool) -> object:
        with self._lock:
            found = self._uploads.pop(_int(request["token"]), None)
        if found is None:
            raise RefusedError("not_found", "no such upload")
        temporary, upload = found
        path = clean(str(upload["path"]))
        try:
            if not commit:
                return {}
            with _root_of(upload) as root, _parent(root, path) as (parent, name):
                _check_target(parent, name, path, force=bool(upload["force"]))
                if upload["force"]:
                    os.rename(temporary, name, dst_dir_fd=parent)
                else:
                    os.link(temporary, name, dst_dir_fd=parent)  # unlike a rename, it never replaces
                return _stat(root, path)
        except OSError as error:
            raise _refusal(error, path) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


# -- paths ---------------------------------------------------------------------------------------------------------


def clean(path: str) -> str:
    """A path relative to its volume; empty for the volume itself.

    Raises:
        RefusedError: It is not a path, or says that it leads out.
    """
    if "\0" in path:
        raise RefusedError("invalid_argument", "a path must not contain NUL")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise RefusedError("invalid_argument", "a path must be valid text") from None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise RefusedError("invalid_argument", f"{printable(path)}: a path must not contain '..'")
    return "/".join(parts)


def _refusal(error: OSError, path: str) -> RefusedError:
    if error.errno == errno.EXDEV:
        return RefusedError("invalid_argument", f"/{printable(path)}: the path leads out of the volume")
    if error.errno == errno.EEXIST:
        return RefusedError("already_exists", f"/{printable(path)}: already exists")
    return refusal(error, f"/{path}")


@contextlib.contextmanager
def _root_of(request: Json) -> Iterator[int]:
    try:
        root = os.open(f"{HOME}/{request['volume']}", _WAY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RefusedError("not_found", "no such volume") from None
    try:
        yield root
    finally:
        os.close(root)


@contextlib.contextmanager
def _opened(root: int, path: str, flags: int) -> Iterator[int]:
    fd = syscalls.open_beneath(root, path or ".", flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _parent(root: int, path: str) -> Iterator[tuple[int, str]]:
    """The directory of a path, and the last part of it."""
    if not path:
        raise RefusedError("invalid_argument", "the volume itself cannot be changed")
    above, name = os.path.split(path)
    with _opened(root, above, _WAY) as fd:
        yield fd, name


# -- operations ----------------------------------------------------------------------------------------------------


def _stat(root: int, path: str) -> Json:
    with _opened(root, path, os.O_PATH | os.O_NOFOLLOW) as fd:
        return _describe(path, os.fstat(fd), lambda: os.readlink("", dir_fd=fd))


def _describe(path: str, info: os.stat_result, target: Callable[[], str]) -> Json:
    kind = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    told: Json = {
        "name": printable(os.path.basename(path)) or "/",
        "type": kind.get(stat.S_IFMT(info.st_mode), "unknown"),
        "path": "/" + printable(path),
        "size": info.st_size,
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "times": [info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns],
    }
    if told["type"] == "symlink":
        told["target"] = printable(target())
    return told


def _listed(root: int, path: str, depth: int) -> Iterator[Json]:
    """What is in a directory, and below it down to a depth, in lexical order; links are not followed."""
    pending = [(path, 0)]
    count = 0
    while pending:
        here, level = pending.pop()
        # the place that was asked for may be a link, those below are known to be none
        with _opened(root, here, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if level else 0)) as fd:
            names = sorted(os.listdir(fd))
            below = []
            for name in names:
                child = f"{here}/{name}" if here else name
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    yield _describe(child, info, partial(os.readlink, name, dir_fd=fd))
                    if stat.S_ISDIR(info.st_mode) and level + 1 < depth:
                        below.append((child, level + 1))
        pending += below[::-1]
        count += len(names)
        if count > MAX_ENTRIES:
            raise RefusedError("resource_exhausted", f"there are more than {MAX_ENTRIES} entries: list fewer levels")


def _mkdir(root: int, path: str, request: Json) -> Json:
    parts = path.split("/") if path else []
    force = bool(request["force"])
    for place in range(len(parts)) if force else range(len(parts) - 1, len(parts)):
        with _parent(root, "/".join(parts[: place + 1])) as (parent, name):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not force:
                    raise
                continue
            os.chown(name, _int(request["uid"]), _int(request["gid"]), dir_fd=parent, follow_symlinks=False)
            _chmod(parent, name, _int(request["mode"]))
    with _opened(root, path, _WAY):  # what was there already must be one
        pass
    return _stat(root, path)


def _remove(root: int, path: str) -> Json:
    with _parent(root, path) as (parent, name):
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        trees.remove(f"/proc/self/fd/{parent}/{name}")
    return {}


def _patch(root: int, path: str, request: Json) -> Json:
    with _opened(root, path, os.O_PATH | os.O_NOFOLLOW) as fd:
        is_link = stat.S_ISLNK(os.fstat(fd).st_mode)
        if is_link and request["mode"] is not None:
            raise RefusedError("invalid_argument", f"/{printable(path)}: a symlink has no mode of its own")
        uid, gid = (-1 if request[name] is None else _int(request[name]) for name in ("uid", "gid"))
        if (uid, gid) != (-1, -1):  # first: it takes setuid away
            syscalls.chown_opened(fd, uid, gid)
        if request["mode"] is not None:
            os.chmod(f"/proc/self/fd/{fd}", _int(request["mode"]))
    return _stat(root, path)


def _open_file(root: int, path: str) -> int:
    fd = syscalls.open_beneath(root, path or ".", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError("invalid_argument", f"/{printable(path)}: not a regular file")
    return fd


def _check_target(parent: int, name: str, path: str, *, force: bool) -> None:
    """Whether a file may take this place."""
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(info.st_mode):
        raise RefusedError("invalid_argument", f"/{printable(path)}: is a directory")
    if not force:
        raise RefusedError("already_exists", f"/{printable(path)}: already exists")


def _chmod(parent: int, name: str, mode: int) -> None:
    fd = os.open(name, _WAY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
