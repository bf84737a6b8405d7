"""What all processes of a sandbox use, added up from `/proc`: for machines that count nothing for a group."""

from __future__ import annotations

import os


def add_up() -> dict[str, float]:
    """Processor time in seconds, of those that have ended too, and memory in bytes that no other process shares."""
    ticks = 0
    pages = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            ticks += _ticks(_read(f"/proc/{name}/stat"))
            _, resident, shared = _read(f"/proc/{name}/statm").split()[:3]
        except (OSError, ValueError, IndexError):  # it has just ended
            continue
        pages += int(resident) - int(shared)
    return {"cpu": ticks / os.sysconf("SC_CLK_TCK"), "memory": max(0, pages) * os.sysconf("SC_PAGE_SIZE")}


def _ticks(stat: str) -> int:
    """What a process and the children that it has buried have used, in user and kernel mode."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(map(int, fields[11:15]))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
