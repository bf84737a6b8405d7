"""The few Linux calls that the standard library does not offer (``os.unshare`` came with Python 3.12)."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36

# The same numbers on x86_64 and aarch64.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08

OPEN_TREE_CLONE = 1
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
NS_GET_USERNS, NS_GET_OWNER_UID = 0xB701, 0xB704
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x00100000

FALLOC_FL_KEEP_SIZE = 1

CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling process into an existing namespace."""
    _check(_libc.setns(fd, kind), "setns")


def namespace_owner(fd: int) -> int:
    """Return the id that owns the user namespace of a namespace."""
    userns = _check(_libc.ioctl(fd, ctypes.c_ulong(NS_GET_USERNS)), "the user namespace of a namespace")
    try:
        owner = ctypes.c_uint32()
        _check(_libc.ioctl(userns, ctypes.c_ulong(NS_GET_OWNER_UID), ctypes.byref(owner)), "the owner of a namespace")
        return owner.value
    finally:
        os.close(userns)


def prctl(option: int, value: int) -> None:
    """Set one property of the calling process."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; the error names the target."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {kind or 'bind'} on {target}")


def umount(target: str) -> None:
    """Detach the mount at a path, busy or not."""
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def clone_mount(path: str) -> int:
    """Return a descriptor of a detached copy of the mount at a path, without the mounts below it."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(_libc.syscall(SYS_OPEN_TREE, AT_FDCWD, path.encode(), ctypes.c_uint(flags)), f"open_tree {path}")


def set_mount_attributes(mount_fd: int, attributes: int, userns_fd: int = 0) -> None:
    """Change a detached mount; with ``MOUNT_ATTR_IDMAP``, shift its owners by the maps of a user namespace."""
    attr = _MountAttr(attributes, 0, 0, userns_fd)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, mount_fd, b"", ctypes.c_uint(AT_EMPTY_PATH), ctypes.byref(attr), ctypes.c_size_t(32)
    )
    _check(result, "mount_setattr")


def attach_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at a path."""
    result = _libc.syscall(
        SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, target.encode(), ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    )
    _check(result, f"move_mount to {target}")


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open what lies below a directory; the kernel refuses every path that leads out of it, by links or otherwise."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    result = _libc.syscall(SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(24))
    return _check(result, "openat2")


def chown_opened(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what was opened, be it by ``O_PATH`` only; -1 leaves one as it is."""
    _check(
        _libc.fchownat(fd, b"", ctypes.c_uint(uid & 0xFFFFFFFF), ctypes.c_uint(gid & 0xFFFFFFFF), AT_EMPTY_PATH),
        "chown",
    )


def allocate(fd: int, size: int) -> None:
    """Have the disk keep so many bytes for a file, whose own size does not change."""
    _check(_libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)), "fallocate")


def _capabilities() -> tuple[ctypes.Array[ctypes.c_uint32], ctypes.Array[ctypes.c_uint32]]:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the low halves, then the high ones
    _check(_libc.capget(header, data), "capget")
    return header, data


def raise_all_capabilities() -> None:
    """Make every permitted capability effective again, after a change of the user id that kept them permitted."""
    header, data = _capabilities()
    data[0], data[3] = data[1], data[4]  # effective = permitted, low and high halves
    _check(_libc.capset(header, data), "capset")
