"""What each layer of isolation is on this machine: every one is really tried."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from grotte.errors import EngineUnavailableException

from . import freezer, kernel, seccomp
from .cgroups import open_cgroups
from .contents import check_attributes, check_base, check_packages
from .egress import INSTALL_PASTA, find_pasta
from .idmaps import find_subids
from .launcher_client import find_bwrap
from .runtime import STANDALONE
from .spec import Check
from .standalone import disks

MINIMUM_BWRAP = (0, 5)
TRIAL_SECONDS = 20
INSTALL = "install bubblewrap and uidmap; on Debian: apt-get install bubblewrap uidmap"
TRIAL = "import sys; sys.path.insert(0, sys.argv[1]); from standalone import trials; trials.main(*sys.argv[2:])"

Status = Literal["ok", "degraded", "missing"]


def diagnose(data_dir: Path | None = None) -> list[Check]:
    """Try each layer of isolation.

    Args:
        data_dir: Where sandboxes would live; by default the directory for temporary files stands in for it.

    Returns:
        One check a layer, in the order in which they build on each other.
    """
    directory, place = _directory(data_dir)
    return [
        _kernel(),
        directory,
        _bubblewrap(),
        _trial("user namespaces", "userns", "", "missing", "allow unprivileged user namespaces: see "
               "sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces and the AppArmor restriction"),
        _subids(),
        _trial("overlayfs", "overlay", str(place), "missing",
               "use Linux 5.11 or newer, with the data directory on ext4, xfs, btrfs or tmpfs"),
        _seccomp(),
        *_limits(),
        _disks(),
        _idmapped(),
        _network(),
        check_attributes(place),
        check_base(),
        check_packages(),
    ]  # fmt: skip


def _directory(data_dir: Path | None) -> tuple[Check, Path]:
    """What can be said of the data directory, made or not yet; and a directory for the trials of others."""
    otherwise = Path(tempfile.gettempdir())
    wanted = (data_dir or otherwise).absolute()
    try:
        place = next(path for path in (wanted, *wanted.parents) if path.exists())
        with tempfile.TemporaryDirectory(dir=place, prefix="grotte-doctor-"):
            free = shutil.disk_usage(place).free
    except OSError as error:
        remedy = "give this user write access to it, or name another one with --data-dir or GROTTE_DATA_DIR"
        return Check("data directory", "missing", f"{wanted} cannot be written: {error.strerror}", remedy), otherwise
    return Check("data directory", "ok", f"{wanted}, {free >> 30} GiB free"), place


def _kernel() -> Check:
    if reason := kernel.why_not():
        detail, _, remedy = reason.partition("; ")
        return Check("kernel", "missing", detail, remedy)
    return Check("kernel", "ok", f"Linux {platform.release()}")


def _bubblewrap() -> Check:
    try:
        path = find_bwrap()
    except EngineUnavailableException:
        return Check("bubblewrap", "missing", "not installed", INSTALL)
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TRIAL_SECONDS, check=True)
        version = text.stdout.split()[-1]
    except (OSError, subprocess.SubprocessError, IndexError):
        return Check("bubblewrap", "missing", f"{path} does not work, or is something else", INSTALL)
    if tuple(int(part) for part in version.split(".") if part.isdigit()) < MINIMUM_BWRAP:
        return Check("bubblewrap", "missing", f"version {version} is too old", "install bubblewrap 0.5 or newer")
    return Check("bubblewrap", "ok", version)


def _trial(name: str, trial: str, argument: str, otherwise: Status, remedy: str) -> Check:
    """Run one trial in a process of its own, since it changes namespaces."""
    command = [sys.executable, "-I", "-S", "-c", TRIAL, str(STANDALONE.parent), trial, argument]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, otherwise, str(error), remedy)
    if result.returncode == 0:
        return Check(name, "ok", result.stdout.strip() or "works")
    detail = result.stderr.strip().splitlines()
    return Check(name, otherwise, detail[-1] if detail else "does not work", remedy)


def _subids() -> Check:
    if os.getuid() == 0:
        return Check("user ids", "ok", "root maps sandboxes to ids that nobody else has")
    try:
        found = find_subids()
    except EngineUnavailableException as error:
        text, _, remedy = str(error).partition("; ")
        return Check("user ids", "missing", text, remedy)
    return Check("user ids", "ok", f"{found.uids.count} subordinate users, {found.gids.count} groups")


def _seccomp() -> Check:
    try:
        program = seccomp.build()
    except KeyError:
        detail = f"no filter for {platform.machine()}"
        return Check("seccomp", "missing", detail, "use a machine of type x86_64 or aarch64")
    remedy = "use a kernel with CONFIG_SECCOMP_FILTER"
    return _trial("seccomp", "seccomp", program.hex(), "missing", remedy)


def _limits() -> list[Check]:
    groups = open_cgroups()
    found = groups.controllers
    groups.close()
    weaker: dict[str, str] = {
        "memory": "only the memory of each process is limited",
        "pids": "processes are limited by RLIMIT_NPROC",
        "cpu": "processor time is not limited",
        "freezer": "sandboxes are stopped by signals, which programs inside can notice",
    }
    remedy = (
        "boot with cgroups of version 2: systemd.unified_cgroup_hierarchy=1; in a container, give it a writable"
        " /sys/fs/cgroup"
    )
    if os.getuid() != 0:
        remedy = "run as root, or have systemd delegate cgroups of version 2 to this user (Delegate=yes)"
    counted = "memory" in found and ("cpuacct" in found or any(group.version == 2 for group in groups.hierarchies))
    summed = "added up from its processes: no tmpfs, no caches"
    metrics = Check("metrics", "ok", "cgroup") if counted else Check("metrics", "degraded", summed, remedy)
    limits = [
        Check(title, "ok", "cgroup") if name in found else Check(title, "degraded", weaker[name], remedy)
        for title, name in ((_title(name), name) for name in weaker)
    ]
    return [*limits, metrics]


def why_no_disks() -> str:
    """Return what keeps sandboxes from having disks of their own on this machine, or nothing."""
    return disks.why_not(os.getuid() == 0)


def _disks() -> Check:
    measured = "measured; a sandbox beyond its limit is stopped"
    if reason := why_no_disks():
        detail = f"{measured} (no disks of their own: {reason})"
        return Check(
            "limit: disk", "ok", detail, "for a limit by the kernel, run as root, with e2fsprogs and loop devices"
        )
    return Check("limit: disk", "ok", f"{measured}; with serve --own-disks, by a file system for each")


def _title(controller: str) -> str:
    return "pause" if controller == freezer.NAME else f"limit: {controller}"


def _idmapped() -> Check:
    if os.getuid() != 0:
        return Check("owners", "degraded", "files of the host's /usr belong to nobody inside", "run as root")
    remedy = "use Linux 5.19 or newer, with /usr on a file system that knows idmapped mounts"
    return _trial("owners", "idmap", "", "degraded", remedy)


def _network() -> Check:
    pasta = find_pasta()
    remedy = "load the kernel's modules tun and nf_tables; without root, also: chmod 666 /dev/net/tun"
    check = _trial("network", "network", pasta, "degraded", remedy if pasta else INSTALL_PASTA)
    if check.status == "ok":
        return check
    return replace(check, detail=f"no internet access inside sandboxes: {check.detail}")


def explain(checks: list[Check], which: Callable[[Check], bool] = lambda check: check.status == "missing") -> str:
    """Return the failed checks as text, one a line, each with what helps."""
    return "\n".join(f"{check.name}: {check.detail}; {check.remedy}" for check in checks if which(check))
