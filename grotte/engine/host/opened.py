"""Checks of descriptors that a guest sent: the engine reads and writes them with its own rights."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat

from .spec import GuestError

OVERLAYFS, TMPFS = 0x794C7630, 0x01021994
# What a sandbox's file system can be made of. Files of /proc, say, may answer according to who reads.
FILE_SYSTEMS = frozenset({OVERLAYFS, TMPFS})

_libc = ctypes.CDLL(None, use_errno=True)


def require_readable(fds: list[int], volumes: int = 0) -> os.stat_result:
    """Return the state of the one regular file that may be read.

    Args:
        fds: What the guest sent.
        volumes: The type of the file system on which volumes are.

    Raises:
        GuestError: It is something else.
    """
    return _require(fds, {os.O_RDONLY, os.O_RDWR}, volumes)


def require_writable(fds: list[int], volumes: int = 0) -> os.stat_result:
    """Return the state of the one regular file that may be written.

    Args:
        fds: What the guest sent.
        volumes: The type of the file system on which volumes are.

    Raises:
        GuestError: It is something else.
    """
    return _require(fds, {os.O_WRONLY, os.O_RDWR}, volumes)


def _require(fds: list[int], access: set[int], volumes: int) -> os.stat_result:
    if len(fds) == 1:
        info = os.fstat(fds[0])
        flags = fcntl.fcntl(fds[0], fcntl.F_GETFL)
        plain = flags & os.O_ACCMODE in access and not flags & (os.O_PATH | os.O_DIRECT)
        if plain and stat.S_ISREG(info.st_mode) and file_system(fds[0]) in FILE_SYSTEMS | {volumes}:
            return info
    raise GuestError("internal", "the guest sent something that is not a regular file")


def file_system(fd: int) -> int:
    """Return the type of the file system of an open file."""
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with the type and is shorter than this
    return int(buffer[0]) if _libc.fstatfs(fd, ctypes.byref(buffer)) == 0 else 0
