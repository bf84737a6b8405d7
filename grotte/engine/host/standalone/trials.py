"""Trials of single layers of isolation, each in a process of its own: it prints what it found, or fails."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile

from . import network, syscalls, trees
from .namespaces import IDS, ROOT_BASE, IdMap, clone_usr

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
MAX_REASON = 1000
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}


def userns() -> str:
    """Make a user namespace with all the others."""
    _enter()
    return "works"


def overlay(place: str) -> str:
    """Mount an overlay in a user namespace, change a file of the lower layer and remove another."""
    home = tempfile.mkdtemp(prefix="grotte-doctor-", dir=place or None)
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _overlay_in(home)
            os._exit(0)
        except OSError as error:
            os.write(say, str(error).encode())
        finally:
            os._exit(1)
    os.close(say)
    reason = os.read(said, MAX_REASON).decode(errors="replace")
    os.close(said)
    status = os.waitpid(pid, 0)[1]
    trees.remove(home)
    if status != 0:
        raise OSError(f"no overlay can be mounted in a user namespace here: {reason or 'its trial died'}")
    return "works"


def _overlay_in(home: str) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{home}/{name}")
    for name in ("changed", "removed"):
        with open(f"{home}/lower/{name}", "w", encoding="ascii") as file:
            file.write("lower")
    _enter()
    options = f"lowerdir={home}/lower,upperdir={home}/upper,workdir={home}/work,userxattr"
    syscalls.mount("overlay", f"{home}/merged", "overlay", 0, options)
    with open(f"{home}/merged/changed", "a", encoding="ascii") as file:
        file.write("upper")
    os.unlink(f"{home}/merged/removed")
    # The kernel keeps this directory closed even to its owner, who is about to remove it.
    os.chmod(f"{home}/work/work", 0o700)


def seccomp(program: str) -> str:
    """Load the sandbox's filter and make a call that it refuses."""
    code = bytes.fromhex(program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)
    loaded = Program(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter cannot be loaded")
    if libc.syscall(SYS_KEYCTL[os.uname().machine], 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        raise OSError("the filter does not filter")
    return f"{len(code) // 8} instructions"


def idmap(_: str = "") -> str:
    """Clone /usr with shifted owners."""
    shown, _fd = clone_usr(IdMap(ROOT_BASE, IDS, IDS, privileged=True))
    if not shown:
        raise OSError("idmapped mounts do not work for /usr")
    return "files of the host's /usr belong to root inside"


def way_out(pasta: str) -> str:
    """Find what a way out of a sandbox is made of."""
    if os.getuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
        network.open_tun()
    else:
        _enter()
    if reason := network.probe(pasta):
        raise OSError(reason)
    return "pasta behind nf_tables; IPv4 only"


def _enter() -> None:
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def main(trial: str, argument: str) -> None:
    """Run one trial by name."""
    trials = {
        "userns": lambda _: userns(),
        "overlay": overlay,
        "seccomp": seccomp,
        "idmap": idmap,
        "network": way_out,
    }
    try:
        print(trials[trial](argument))
    except OSError as error:
        sys.exit(str(error))
