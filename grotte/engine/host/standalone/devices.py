"""The /dev of all sandboxes: the few devices that are harmless, which nobody can change.

It is made once and shared: a sandbox of its own would have to mount each device, and mounts are dear.
"""

from __future__ import annotations

import os

from . import syscalls

#: Devices with their numbers.
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore", "ptmx": "pts/ptmx",
}  # fmt: skip
#: What each sandbox mounts there.
PLACES = {"pts": 0o755, "shm": 0o1777}
CHARACTER_DEVICE = 0o020000


def prepare(directory: str, root: int, *, privileged: bool) -> None:
    """Mount it at a directory.

    Args:
        directory: Where.
        root: The id that sandboxes see as their root's.
        privileged: Whether the calling process may make devices; else those of the host are mounted.
    """
    syscalls.mount("dev", directory, "tmpfs", syscalls.MS_NOSUID, "mode=755,size=64k")
    for name, numbers in NODES.items():
        path = f"{directory}/{name}"
        if privileged:
            os.mknod(path, CHARACTER_DEVICE | 0o666, os.makedev(*numbers))
            os.chmod(path, 0o666)  # noqa: S103 - what everybody may use
        else:
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY))
            syscalls.mount(f"/dev/{name}", path, flags=syscalls.MS_BIND)
    for name, target in LINKS.items():
        os.symlink(target, f"{directory}/{name}")
    for name, mode in PLACES.items():
        os.mkdir(f"{directory}/{name}")
        os.chmod(f"{directory}/{name}", mode)
    if privileged:
        for name in ("", *NODES, *LINKS, *PLACES):
            os.chown(f"{directory}/{name}", root, root, follow_symlinks=False)
    # The file system itself, so that no mount of it can be made writable inside.
    syscalls.mount("dev", directory, flags=syscalls.MS_REMOUNT | syscalls.MS_RDONLY | syscalls.MS_NOSUID)
