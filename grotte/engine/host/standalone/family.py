"""Who belongs to a command: its descendants, and what left them to become daemons.

A process that forks twice is a child of the first process like all other orphans. So every command's processes carry
the number of their family: the soft limit on file locks, which no kernel of this century looks at, which is inherited
by whatever a process starts, and which every process may read of every other.
"""

from __future__ import annotations

import posix

from . import libc
from .lean import SIGKILL, SIGSTOP, suppress

RLIMIT_LOCKS = 10
LABEL = "Max file locks"
HALF = 32


class Numbers:
    """Numbers for families: the upper half is the command's, the lower one is that of a ``sudo`` in it, or 0."""

    def __init__(self) -> None:
        self._last = 0

    def fresh(self) -> int:
        """Return the number of a command's family."""
        return self._next() << HALF

    def within(self, number: int) -> int:
        """Return the number of a family that is part of the family with this number."""
        return (number >> HALF << HALF) + self._next()

    def _next(self) -> int:
        self._last += 1
        return self._last


def mark_next(number: int) -> None:
    """What the calling process starts from now on belongs to this family."""
    libc.set_soft_limit(RLIMIT_LOCKS, number)


def number_of(pid: int) -> int:
    """Return the number of a process's family, or 0."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/limits", encoding="ascii") as file:
        for line in file:
            if line.startswith(LABEL):
                return int(line[len(LABEL) :].split()[0])  # "unlimited" is no number
    return 0


def kill(pid: int, number: int) -> None:
    """Kill a process, its descendants and all of its family, however fast they multiply.

    All are stopped first: a parent that saw its child die could start another.
    """
    stopped: set[int] = set()
    while fresh := members(pid, number) - stopped:
        for member in fresh:
            _signal(member, SIGSTOP)
        stopped |= fresh
    for member in stopped:
        _signal(member, SIGKILL)


def members(pid: int, number: int) -> set[int]:
    """Return a process with its descendants and its family, without the calling process; 0 for what is left of it."""
    children: dict[int, list[int]] = {}
    related = [pid] if pid else []
    for name in posix.listdir("/proc"):
        if name.isdigit() and (parent := _parent(name)):
            children.setdefault(parent, []).append(int(name))
            if _includes(number, number_of(int(name))):
                related.append(int(name))
    found: set[int] = set()
    while related:
        member = related.pop()
        if member not in found:
            found.add(member)
            related += children.get(member, [])
    return found - {posix.getpid()}


def _includes(number: int, other: int) -> bool:
    whole = not number & ((1 << HALF) - 1)
    return other == number or (whole and other >> HALF == number >> HALF)


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        posix.kill(pid, number)
