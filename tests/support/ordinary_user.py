"""Run a program as an ordinary user, although the tests run as root and may live where only root can read.

The user is made by `useradd`, which also gives it ranges in /etc/subuid and /etc/subgid. Where the interpreter or this
checkout lie below a directory that is closed to others, the program gets a mount namespace of its own in which an
empty directory stands there, with just these two bound into it; nothing on the machine changes its mode.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME_LIMIT = 32


@dataclass(frozen=True)
class OrdinaryUser:
    """A user without privileges, and how to become it."""

    name: str
    uid: int
    home: Path

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` as this user, with an environment of its own."""
        if os.geteuid() == self.uid:
            return list(arguments)
        needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}
        environment = {"HOME": str(self.home), "USER": self.name, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        become = [
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.uid}",
            "--init-groups",
            "env",
            "--ignore-environment",
        ]
        become += [f"{name}={value}" for name, value in environment.items()]
        script = "\n".join(
            ["set -e", *opened(needed), f"cd {shlex.quote(str(self.home))}", f'exec {shlex.join(become)} "$@"']
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *arguments]

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `arguments` as this user, and return what came of it."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)


def opened(paths: set[Path]) -> Iterator[str]:
    """Shell lines that make `paths` reachable for everybody, in a mount namespace of the shell's own."""
    closed = {path: gate for path in paths if (gate := closed_ancestor(path)) is not None}
    if not closed:
        return
    yield "mount -t tmpfs stage /mnt"
    for number, path in enumerate(closed):
        yield f"mkdir /mnt/{number} && mount --bind {shlex.quote(str(path))} /mnt/{number}"
    for gate in sorted(set(closed.values())):
        yield f"mount -t tmpfs -o mode=755 gate {shlex.quote(str(gate))}"
    for number, path in enumerate(closed):
        quoted = shlex.quote(str(path))
        yield f"mkdir -p {quoted} && mount --bind /mnt/{number} {quoted}"
    yield "umount --lazy /mnt"


def closed_ancestor(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that others may not enter."""
    return next((parent for parent in reversed([path, *path.parents]) if not parent.stat().st_mode & 0o001), None)


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """A user that exists until the block ends; the current one if it is not root."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        yield OrdinaryUser(entry.pw_name, entry.pw_uid, Path(entry.pw_dir))
        return
    name = f"grotte-test-{os.getpid()}"[:NAME_LIMIT]
    subprocess.run(["useradd", "--create-home", "--user-group", name], check=True, timeout=60)
    try:
        entry = pwd.getpwnam(name)
        yield OrdinaryUser(name, entry.pw_uid, Path(entry.pw_dir))
    finally:
        subprocess.run(["pkill", "--signal", "KILL", "--uid", name], check=False, timeout=60)
        subprocess.run(["userdel", "--remove", "--force", name], check=True, timeout=60, capture_output=True)
