"""What a sandbox uses at this moment, as its cgroups tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox uses.

    Attributes:
        cpu_seconds: Processor time since it was started.
        memory: Bytes that its processes and its tmpfs hold.
        cache: Bytes of files that the kernel keeps for it and can drop.
    """

    cpu_seconds: float
    memory: int
    cache: int


def of_groups(groups: Iterable[str]) -> Usage | None:
    """The usage that the cgroups of a sandbox tell, of either version; None if they do not tell all of it."""
    cpu: float | None = None
    memory: tuple[int, int] | None = None
    for group in map(Path, groups):
        cpu = _cpu(group) if cpu is None else cpu
        memory = _memory(group) if memory is None else memory
    return None if cpu is None or memory is None else Usage(cpu, *memory)


def cpu_of_groups(groups: Iterable[str]) -> float | None:
    """Processor time in seconds alone; None where nothing counts it."""
    return next((cpu for cpu in map(_cpu, map(Path, groups)) if cpu is not None), None)


def _cpu(group: Path) -> float | None:
    if (nanoseconds := _number(group / "cpuacct.usage")) is not None:
        return nanoseconds / 1e9
    microseconds = _fields(group / "cpu.stat").get("usage_usec")
    return None if microseconds is None else microseconds / 1e6


def _memory(group: Path) -> tuple[int, int] | None:
    """Used and cached; what lies in tmpfs counts as cache for the kernel, but it cannot be dropped."""
    used = _number(group / "memory.current")
    if used is not None:
        stat = _fields(group / "memory.stat")
        cache = stat.get("file", 0) - stat.get("shmem", 0)
    else:
        used = _number(group / "memory.usage_in_bytes")
        if used is None:
            return None
        stat = _fields(group / "memory.stat")
        cache = stat.get("total_cache", 0) - stat.get("total_shmem", 0)
    cache = min(max(cache, 0), used)
    return used - cache, cache


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> Mapping[str, int]:
    words = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # not of this version, or the sandbox is gone
        return ""
