"""What the engine asks of the launcher, and what that knows of each sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from . import network


class Config(TypedDict):
    """The launcher's command line."""

    control: int
    data_dir: str
    runtime_dir: str
    privileged: bool
    bwrap: str
    pasta: str
    command: list[str]
    cgroup_homes: list[str]
    keep: list[str]


class Launch(TypedDict):
    """The engine asks for a sandbox; the packet carries the guest's link and the place for error text."""

    id: str
    layers: list[str]
    on_host_usr: bool
    hostname: str
    cgroups: list[str]
    max_pids: int
    max_data: int
    shm_bytes: int
    disk_bytes: int
    resolv_conf: str
    mounts: list[list[str]]
    network: WantedNetwork | None


class WantedNetwork(TypedDict):
    """What a sandbox may reach; see ``network.Order``."""

    resolvers: list[str]
    allow: list[str]
    deny: list[str]
    lookups: bool


@dataclass
class Child:
    """One sandbox: the process that became bubblewrap, and where it tells the pid of the first process inside.

    Attributes:
        pid: Bubblewrap.
        info: Where it tells; read as far as it has come.
        cgroups: Its control groups.
        owner: The id that owns its namespaces.
        told: What bubblewrap has told so far.
        first: The first process inside, as seen here, or 0.
        alive: It has not been reaped.
        removing: It was told to go.
        keep: Its files stay when it goes.
    """

    pid: int
    info: int
    cgroups: list[str]
    owner: int = 0
    told: bytes = b""
    first: int = 0
    alive: bool = True
    removing: bool = False
    keep: bool = False


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def read_info(child: Child) -> bool:
    """Read what bubblewrap tells, which comes in pieces; False if there may be more."""
    try:
        piece = os.read(child.info, 4096)
    except BlockingIOError:
        return False
    child.told += piece
    with contextlib.suppress(ValueError, KeyError):
        child.first = int(json.loads(child.told)["child-pid"])
    return not piece


def first_process(child: Child) -> int | None:
    """Return the pid, as seen here, of the first process inside, if bubblewrap has come so far."""
    while not child.first and not read_info(child):
        if not select.select([child.info], [], [], 0)[0]:
            break
    return child.first or None


def order_of(wanted: WantedNetwork, groups: Iterable[str]) -> network.Order:
    """Return what the engine said as the network takes it."""
    resolvers, allow, deny = (tuple(wanted[name]) for name in ("resolvers", "allow", "deny"))
    return network.Order(resolvers, allow, deny, wanted["lookups"], tuple(groups))


def signal_process(pid: int, parent: int) -> bool:
    """Kill a process if it is still the child of the process that it was; pids are reused."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if parent_of(pid) != parent:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def kill_child(child: Child) -> None:
    """Kill a sandbox: its first process if there is one, so that bubblewrap's end means that all inside are dead."""
    first = first_process(child)
    if first is None or not signal_process(first, child.pid):
        os.kill(child.pid, signal.SIGKILL)
    for group in child.cgroups:  # what is frozen by version 1 does not even die
        with contextlib.suppress(OSError), open(f"{group}/freezer.state", "r+", encoding="ascii") as file:
            file.write("THAWED")
