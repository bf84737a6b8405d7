"""Count what sandboxes leave on a machine: processes, mounts, namespaces, cgroups, files."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

#: Where root's sandboxes find their users on the host: no other process has such a user.
FIRST_SANDBOX_UID = 0x70000000
CGROUPS = Path("/sys/fs/cgroup")
SETTLE = 15.0


@dataclass(frozen=True)
class Census:
    """What there was at one moment; compare two of them."""

    processes: frozenset[str]
    mounts: frozenset[str]
    network_namespaces: frozenset[str]
    cgroups: frozenset[str]
    files: frozenset[str]

    def since(self, earlier: Census) -> dict[str, set[str]]:
        """What is there now and was not before, by kind; empty when nothing was left."""
        grown = {name.name: set(getattr(self, name.name)) - getattr(earlier, name.name) for name in fields(self)}
        return {name: left for name, left in grown.items() if left}


def take_census(data_dir: Path) -> Census:
    """Look at the whole machine, and at what an engine keeps for each sandbox in `data_dir`."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return Census(
        processes=frozenset(filter(None, map(sandbox_process, pids))),
        mounts=frozenset(line for line in Path("/proc/self/mounts").read_text().splitlines() if "grotte" in line),
        network_namespaces=frozenset(filter(None, map(network_namespace, pids))),
        cgroups=frozenset(folder for folder, _, _ in os.walk(CGROUPS) if "/grotte" in folder),
        files=frozenset(
            [*map(str, data_dir.glob("sandboxes/*")), *map(str, Path(tempfile.gettempdir()).glob("grotte*"))]
        ),
    )


def sandbox_process(pid: int) -> str | None:
    """A process of a sandbox or one that holds it, as ``pid command``; None for all others."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    inside = uid >= FIRST_SANDBOX_UID or Path(words[0]).name == "bwrap"
    return f"{pid} {' '.join(words)[:80]}" if inside else None


def network_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def left_since(earlier: Census, data_dir: Path) -> dict[str, set[str]]:
    """What is still there although it should be gone, after giving the kernel a moment to tear it down."""
    until = time.monotonic() + SETTLE
    while (left := take_census(data_dir).since(earlier)) and time.monotonic() < until:
        time.sleep(0.1)
    return left
