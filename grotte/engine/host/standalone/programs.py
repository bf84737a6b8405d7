"""Starting programs, with the half of `subprocess` that is written in C.

The other half, and what that imports, would be a third of the time in which the guest starts, and a tenth of that in
which it starts a program.
"""

from __future__ import annotations

import errno
import posix
import sys
from _posixsubprocess import fork_exec

from .lean import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_COMPLAINT = 4096
SEARCH_PATH = "/bin:/usr/bin"  # where no other is given, as everywhere


def start(
    arguments: Sequence[str],
    streams: tuple[int, int, int],
    cwd: str,
    environment: Mapping[str, str],
    *,
    executable: str | None = None,
    user: int | None = None,
    group: int | None = None,
    groups: list[int] | None = None,
    new_session: bool = False,
    preexec: Callable[[], object] | None = None,
) -> int:
    """Start a program; return its pid, which is the caller's to reap.

    Args:
        arguments: Its name and what follows.
        streams: What becomes stdin, stdout and stderr; nothing else stays open.
        cwd: Where it starts.
        environment: All of it.
        executable: The program, if that is not the first argument.
        user: Whose process it is; None for whoever calls.
        group: The same of the group.
        groups: The same of all other groups.
        new_session: Whether it leads a session of its own.
        preexec: Runs in the child; without it, and without changes of ids, that borrows the memory until exec.

    Raises:
        OSError: It could not be started; the error names the directory or the program.
        ValueError: An argument contains NUL, or the name of a variable an equals sign.
    """
    program = arguments[0] if executable is None else executable
    complaint, complain = posix.pipe()
    try:
        try:
            places = _places(program, environment)
            given = (list(arguments), places, True, (complain,), cwd, _assignments(environment))
            fds = (streams[0], -1, -1, streams[1], -1, streams[2], complaint, complain)
            child = (True, new_session, -1, group, groups, user, -1, preexec)
            version = () if sys.version_info >= (3, 14) else (True,)  # it may borrow the memory
            pid: int = fork_exec(*given, *fds, *child, *version)  # type: ignore[arg-type]  # no function is None
        finally:
            posix.close(complain)
        said = _read_all(complaint)
    finally:
        posix.close(complaint)
    if said:
        posix.waitpid(pid, 0)
        raise _error(said, cwd, program)
    return pid


def _places(program: str, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    if "/" in program:
        return (encode(program),)
    places = environment.get("PATH", SEARCH_PATH).split(":")
    return tuple([encode(f"{place}/{program}" if place else program) for place in places])


def _assignments(environment: Mapping[str, str]) -> list[bytes]:
    if "=" in "".join(environment):
        raise ValueError("the name of a variable contains an equals sign")
    return [encode(f"{name}={value}") for name, value in environment.items()]


def _read_all(fd: int) -> bytes:
    """Read until the program runs, which closes the other end, or has been given up."""
    data = b""
    while len(data) < MAX_COMPLAINT and (piece := posix.read(fd, MAX_COMPLAINT)):
        data += piece
    return data


def _error(said: bytes, cwd: str, program: str) -> OSError:
    """What the child said before its end: the kind of an exception, a number and, perhaps, where that was."""
    _, number, place = [*said.decode("ascii", "replace").split(":", 2), "", ""][:3]
    code = int(number or "0", 16) or errno.EIO
    return OSError(code, posix.strerror(code), cwd if place.startswith("noexec") else program)
