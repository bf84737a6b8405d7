"""The kernel's watches on directories, and the raw events they give."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFY = 0x2
ATTRIB = 0x4
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
QUEUE_OVERFLOW = 0x4000
IGNORED = 0x8000
ONLY_DIRECTORIES = 0x01000000
DONT_FOLLOW = 0x02000000
IS_DIRECTORY = 0x40000000

WANTED = MODIFY | ATTRIB | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLY_DIRECTORIES
HEADER = struct.Struct("iIII")
BUFFER = 64 << 10

#: NFS, CIFS, SMB, SMB2, FUSE, 9P, CEPH: changes made elsewhere cause no events there.
NETWORK_FILE_SYSTEMS = frozenset({0x6969, 0xFF534D42, 0x517B, 0xFE534D42, 0x65735546, 0x01021997, 0x00C36400})

_libc = ctypes.CDLL(None, use_errno=True)


class RawEvent:
    """One event: on which watch, what, which rename it is half of, and the name in the watched directory."""

    __slots__ = ("cookie", "mask", "name", "watch")  # importing typing takes longer than the rest of this module

    def __init__(self, watch: int, mask: int, cookie: int, name: str) -> None:
        self.watch = watch
        self.mask = mask
        self.cookie = cookie
        self.name = name


class Inotify:
    """One queue of events.

    Raises:
        OSError: The system gives no more of them.
    """

    def __init__(self) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def watch(self, path: str, *, follow: bool) -> int:
        """Watch a directory; the same one gives the same number.

        Raises:
            OSError: It is none, or there are too many watches.
        """
        mask = WANTED if follow else WANTED | DONT_FOLLOW
        return _check(_libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def forget(self, watch: int) -> None:
        """Stop watching; a directory that is gone is forgotten already."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[RawEvent]:
        """Return the events that wait, some of them."""
        try:
            data = os.read(self.fd, BUFFER)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            watch, mask, cookie, length = HEADER.unpack_from(data, position)
            position += HEADER.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            yield RawEvent(watch, mask, cookie, os.fsdecode(name))

    def is_empty(self) -> bool:
        """Whether no event waits."""
        waiting = bytearray(4)
        fcntl.ioctl(self.fd, termios.FIONREAD, waiting)
        return not any(waiting)


def is_on_network(path: str) -> bool:
    """Whether a path lies on a file system whose changes may be made by other machines."""
    answer = ctypes.create_string_buffer(512)  # struct statfs, whose first field is the type
    _check(_libc.statfs(os.fsencode(path), answer))
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF in NETWORK_FILE_SYSTEMS


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        reason = "too many watches" if number in (errno.ENOSPC, errno.EMFILE) else os.strerror(number)
        raise OSError(number, reason)
    return result
