"""From a forked child of the launcher to a sandbox: mounts, limits, and bubblewrap."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys
from dataclasses import dataclass

from . import disks, groups, syscalls, taps
from .credentials import KEEPER
from .namespaces import DATA, DEVICES, HOST_USR, ROOT, RUNTIME, TERMINALS, mark_of
from .network import Way

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
NO_CORE = 1  # too little for a file, and the one size for which the kernel starts no program of the host's
MAX_TERMINALS = 256  # of the few thousand that all sandboxes share


@dataclass(frozen=True)
class Plan:
    """What the launcher was asked to start.

    Attributes:
        sandbox_id: Names the sandbox's directory.
        layers: Template layers relative to the data directory, topmost first.
        on_host_usr: Whether the layers stand on the host's /usr and the generated base layer.
        hostname: The sandbox's host name.
        cgroups: Directories of the groups to put the process into.
        max_pids: Processes, if no cgroup limits them, else 0.
        max_data: Bytes of private memory of each process, if no cgroup limits it, else 0.
        shm_bytes: Size of /dev/shm.
        disk_bytes: Size of its disk, or 0 for as much as there is.
        resolv_conf: What its /etc/resolv.conf says.
        mounts: Volumes and where they are mounted.
        bwrap: Descriptor of bubblewrap, whose path may be closed to root inside, or hidden.
        command: What to run as the first process.
        keeper: The real id of that process, see `namespaces.IdMap.keeper`.
    """

    sandbox_id: str
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
    bwrap: int
    command: list[str]
    keeper: int


def prepare(plan: Plan, link: int, stderr: int, info: int) -> list[int]:
    """Do what needs the launcher's rights; return the descriptors that the sandbox starts with."""
    for group in plan.cgroups:
        groups.join(group)
    # The quota must be in place before the namespace is made: it then counts all users of the sandbox together.
    if plan.max_pids:
        _limit(resource.RLIMIT_NPROC, plan.max_pids)
    disks.attach(plan.sandbox_id, plan.disk_bytes)
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


def enter(plan: Plan, launcher: int, way: Way | None) -> None:
    """Run as root of the sandbox's namespaces: mount the root file system, open the way out, become bubblewrap."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        return
    _forbid_namespaces()
    home = disks.home_of(plan.sandbox_id)
    os.umask(0o022)
    if not plan.on_host_usr:
        _make_mount_points(home)
    _name_host(home, plan.hostname, plan.resolv_conf)
    _mount_root(plan, home)
    _mount_terminals()
    for volume, path in plan.mounts:
        _mount_volume(volume, path)
    taps.raise_loopback()
    if way is not None:
        way.open()
    if plan.max_data:
        _limit(resource.RLIMIT_DATA, plan.max_data)
    _limit(resource.RLIMIT_CORE, NO_CORE)
    _limit(resource.RLIMIT_NOFILE, min(OPEN_FILES, _reach(resource.RLIMIT_NOFILE)))
    os.chdir("/")
    os.execve(plan.bwrap, bubblewrap_arguments(plan), {})  # noqa: S606 - no shell is what we want


def _reach(kind: int) -> int:
    """As far as programs inside may go: an ordinary user's engine shares some of the kernel's counts with them."""
    hard = resource.getrlimit(kind)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard * 3 // 4


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _forbid_namespaces() -> None:
    """Nested user namespaces are the usual door to kernel bugs; the count is per namespace, so this binds inside."""
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def _make_mount_points(home: str) -> None:
    """Where bubblewrap will mount there must be directories, whatever an image has there: links could lead out."""
    for name in ("proc", "dev", "run"):
        os.makedirs(f"{home}/fs/{name}", exist_ok=True)


def _name_host(home: str, hostname: str, resolv_conf: str) -> None:
    etc = f"{home}/fs/etc"
    if os.path.islink(etc) or not os.path.isdir(etc):
        _make_way(etc)
    for name in ("fs/etc", "fs.work", "usr", "usr.work"):
        os.makedirs(f"{home}/{name}", exist_ok=True)
    files = {"hostname": f"{hostname}\n", "hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost\n"}
    files["resolv.conf"] = resolv_conf
    for name, text in files.items():
        _make_way(f"{etc}/{name}")
        with open(f"{etc}/{name}", "x", encoding="utf-8") as file:
            file.write(text)


def _make_way(path: str) -> None:
    """What runs inside may have put anything there: links to have files written elsewhere, or mere obstacles."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)
        except IsADirectoryError:  # with contents that are not ours to remove
            os.rename(path, f"{path}.{os.urandom(4).hex()}")


def _mount_root(plan: Plan, home: str) -> None:
    order = [*plan.layers, "host/base"] if plan.on_host_usr else ["host/tools", *plan.layers]
    layers = [f"{DATA}/{layer}" for layer in order]
    _overlay(ROOT, [f"{layer}/fs" for layer in layers], f"{home}/fs")
    if plan.on_host_usr:
        # overlayfs sees no mounts inside a layer, so /usr needs an overlay of its own.
        changed = [f"{layer}/usr" for layer in layers if os.path.isdir(f"{layer}/usr")]
        _overlay(f"{ROOT}/usr", [*changed, HOST_USR], f"{home}/usr")


def _overlay(target: str, lower: list[str], upper: str) -> None:
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={upper}.work,userxattr"
    syscalls.mount(mark_of(DATA), target, "overlay", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)


def _mount_terminals() -> None:
    """Bubblewrap would mount terminals without a limit."""
    options = f"newinstance,ptmxmode=0666,mode=620,gid=5,max={MAX_TERMINALS}"
    syscalls.mount("devpts", TERMINALS, "devpts", syscalls.MS_NOSUID, options)


def _mount_volume(volume: str, path: str) -> None:
    """Bind a volume to a place below the root; bubblewrap takes it along."""
    here = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.strip("/").split("/"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
            # a layer may hold links where the place should be: they could lead anywhere
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        syscalls.mount(f"{DATA}/host/volumes/{volume}", f"/proc/self/fd/{here}", flags=syscalls.MS_BIND)
    except NotADirectoryError:
        raise OSError(f"a volume cannot be mounted at {path}: a file or link is in the way") from None
    finally:
        os.close(here)


def bubblewrap_arguments(plan: Plan) -> list[str]:
    """Return bubblewrap's command line: all namespaces but the user's and the network's, which are there already."""
    arguments = ["bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"]
    arguments += ["--setenv", "LC_ALL", "C"]  # the interpreter reads none of the image's locales then
    arguments += ["--setenv", KEEPER, str(plan.keeper)]
    arguments += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--hostname", plan.hostname, "--info-fd", "4", "--seccomp", "5"]
    arguments += ["--bind", ROOT, "/", "--proc", "/proc"]
    arguments += ["--dev-bind", DEVICES, "/dev", "--dev-bind", TERMINALS, "/dev/pts"]
    arguments += ["--perms", "1777", "--size", str(plan.shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108 - inside
    arguments += ["--perms", "0755", "--size", str(RUN_BYTES), "--tmpfs", "/run"]
    arguments += ["--perms", "0711", "--dir", RUNTIME_INSIDE, "--ro-bind", RUNTIME, f"{RUNTIME_INSIDE}/runtime"]
    arguments += ["--cap-drop", "ALL"]
    for capability in CAPABILITIES:
        arguments += ["--cap-add", f"CAP_{capability}"]
    return [*arguments, "--", *plan.command]
