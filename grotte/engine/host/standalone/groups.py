"""Joining the control groups of a sandbox."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

#: What is there where processors are limited or counted, in version 1 and 2.
OF_PROCESSORS = ("cpu.cfs_quota_us", "cpuacct.usage", "cpu.max")


def join(group: str) -> None:
    """Put the calling process into a cgroup."""
    try:
        # One thread that moves itself is let through at once; for a process, the kernel stops all others first.
        file = os.open(f"{group}/tasks", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # version 2 does not have it
        file = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, b"0")
    finally:
        os.close(file)


def work_for(groups: Iterable[str]) -> None:
    """Have what the calling process does counted as what a sandbox does, as far as processors go."""
    for group in groups:
        if any(os.path.exists(f"{group}/{name}") for name in OF_PROCESSORS):
            with contextlib.suppress(OSError):  # it has just gone
                join(group)
