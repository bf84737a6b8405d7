"""From a forked child of the launcher to a sandbox: mounts, limits, and bubblewrap."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from dataclasses import dataclass

from . import syscalls
from .namespaces import DATA, HOST_USR, ROOT, RUNTIME

# What root inside may do to its own files and processes. Nothing here touches mounts, network set-up, devices,
# other users' memory, or the clock.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT",
)  # fmt: skip

RUNTIME_INSIDE = "/run/grotte"
LINK_FD = 3
RESERVED_FDS = 6
RUN_BYTES = 64 << 20
OPEN_FILES = 65536


@dataclass(frozen=True)
class Plan:
    """What the launcher was asked to start.

    Attributes:
        sandbox_id: Names the sandbox's directory.
        layers: Template layers relative to the data directory, topmost first.
        on_host_usr: Whether the layers stand on the host's /usr and the generated base layer.
        hostname: The sandbox's host name.
        cgroup_procs: Files to write the process into.
        max_pids: Processes, if no cgroup limits them, else 0.
        max_data: Bytes of private memory of each process, if no cgroup limits it, else 0.
        shm_bytes: Size of /dev/shm.
        resolv_conf: What its /etc/resolv.conf says.
        bwrap: Descriptor of bubblewrap, whose path may be closed to root inside, or hidden.
        command: What to run as the first process.
    """

    sandbox_id: str
    layers: list[str]
    on_host_usr: bool
    hostname: str
    cgroup_procs: list[str]
    max_pids: int
    max_data: int
    shm_bytes: int
    resolv_conf: str
    bwrap: int
    command: list[str]


def prepare(plan: Plan, link: int, stderr: int, info: int) -> list[int]:
    """Do what needs the launcher's rights; return the descriptors that the sandbox starts with."""
    for path in plan.cgroup_procs:
        with open(path, "w", encoding="ascii") as file:
            file.write("0")
    # The quota must be in place before the namespace is made: it then counts all users of the sandbox together.
    if plan.max_pids:
        _limit(resource.RLIMIT_NPROC, plan.max_pids)
    seccomp = os.open(f"{DATA}/host/seccomp.bpf", os.O_RDONLY)
    null = os.open("/dev/null", os.O_RDWR)
    return _arrange([null, null, stderr, link, info, seccomp])


def _arrange(sources: list[int]) -> list[int]:
    """Make the sources the descriptors 0, 1, 2…; all others close themselves when bubblewrap takes over."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, RESERVED_FDS) for fd in sources]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
        os.close(fd)
    return list(range(len(sources)))


def enter(plan: Plan, launcher: int) -> None:
    """Run as root of the sandbox's user namespace: mount the root file system and become bubblewrap."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        return
    _forbid_namespaces()
    home = f"{DATA}/host/sandboxes/{plan.sandbox_id}"
    os.umask(0o022)
    _name_host(home, plan.hostname, plan.resolv_conf)
    _mount_root(plan, home)
    if plan.max_data:
        _limit(resource.RLIMIT_DATA, plan.max_data)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    os.chdir("/")
    os.execve(plan.bwrap, bubblewrap_arguments(plan), {})  # noqa: S606 - no shell is what we want


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _forbid_namespaces() -> None:
    """Nested user namespaces are the usual door to kernel bugs; the count is per namespace, so this binds inside."""
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def _name_host(home: str, hostname: str, resolv_conf: str) -> None:
    for name in ("fs/etc", "fs.work", "usr", "usr.work"):
        os.makedirs(f"{home}/{name}", exist_ok=True)
    files = {"hostname": f"{hostname}\n", "hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost\n"}
    files["resolv.conf"] = resolv_conf
    for name, text in files.items():
        with open(f"{home}/fs/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _mount_root(plan: Plan, home: str) -> None:
    base = ["host/base"] if plan.on_host_usr else []
    layers = [f"{DATA}/{layer}" for layer in [*plan.layers, *base]]
    _overlay(ROOT, [f"{layer}/fs" for layer in layers], f"{home}/fs")
    if plan.on_host_usr:
        # overlayfs sees no mounts inside a layer, so /usr needs an overlay of its own.
        changed = [f"{layer}/usr" for layer in layers if os.path.isdir(f"{layer}/usr")]
        _overlay(f"{ROOT}/usr", [*changed, HOST_USR], f"{home}/usr")


def _overlay(target: str, lower: list[str], upper: str) -> None:
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={upper}.work,userxattr"
    syscalls.mount("overlay", target, "overlay", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)


def bubblewrap_arguments(plan: Plan) -> list[str]:
    """Return bubblewrap's command line: all namespaces but the user's, which is there already."""
    arguments = ["bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"]
    arguments += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--hostname", plan.hostname, "--info-fd", "4", "--seccomp", "5"]
    arguments += ["--bind", ROOT, "/", "--proc", "/proc", "--dev", "/dev"]
    arguments += ["--perms", "1777", "--size", str(plan.shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108 - inside
    # Without this, files in /dev would be memory that no limit counts where there is no memory cgroup.
    arguments += ["--remount-ro", "/dev"]
    arguments += ["--perms", "0755", "--size", str(RUN_BYTES), "--tmpfs", "/run"]
    arguments += ["--perms", "0700", "--dir", RUNTIME_INSIDE, "--ro-bind", RUNTIME, f"{RUNTIME_INSIDE}/runtime"]
    arguments += ["--cap-drop", "ALL"]
    for capability in CAPABILITIES:
        arguments += ["--cap-add", f"CAP_{capability}"]
    return [*arguments, "--", *plan.command]
