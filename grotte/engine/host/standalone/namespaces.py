"""User namespaces with the map of a sandbox, and the mounts that every sandbox starts from."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from . import devices, syscalls

STAGE = "/tmp"  # noqa: S108 - hidden under a tmpfs, in the launcher's own mount namespace
DATA = f"{STAGE}/data"
HOST_USR = f"{STAGE}/usr"
RUNTIME = f"{STAGE}/runtime"
ROOT = f"{STAGE}/root"
TERMINALS = f"{STAGE}/pts"
DEVICES = f"{STAGE}/dev"

IDS = 65536
ROOT_BASE = 0x70000000  # above the subuid ranges of shadow and the container ranges of systemd
OWNER_BASE = ROOT_BASE + IDS
#: What the owner of a namespace is called in it, where it is none of the ids that everybody knows.
KEEPER = 0x7FFFFFF0
HANDSHAKE_MS = 10_000


def mark_of(data_dir: str | os.PathLike[str]) -> str:
    """Return what the mounts of an engine's sandboxes are called; it says nothing about the host to those inside."""
    return f"grotte-{os.stat(data_dir).st_ino:x}"


@dataclass(frozen=True)
class IdMap:
    """How ids inside a sandbox appear in the launcher's namespace.

    Attributes:
        base: The launcher's id for 0 inside.
        uids: How many user ids are mapped.
        gids: How many group ids are mapped.
        privileged: Whether the launcher is the host's root.
    """

    base: int
    uids: int
    gids: int
    privileged: bool

    def owner(self, slot: int) -> int:
        """The id that owns the namespace of one sandbox: kernel quotas per user are then quotas per sandbox.

        Args:
            slot: 0 for the engine's own processes, 1 to `slots` for sandboxes.
        """
        if self.privileged:
            return OWNER_BASE + slot
        half = min(self.uids, self.gids) // 2  # nobody's inside, but for somebody who wants it to be
        return half + slot % (half - 2)

    @property
    def slots(self) -> int:
        """How many sandboxes can have an owner of their own."""
        return IDS - 2 if self.privileged else min(self.uids, self.gids) // 2 - 3

    def keeper(self, owner: int) -> int:
        """What the owner of a namespace is called in it.

        The kernel counts some things by user for the whole machine: descriptors on their way through sockets, say.
        Whoever passes some on for the engine has this as its real id, so that no other sandbox can use up its share.
        """
        return KEEPER if self.privileged else owner

    def write(self, pid: int, owner: int) -> None:
        """Give a process in a fresh user namespace its map."""
        for kind, count in (("uid", self.uids), ("gid", self.gids)):
            # Two lines, because newuidmap mapped 0 and the others apart, and a line must not span both.
            lines = f"0 {self.base} 1\n1 {self.base + 1} {count - 1}\n"
            if self.privileged and kind == "uid":
                lines += f"{KEEPER} {owner} 1\n"
            with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(lines)


class Gate:
    """A pipe on which one process waits for the word of another."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._ends = {self._read, self._write}

    def open(self) -> None:
        """Let the waiting process go on."""
        os.write(self._write, b"+")

    def wait(self) -> bool:
        """Wait for the word; False when it did not come in time or its speaker died."""
        self._ends.remove(self._write)
        os.close(self._write)
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        return bool(poller.poll(HANDSHAKE_MS)) and os.read(self._read, 1) == b"+"

    def close(self) -> None:
        """Close both ends."""
        while self._ends:
            os.close(self._ends.pop())


def fork_mapped(
    ids: IdMap, owner: int, prepare: Callable[[], None], inside: Callable[[], None], more_namespaces: int = 0
) -> int:
    """Fork a process that is root of a user namespace of its own, and of a mount namespace.

    Args:
        ids: The map of the namespace.
        owner: The id that owns it.
        prepare: Runs in the child before it gives up the launcher's rights.
        inside: Runs in the child as root inside; the process ends when it returns.
        more_namespaces: Flags of others that it is root of, too.

    Returns:
        The child's pid, which is mapped already or has died.
    """
    unshared, mapped = Gate(), Gate()
    pid = os.fork()
    if pid == 0:
        namespaces = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | more_namespaces
        _run_child(unshared, mapped, owner, namespaces, prepare, inside)
    try:
        if unshared.wait():
            ids.write(pid, owner)
            mapped.open()
    except OSError as error:
        os.write(2, f"{error}\n".encode())
        os.kill(pid, 9)
    finally:
        unshared.close()
        mapped.close()
    return pid


def _run_child(
    unshared: Gate, mapped: Gate, owner: int, namespaces: int, prepare: Callable[[], None], inside: Callable[[], None]
) -> None:
    status = 1
    try:
        prepare()
        _become(owner)
        syscalls.unshare(namespaces)
        # A change of ids made the process unreadable even for its parent, which has to write the map.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        unshared.open()
        if mapped.wait():
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            os.setgroups([])
            inside()
            status = 0
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into the launcher's loop
        os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _become(owner: int) -> None:
    """Take another id but keep every capability: some systems refuse new user namespaces to those without."""
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)
    syscalls.raise_all_capabilities()


def prepare_stage(data_dir: str, runtime_dir: str, ids: IdMap) -> bool:
    """Mount what all sandboxes share where every user can reach it; tell whether /usr shows its owners.

    The host's /tmp is hidden by it, in this mount namespace alone. The interpreter is copied there, since a bind
    mount would tell its place on the host to everybody inside.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    shown, usr = clone_usr(ids)
    data, runtime = (os.open(path, os.O_PATH) for path in (data_dir, runtime_dir))
    syscalls.mount("stage", STAGE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755,size=512m")
    for directory in (DATA, HOST_USR, ROOT, TERMINALS, DEVICES):
        os.mkdir(directory)
    devices.prepare(DEVICES, ids.base, privileged=ids.privileged)
    syscalls.mount(f"/proc/self/fd/{data}", DATA, flags=syscalls.MS_BIND)
    shutil.copytree(f"/proc/self/fd/{runtime}", RUNTIME)
    os.close(data)
    os.close(runtime)
    if usr is None:
        syscalls.mount("/usr", HOST_USR, flags=syscalls.MS_BIND | syscalls.MS_REC)
    else:
        syscalls.attach_mount(usr, HOST_USR)
        os.close(usr)
    return shown


def clone_usr(ids: IdMap) -> tuple[bool, int | None]:
    """Return whether the host's /usr can show its owners inside, and then a detached mount of it that does."""
    if not ids.privileged:
        return False, None
    try:
        usr = syscalls.clone_mount("/usr")
        userns = _namespace_of(ids)
        try:
            syscalls.set_mount_attributes(usr, syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY, userns)
        finally:
            os.close(userns)
    except OSError:  # an old kernel, or a file system that cannot: the files then belong to nobody inside
        return False, None
    return True, usr


def _namespace_of(ids: IdMap) -> int:
    """Return a descriptor of a user namespace with the sandbox's map, which no process lives in."""
    opened = Gate()

    def inside() -> None:
        opened.wait()

    pid = fork_mapped(ids, ids.owner(0), lambda: None, inside)
    try:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        opened.open()
        os.waitpid(pid, 0)
        opened.close()
