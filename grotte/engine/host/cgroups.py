"""Limits by control groups: version 1, version 2, or each controller where it happens to be."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import anyio

from . import freezer
from .spec import Limits

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", freezer.NAME)
CPU_PERIOD = 100_000  # microseconds
OWN_PIDS = 8  # bubblewrap and the guest with its threads are not the sandbox's affair
PREFIX = "grotte."
OLD_TRIES = 40


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup tree.

    Attributes:
        version: 1 or 2.
        home: The engine's own directory in it, under which each sandbox gets one.
        controllers: What it limits.
    """

    version: int
    home: Path
    controllers: frozenset[str]


@dataclass
class Cgroups:
    """The engine's own groups, and one group a sandbox below them."""

    hierarchies: list[Hierarchy] = field(default_factory=list)

    @property
    def controllers(self) -> frozenset[str]:
        """What can be limited."""
        return frozenset[str]().union(*(hierarchy.controllers for hierarchy in self.hierarchies))

    def create(self, name: str, limits: Limits) -> list[str]:
        """Make the groups of a sandbox and set its limits; return their directories.

        Raises:
            OSError: A group could not be made.
        """
        made = []
        try:
            for hierarchy in self.hierarchies:
                group = f"{hierarchy.home}/{name}"
                os.mkdir(group)
                made.append(group)
                for file, value in _settings(hierarchy, limits):
                    _set(f"{group}/{file}", value)
        except OSError:
            remove_groups(made)
            raise
        return made

    def close(self) -> None:
        """Remove the engine's own groups."""
        for hierarchy in self.hierarchies:
            remove_tree(hierarchy.home)


@lru_cache
def _settings(hierarchy: Hierarchy, limits: Limits) -> tuple[tuple[str, bytes], ...]:
    """What is written to which files; looked up once for all sandboxes of a kind."""
    return tuple((file, value.encode()) for file, value in _limits(hierarchy, limits))


def _limits(hierarchy: Hierarchy, limits: Limits) -> Iterator[tuple[str, str]]:
    if "memory" in hierarchy.controllers:
        size = str(limits.memory_bytes)
        if hierarchy.version == 1:
            yield "memory.limit_in_bytes", size
        else:
            yield "memory.max", size
        swap = "memory.memsw.limit_in_bytes" if hierarchy.version == 1 else "memory.swap.max"
        if (hierarchy.home / swap).exists():
            yield swap, size if hierarchy.version == 1 else "0"
    if "pids" in hierarchy.controllers:
        yield "pids.max", str(limits.pids + OWN_PIDS)
    if "cpu" in hierarchy.controllers:
        quota = max(int(limits.cpus * CPU_PERIOD), 1000)
        if hierarchy.version == 1:
            yield "cpu.cfs_period_us", str(CPU_PERIOD)
            yield "cpu.cfs_quota_us", str(quota)
        else:
            yield "cpu.max", f"{quota} {CPU_PERIOD}"


def open_cgroups() -> Cgroups:
    """Make a group for this engine in every hierarchy that lets it; what is missing is simply not limited here."""
    name = f"{PREFIX}{os.getpid()}.{secrets.token_hex(4)}"
    found = Cgroups()
    for version, mount, own, names in _mounted():
        wanted = frozenset(CONTROLLERS) & names - found.controllers
        home = _make_home(version, mount, own, name, wanted) if wanted else None
        if home is not None:
            found.hierarchies.append(Hierarchy(version, home, wanted))
    return found


def _mounted() -> Iterator[tuple[int, Path, str, frozenset[str]]]:
    """Yield version, mount point, own path and controllers of each hierarchy."""
    own = {}
    for line in _lines("/proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        own[names.removeprefix("name=")] = path
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        mount = Path(before.split(" ")[4])
        if kind == "cgroup2":
            yield 2, mount, own.get("", "/"), frozenset({freezer.NAME, *_words(mount / "cgroup.controllers")})
        elif kind == "cgroup":
            v1 = frozenset(options.split(","))
            path = next((own[key] for key in own if key and set(key.split(",")) <= v1), "/")
            yield 1, mount, path, v1


def _make_home(version: int, mount: Path, own: str, name: str, wanted: frozenset[str]) -> Path | None:
    """Make the engine's directory at its own group, or above it where that is not possible."""
    group = mount / own.lstrip("/")
    if not group.is_dir():  # a container sees its own part of the tree only
        group = mount
    while True:
        home = group / name
        try:
            home.mkdir()
            if version == 2 and wanted != {freezer.NAME}:
                enable = " ".join(f"+{controller}" for controller in sorted(wanted - {freezer.NAME}))
                _write(group / "cgroup.subtree_control", enable)
                _write(home / "cgroup.subtree_control", enable)
            if os.access(group / "cgroup.procs", os.W_OK):
                return home
        except OSError:  # not ours to change, or it has processes of its own, which version 2 does not allow
            pass
        remove_tree(home)
        if group == mount:
            return None
        group = group.parent


def remove_tree(path: Path) -> bool:
    """Remove a group with those below it, if nothing lives there; tell whether it is gone."""
    remove_groups([str(child) for child in path.iterdir() if child.is_dir()] if path.is_dir() else [])
    remove_groups([str(path)])
    return not path.exists()


def kill_tree(path: Path) -> None:
    """Kill what lives in a group or in those directly below it, frozen or not."""
    for procs in (path / "cgroup.procs", *path.glob("*/cgroup.procs")):
        for pid in _words(procs):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid), signal.SIGKILL)
        freezer.release(str(procs.parent))


def remove_groups(paths: list[str]) -> None:
    """Remove groups, if nothing lives there."""
    for path in paths:
        with contextlib.suppress(OSError):  # gone already, or not empty yet; the next start tries again
            os.rmdir(path)


async def remove_old(record: Path) -> list[str]:
    """Remove the cgroups of an engine that was killed with its launcher; return those that are still in use."""
    left = _read_record(record)
    for line in left:
        kill_tree(Path(line))
    for _ in range(OLD_TRIES):
        left = [line for line in left if not remove_tree(Path(line))]
        if not left:
            break
        await anyio.sleep(0.05)  # killed processes take a moment to leave
    return left


def _read_record(record: Path) -> list[str]:
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return [line for line in lines if Path(line).name.startswith(PREFIX)]


def _write(path: Path, value: str) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write(value)


def _set(path: str, value: bytes) -> None:
    """The same for files that are sure to be there: a creation writes half a dozen of them."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value)
    finally:
        os.close(file)


def _words(path: Path) -> list[str]:
    return " ".join(_lines(str(path))).split()


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
