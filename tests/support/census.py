"""Count what the sandboxes of one engine leave on a machine: processes, mounts, namespaces, cgroups, files.

Others may run engines beside the tests. What belongs to the engine at hand says so itself: its sandboxes' root is
mounted under the engine's mark, and everything else names its data directory.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

from grotte.engine.host.standalone.namespaces import mark_of

SETTLE = 60.0
#: What runs in the sandboxes of an ordinary user, whose mounts that user may not see.
OF_SANDBOXES = frozenset({"bwrap", "loader"})


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
    """Look at all that belongs to the engine of `data_dir`, alive or dead."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    processes = {pid: name for pid in pids if (name := sandbox_process(pid, data_dir))}
    return Census(
        processes=frozenset(processes.values()),
        mounts=frozenset(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(data_dir) in line),
        network_namespaces=frozenset(filter(None, map(network_namespace, processes))),
        cgroups=frozenset(cgroups(data_dir)),
        files=frozenset(str(path) for kind in ("sandboxes", "layers") for path in data_dir.glob(f"host/{kind}/*")),
    )


def sandbox_process(pid: int, data_dir: Path) -> str | None:
    """A process of a sandbox or one that holds it, as ``pid command``; None for all others."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        held = belongs(pid, words, data_dir)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{pid} {' '.join(words)[:80]}" if held else None


def belongs(pid: int, words: list[str], data_dir: Path) -> bool:
    """Whether its root is a sandbox of this engine, or it is the launcher or a helper of that.

    The mount table of a helper shows the data directory, bound where the launcher finds it.
    """
    try:
        table = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace")
    except PermissionError:  # not root: then all sandboxes of this user are of this run
        return Path(words[0]).name in OF_SANDBOXES
    except OSError:  # a zombie has no mounts any more
        return False
    mark = mark_of(data_dir) if data_dir.exists() else None
    rows = [line.split() for line in table.splitlines()]
    return any(row[-2] == mark or (row[4] == "/tmp/data" and str(data_dir).endswith(row[3])) for row in rows)


def cgroups(data_dir: Path) -> set[str]:
    """The cgroups of the engine and of its sandboxes, which it noted in its data directory."""
    record = data_dir / "host" / "cgroups"
    homes = record.read_text().splitlines() if record.exists() else []
    return {folder for home in homes if home for folder, _, _ in os.walk(home)}


def groups_of(sandbox_id: str) -> list[Path]:
    """The cgroups of a sandbox; others may go while they are looked for, which `Path.glob` does not forgive."""
    return [Path(folder, sandbox_id) for folder, names, _ in os.walk("/sys/fs/cgroup") if sandbox_id in names]


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
