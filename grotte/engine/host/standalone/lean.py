"""What the guest needs of modules that take long to import: their halves in C, without the Python around them.

Together, `socket`, `signal`, `threading`, `queue` and `contextlib` would be a third of the time in which it starts.
"""

from __future__ import annotations

import struct
from _queue import SimpleQueue
from _signal import (  # type: ignore[import-not-found]  # which the type checker knows as `signal` only
    SIG_DFL,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
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
from collections.abc import Iterable, Sequence

INT_SIZE = struct.calcsize("i")

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
    "SIG_DFL",
    "SOCK_SEQPACKET",
    "SOCK_STREAM",
    "SOL_SOCKET",
    "SO_PEERCRED",
    "LockType",
    "SimpleQueue",
    "accept",
    "allocate_lock",
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


def rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that passes descriptors on."""
    return [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []


def received_fds(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with ancillary data."""
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            count = len(content) // INT_SIZE
            fds += struct.unpack_from(f"{count}i", content)
    return fds
