"""Starting programs as other users, quickly.

A child that changes its ids between fork and exec needs memory of its own, and copying that of the guest takes longer
than a shell does. A child that changes nothing borrows it until exec (vfork). So it is the calling thread that takes
on the ids, for itself alone, and the child inherits them. The saved ids stay root's: they are the thread's way back,
and exec makes them those of the user in the child. No code of the child's runs before that.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from . import programs, syscalls
from .accounts import Account
from .lean import SIGKILL

#: setgroups, setresgid and setresuid, which libc would make of all threads.
_NUMBERS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}
_UNCHANGED = -1

# Without giving up the interpreter's lock: nobody else needs to run meanwhile.
_libc = ctypes.PyDLL(None, use_errno=True)
_numbers = _NUMBERS.get(os.uname().machine)


def start(
    arguments: Sequence[str],
    account: Account,
    groups: list[int],
    streams: tuple[int, int, int],
    cwd: str,
    environment: dict[str, str],
) -> int:
    """Start a program as a user; return its pid. It is the caller's to reap.

    Raises:
        OSError: It could not be started.
    """
    if _numbers is not None:
        try:
            with _Borrowed(account, groups):
                return programs.start(arguments, streams, cwd, environment)
        except OSError:
            pass  # perhaps a directory that only root may enter; otherwise it fails again, as it always did
    return programs.start(arguments, streams, cwd, environment, user=account.uid, group=account.gid, groups=groups)


class _Borrowed:
    """The calling thread, and no other one, is a user's for a while."""

    def __init__(self, account: Account, groups: list[int]) -> None:
        self._account = account
        self._groups = groups

    def __enter__(self) -> None:
        self._own = os.getgroups()
        try:
            _set_groups(self._groups)
            _set_ids(1, self._account.gid)
            _set_ids(2, self._account.uid)  # last: it takes away the right to do the others
        except OSError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        _set_ids(2, 0)
        _set_ids(1, 0)
        _set_groups(self._own)
        # a change of ids resets it, on some machines to what lets others look into this process
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _set_groups(groups: list[int]) -> None:
    _call(0, len(groups), (ctypes.c_uint32 * len(groups))(*groups))


def _set_ids(which: int, number: int) -> None:
    """Set the real and the effective id."""
    _call(which, ctypes.c_uint32(number), ctypes.c_uint32(number), ctypes.c_uint32(_UNCHANGED))


def _call(which: int, *arguments: object) -> None:
    assert _numbers is not None
    if _libc.syscall(_numbers[which], *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def end_with_parent() -> None:
    """Have the kernel end this process when its parent dies: each change of ids makes the calling thread forget that.

    So it is asked for by a thread that never changes them.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
