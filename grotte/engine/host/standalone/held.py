"""What sandboxes removed but keep all the same: files without a name that only their processes hold.

Whoever wants to take a disk without being seen hides them: in a table of descriptors that one thread has alone, behind
a first thread that has ended, as the program that runs, or on their way through a socket. The last cannot be measured,
so those are told by their number.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import stat
from collections.abc import Iterator
from itertools import islice

from .counting import Count

#: More than that is not looked at, of one sandbox; what there may be beyond counts as unseen.
MAX_OPEN = 200_000
ON_THEIR_WAY = "scm_fds:"
KCMP_FILES = 2
_KCMP = {"x86_64": 312, "aarch64": 272}.get(platform.machine(), -1)
_UPPER = re.compile(r"[,\s]upperdir=[^,\s]*/host/sandboxes/([A-Za-z0-9_-]+)/")
_libc = ctypes.CDLL(None, use_errno=True)


class Held:
    """What the processes of one sandbox hold.

    Attributes:
        count: Files without a name.
        unseen: Descriptors on their way through sockets, whatever they are of.
    """

    __slots__ = ("_memory", "count", "unseen")

    def __init__(self, memory: set[int]) -> None:
        self._memory = memory
        self.count = Count()
        self.unseen = 0

    def look(self, place: str) -> bool:
        """Look at one thing that is held, by its place in /proc; tell whether it is a socket."""
        with contextlib.suppress(OSError):
            info = os.stat(place)
            if info.st_nlink == 0 and stat.S_ISREG(info.st_mode) and info.st_dev not in self._memory:
                self.count.add(info)
            return stat.S_ISSOCK(info.st_mode)
        return False


def by_sandbox(mark: str) -> dict[str, list[int]]:
    """Return the bytes and files of each sandbox that only its processes hold, and what is on its way, by its id.

    Args:
        mark: What the mounts of this engine's sandboxes are called.
    """
    found: dict[str, list[int]] = {}
    for pids in _by_namespace().values():
        sandbox_id, memory = _whose(pids, mark)
        if sandbox_id:
            held = Held(memory)
            looks = sum(1 for _ in islice(_look(pids, held), MAX_OPEN))
            held.unseen += looks == MAX_OPEN
            if held.count.files or held.unseen:
                found[sandbox_id] = [held.count.bytes, held.count.files, held.unseen]
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


def _look(pids: list[str], held: Held) -> Iterator[None]:
    """Look at what processes have open, mapped, or run; yield at each thing that was looked at."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for number, task in enumerate(_holders(pid)):
                yield
                yield from _look_at_open(task, held)
                if not number:  # memory is that of all its threads
                    held.look(f"/proc/{task}/exe")
                    for span in _mapped(task):
                        yield
                        held.look(f"/proc/{task}/map_files/{span}")


def _look_at_open(task: str, held: Held) -> Iterator[None]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{task}/fd"):
            yield
            if held.look(f"/proc/{task}/fd/{name}"):
                held.unseen += _on_their_way(task, name)


def _on_their_way(task: str, name: str) -> int:
    """How many descriptors wait in a socket."""
    with contextlib.suppress(OSError), open(f"/proc/{task}/fdinfo/{name}", encoding="ascii") as file:
        for line in file:
            if line.startswith(ON_THEIR_WAY):
                return int(line.split()[1])
    return 0


def _holders(pid: str) -> list[str]:
    """The threads of a process that have a table of descriptors each, those that have ended left out."""
    found: list[str] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        if not _has_ended(task) and not any(_share(task, other) for other in found):
            found.append(task)
    return found


def _has_ended(task: str) -> bool:
    try:
        return not os.readlink(f"/proc/{task}/exe")
    except FileNotFoundError:  # it has no memory any more
        return True


def _share(one: str, other: str) -> bool:
    """Whether two threads have the same table."""
    answer = int(_libc.syscall(_KCMP, int(one), int(other), KCMP_FILES, 0, 0))
    # a kernel that cannot compare: then most of them do
    return answer == 0 or (answer < 0 and ctypes.get_errno() == errno.ENOSYS)


def _mapped(task: str) -> Iterator[str]:
    with open(f"/proc/{task}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith(" (deleted)\n"):
                yield line.split(" ", 1)[0]
