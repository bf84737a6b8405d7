"""How much of the disk sandboxes hold: what lies in their directories, and what they removed but keep open.

The engine asks, and a process of the launcher's looks, at the lowest priority: as an ordinary user the engine itself
may not look into what sandboxes wrote. Trees are read by descriptors, so nothing that changes meanwhile leads out.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import stat
from collections.abc import Iterator
from itertools import islice

from . import syscalls
from .namespaces import DATA, mark_of
from .wire import Json, Wire, close_all

LINK_FD = 3
BLOCK = 512
#: A tree that is deeper cannot be measured; no path that a program can name is as long.
MAX_DEPTH = 2100
#: More open files than that are not looked at, of one sandbox.
MAX_OPEN = 200_000
LOWEST = 19
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UPPER = re.compile(r"[,\s]upperdir=[^,\s]*/host/sandboxes/([A-Za-z0-9_-]+)/")


class Count:
    """Bytes and files so far."""

    __slots__ = ("bytes", "files", "links")

    def __init__(self) -> None:
        self.bytes = self.files = 0
        self.links: set[int] = set()  # files with several names count once

    def add(self, info: os.stat_result) -> None:
        """Take a file in, unless it was."""
        if info.st_nlink != 1 and not stat.S_ISDIR(info.st_mode):
            if info.st_ino in self.links:
                return
            self.links.add(info.st_ino)
        self.files += 1
        self.bytes += info.st_blocks * BLOCK


def serve(link: int) -> None:
    """Answer the engine until it hangs up."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(link, LINK_FD)
    os.closerange(LINK_FD + 1, os.sysconf("SC_OPEN_MAX"))  # the launcher's are not its business
    os.nice(LOWEST)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 2 * MAX_DEPTH if hard == resource.RLIM_INFINITY else min(2 * MAX_DEPTH, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    wire = Wire(socket.socket(fileno=LINK_FD))
    with contextlib.suppress(EOFError, OSError):
        while True:
            for request, fds in wire.receive():
                close_all(fds)
                wire.send(_answer(request))


def _answer(request: Json) -> Json:
    try:
        if request["op"] == "open":
            return {"id": request["id"], "ok": removed_but_open(mark_of(DATA))}
        place = f"{DATA}/host/{request['place']}"
        count = walk(place, _int(request["most_bytes"]), _int(request["most_files"]))
        return {"id": request["id"], "ok": [count.bytes, count.files]}
    except FileNotFoundError:
        return {"id": request["id"], "error": ["not_found", "it is gone"]}
    except OSError as error:
        return {"id": request["id"], "error": ["out_of_range", error.strerror or str(error)]}
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine must not wait for ever
        return {"id": request["id"], "error": ["internal", f"{type(error).__name__}: {error}"]}


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def walk(path: str, most_bytes: int, most_files: int) -> Count:
    """Count what is below a directory; stop as soon as it is more than that.

    Raises:
        OSError: It cannot be opened, or is too deep.
    """
    count = Count()
    trail = [(os.open(path, _DIRECTORY), [""])]
    trail[0] = trail[0][0], _look(trail[0][0], count, most_bytes, most_files)
    try:
        while trail and count.bytes <= most_bytes and count.files <= most_files:
            here, below = trail[-1]
            if not below:
                os.close(trail.pop()[0])
                continue
            fd = _descend(below.pop(), here)
            if fd is None:
                continue
            trail.append((fd, []))
            if len(trail) > MAX_DEPTH:
                raise OSError("its directories are nested too deeply to be measured")
            trail[-1] = fd, _look(fd, count, most_bytes, most_files)
    finally:
        close_all([fd for fd, _ in trail])
    return count


def _descend(name: str, at: int) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):  # meanwhile
        return None
    except OSError as error:
        raise OSError(f"a directory cannot be measured: {error.strerror}") from None


def _look(fd: int, count: Count, most_bytes: int, most_files: int) -> list[str]:
    """Count what is in one directory; return the directories in it."""
    below = []
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                count.add(entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
            if count.bytes > most_bytes or count.files > most_files:
                break
    return below


# -- what has no name any more -------------------------------------------------------------------------------------


def removed_but_open(mark: str) -> dict[str, list[int]]:
    """Return the bytes and files of each sandbox that only its processes hold, by its id.

    Args:
        mark: What the mounts of this engine's sandboxes are called.
    """
    found: dict[str, list[int]] = {}
    for pids in _by_namespace().values():
        sandbox_id, memory = _whose(pids, mark)
        if sandbox_id:
            count = Count()
            for _ in islice(_held(pids, memory, count), MAX_OPEN):
                pass
            if count.files:
                found[sandbox_id] = [count.bytes, count.files]
    return found


def _by_namespace() -> dict[str, list[str]]:
    """The processes of other pid namespaces, by namespace."""
    own = os.readlink("/proc/self/ns/pid")
    found: dict[str, list[str]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended, or is nobody's business here
                space = os.readlink(f"/proc/{name}/ns/pid")
                if space != own:
                    found.setdefault(space, []).append(name)
    return found


def _whose(pids: list[str], mark: str) -> tuple[str, set[int]]:
    """The sandbox that processes belong to, and the devices of what is memory there; nothing for those of others."""
    for pid in sorted(pids, key=int):  # the first process is never in a smaller root
        memory = {_memory_device()}
        sandbox_id = ""
        with contextlib.suppress(OSError), open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                kind, source = rest.split(" ", 2)[:2]
                if kind == "tmpfs":
                    major, minor = fields.split(" ")[2].split(":")
                    memory.add(os.makedev(int(major), int(minor)))
                elif kind == "overlay" and source == mark and (match := _UPPER.search(rest)):
                    sandbox_id = match[1]
        if sandbox_id:
            return sandbox_id, memory
    return "", set()


def _memory_device() -> int:
    """The device that all anonymous files in memory are on."""
    fd = os.memfd_create("gauge", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _held(pids: list[str], memory: set[int], count: Count) -> Iterator[None]:
    """Count the files without a name that processes have open or mapped; yield at each thing that was looked at."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                yield
                with contextlib.suppress(OSError):
                    _take(os.stat(f"/proc/{pid}/fd/{name}"), memory, count)
            for span in _mapped(pid):
                yield
                with contextlib.suppress(OSError):
                    _take(os.stat(f"/proc/{pid}/map_files/{span}"), memory, count)


def _take(info: os.stat_result, memory: set[int], count: Count) -> None:
    if info.st_nlink == 0 and stat.S_ISREG(info.st_mode) and info.st_dev not in memory:
        count.add(info)


def _mapped(pid: str) -> Iterator[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith(" (deleted)\n"):
                yield line.split(" ", 1)[0]
