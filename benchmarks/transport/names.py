"""Names for many hosts without touching the system: a hosts file that only the clients' processes see.

Every client resolves through its own resolver, of C, of Rust or of Python, so the names must be where all of them
look. A mount namespace gives a process a /etc/hosts of its own; it needs root or user namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.transport.job import DOMAIN

#: What SDKs put before the id of a sandbox: the port of the agent in it.
SANDBOX_PREFIX = "49983-"
SCRIPT = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


def write_hosts(path: Path, count: int) -> None:
    """Write a hosts file: what this machine's says, and on loopback `count` hosts, and sandboxes, of the domain."""
    known = Path("/etc/hosts").read_text() if Path("/etc/hosts").exists() else "127.0.0.1 localhost\n"
    labels = ["api", *(f"{prefix}h{index}" for prefix in ("", SANDBOX_PREFIX) for index in range(count))]
    path.write_text("\n".join([known.rstrip(), *(f"127.0.0.1 {label}.{DOMAIN}" for label in labels), ""]))


def wrapper(hosts: Path) -> list[str] | None:
    """What to put before a command so that it sees `hosts`; None when this machine does not allow that."""
    if shutil.which("unshare") is None:
        return None
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *rights, "--mount", "sh", "-c", SCRIPT, "sh", str(hosts)]
    check = subprocess.run([*command, "getent", "hosts", f"h0.{DOMAIN}"], capture_output=True, timeout=10, check=False)
    return command if check.returncode == 0 else None
