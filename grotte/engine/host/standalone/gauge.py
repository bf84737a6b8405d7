"""How much of the disk sandboxes hold: what lies in their directories, and what they removed but keep open.

The engine asks, and a process of the launcher's looks, at the lowest priority: as an ordinary user the engine itself
may not look into what sandboxes wrote. Trees are read by descriptors, so nothing that changes meanwhile leads out.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket

from . import held, syscalls
from .counting import Count
from .namespaces import DATA, mark_of
from .wire import Json, Wire, close_all

LINK_FD = 3
#: A tree that is deeper cannot be measured; no path that a program can name is as long.
MAX_DEPTH = 2100
LOWEST = 19
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
            return {"id": request["id"], "ok": held.by_sandbox(mark_of(DATA))}
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
