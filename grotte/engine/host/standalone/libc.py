"""What the guest asks the kernel for about itself: calls that no module offers which Python has built in.

They go through the half of `ctypes` that is written in C; the other half would be a sixth of the time in which the
guest starts. None gives up the interpreter's lock: nobody else needs to run meanwhile.
"""

from __future__ import annotations

import posix
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    dlopen,
    dlsym,
    get_errno,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _ctypes import _CData

    _Number = _SimpleCData[int]
else:
    _Number = _SimpleCData

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
UNCHANGED = 0xFFFFFFFF

#: setgroups, setresgid and setresuid, which libc would make of all threads.
_OF_THREADS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}
_numbers = _OF_THREADS.get(posix.uname().machine)
#: Whether a single thread can take on the ids of another user.
HAS_THREAD_IDS = _numbers is not None


class Int(_Number):
    """An ``int``."""

    _type_ = "i"


class Word(_Number):
    """An ``unsigned int``."""

    _type_ = "I"


class Long(_Number):
    """An ``unsigned long``."""

    _type_ = "L"


_ZERO = Long(0)


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI | FUNCFLAG_USE_ERRNO
    _restype_ = Int


_here = dlopen(None, 0)  # type: ignore[arg-type]  # no name: what is loaded already
_prctl, _capget, _capset, _getrlimit, _setrlimit, _syscall = (
    _Function(dlsym(_here, name)) for name in ("prctl", "capget", "capset", "getrlimit", "setrlimit", "syscall")
)


def _call(function: CFuncPtr, *arguments: int | _CData) -> None:
    if function(*arguments) < 0:
        number = get_errno()
        raise OSError(number, posix.strerror(number))


def prctl(option: int, value: int) -> None:
    """Set one property of the calling process.

    Raises:
        OSError: The kernel refuses.
    """
    _call(_prctl, option, Long(value), _ZERO, _ZERO, _ZERO)


def set_soft_limit(kind: int, value: int) -> None:
    """Set one of the calling process's limits, as far as it is its own to set.

    Raises:
        OSError: The kernel refuses.
    """
    limit = (Long * 2)()
    _call(_getrlimit, kind, limit)
    limit[0] = value
    _call(_setrlimit, kind, limit)


def set_groups(groups: list[int]) -> None:
    """Set the supplementary groups of the calling thread alone.

    Raises:
        OSError: The kernel refuses.
    """
    _of_thread(0, len(groups), (Word * len(groups))(*groups))


def set_group(gid: int) -> None:
    """Set the real and the effective group of the calling thread alone; see `set_user`."""
    _of_thread(1, Word(gid), Word(gid), Word(UNCHANGED))


def set_user(real: int, effective: int) -> None:
    """Set the real and the effective user of the calling thread alone; the saved one is its way back.

    Raises:
        OSError: The kernel refuses.
    """
    _of_thread(2, Word(real), Word(effective), Word(UNCHANGED))


def _of_thread(which: int, *arguments: int | _CData) -> None:
    assert _numbers is not None
    _call(_syscall, Long(_numbers[which]), *arguments)


def drop_other_capabilities() -> None:
    """Keep what is started from now on from ever having more capabilities than the calling process may use.

    Raises:
        OSError: The kernel refuses.
    """
    header = (Word * 2)(CAPABILITY_VERSION_3, 0)
    data = (Word * 6)()  # effective, permitted, inheritable: the low halves, then the high ones
    _call(_capget, header, data)
    permitted = int(data[1]) | int(data[4]) << 32
    number = 0
    while _prctl(PR_CAPBSET_READ, Long(number), _ZERO, _ZERO, _ZERO) >= 0:
        if not permitted >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
        number += 1
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    data[2] = data[5] = 0
    _call(_capset, header, data)
