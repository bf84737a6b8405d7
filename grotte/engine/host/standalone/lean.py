"""What the guest needs of modules that take long to import: their halves in C, without the Python around them.

Together, `socket`, `signal`, `threading` and `contextlib` would be a third of the time in which it starts. As much is
`os`, which brings the abstract classes of all collections: what is imported before the first command uses `posix`.
"""

from __future__ import annotations

import posix
import sys
from _signal import (  # type: ignore[import-not-found]  # which the type checker knows as `signal` only
    SIG_BLOCK,
    SIG_DFL,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
    pthread_sigmask,
    set_wakeup_fd,
    signal,
)
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from _thread import LockType, allocate_lock, start_new_thread

TYPE_CHECKING = False  # by this name type checkers know it, and `typing` would have to be imported
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INT_SIZE = 4
FILE_TYPE, DIRECTORY = 0o170000, 0o040000  # of a mode

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_UNIX",
    "CMSG_SPACE",
    "MSG_CMSG_CLOEXEC",
    "MSG_CTRUNC",
    "SIGCHLD",
    "SIGCONT",
    "SIGHUP",
    "SIGINT",
    "SIGKILL",
    "SIGQUIT",
    "SIGSTOP",
    "SIGTERM",
    "SIG_BLOCK",
    "SIG_DFL",
    "SOCK_SEQPACKET",
    "SOCK_STREAM",
    "SOL_SOCKET",
    "SO_PEERCRED",
    "LockType",
    "accept",
    "allocate_lock",
    "encode",
    "exists",
    "is_directory",
    "pthread_sigmask",
    "received_fds",
    "rights",
    "set_wakeup_fd",
    "signal",
    "socket",
    "start_new_thread",
    "suppress",
]  # fmt: skip


class suppress:  # noqa: N801 - named like the one of `contextlib`, which it stands for
    """A context that ends some exceptions.

    Args:
        kinds: Which ones.
    """

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        """Nothing has to be done."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Tell whether the exception ends here."""
        return kind is not None and issubclass(kind, self._kinds)


def accept(listener: socket) -> socket:
    """Return the next connection of a listening socket."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - what `socket.socket.accept` is made of
    return socket(fileno=fd)


def exists(path: str) -> bool:
    """Whether there is something at the end of a path."""
    try:
        posix.stat(path)
    except (OSError, ValueError):
        return False
    return True


def is_directory(path: str) -> bool:
    """Whether a path leads to a directory."""
    try:
        return posix.stat(path).st_mode & FILE_TYPE == DIRECTORY
    except (OSError, ValueError):
        return False


def encode(text: str) -> bytes:
    """Return the bytes of a path, an argument or a variable, as `os.fsencode` does: the guest's encoding is UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that passes descriptors on."""
    return [(SOL_SOCKET, SCM_RIGHTS, b"".join([fd.to_bytes(INT_SIZE, sys.byteorder) for fd in fds]))] if fds else []


def received_fds(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with ancillary data."""
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            places = range(0, len(content) - INT_SIZE + 1, INT_SIZE)
            fds += [int.from_bytes(content[place : place + INT_SIZE], sys.byteorder) for place in places]
    return fds
