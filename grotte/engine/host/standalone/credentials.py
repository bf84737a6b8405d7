"""Starting programs as other users, quickly.

A child that changes its ids between fork and exec needs memory of its own, and copying that of the guest takes longer
than a shell does. A child that changes nothing borrows it until exec (vfork). So it is the calling thread that takes
on the ids, for itself alone, and the child inherits them. The saved ids stay root's: they are the thread's way back,
and exec makes them those of the user in the child. No code of the child's runs before that.
"""

from __future__ import annotations

import posix

from . import libc, programs
from .accounts import Account
from .lean import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KEEPER = "KEEPER"


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
    if libc.HAS_THREAD_IDS:
        try:
            with _Borrowed(account, groups):
                return programs.start(arguments, streams, cwd, environment)
        except OSError:
            pass  # perhaps a directory that only root may enter; otherwise it fails again, as it always did
    return programs.start(arguments, streams, cwd, environment, user=account.uid, group=account.gid, groups=groups)


class _Own:
    """The real id of this process, which is nobody's that anybody inside has: see `namespaces.IdMap.keeper`.

    Attributes:
        uid: Root's, until it is told.
    """

    uid = 0


def settle() -> None:
    """Take on the real id that the launcher named."""
    _Own.uid = int(posix.environ[KEEPER.encode()])
    posix.setresuid(_Own.uid, 0, 0)


class _Borrowed:
    """The calling thread, and no other one, is a user's for a while."""

    def __init__(self, account: Account, groups: list[int]) -> None:
        self._account = account
        self._groups = groups

    def __enter__(self) -> None:
        self._own = posix.getgroups()
        try:
            libc.set_groups(self._groups)
            libc.set_group(self._account.gid)
            libc.set_user(self._account.uid, self._account.uid)  # last: it takes away the right to do the others
        except OSError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        libc.set_user(libc.UNCHANGED, 0)  # first: it gives back the right to do the others
        libc.set_user(_Own.uid, 0)
        libc.set_group(0)
        libc.set_groups(self._own)
        # a change of ids resets it, on some machines to what lets others look into this process
        libc.prctl(libc.PR_SET_DUMPABLE, 0)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent dies: each change of ids makes the calling thread forget that.

    So it is asked for by a thread that never changes them.
    """
    libc.prctl(libc.PR_SET_PDEATHSIG, SIGKILL)
