"""Where this user's engine on demand is found, and the locks that decide who starts and who stops it.

No event loop here: the SDK, sync and async, and the engine share it. The kernel drops every lock with its process, so
nothing has to be cleaned up after a kill -9.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from grotte.errors import EngineUnavailableException

_ADDRESS = "engine.json"
_CLIENTS = "clients.lock"
_START = "start.lock"
_LOG = "engine.log"


class EngineAddress(msgspec.Struct, frozen=True):
    """Where an engine listens, and the key that it accepts."""

    url: str
    api_key: str
    pid: int
    version: str

    def __repr__(self) -> str:
        return f"EngineAddress(url={self.url!r}, pid={self.pid}, version={self.version!r})"


@dataclass(frozen=True, slots=True)
class SpawnedEngine:
    """An engine that is starting.

    Attributes:
        pid: The engine's process; it is not a child of this one.
        ready_fd: Gets one JSON line when the engine serves or gives up, then ends; close it.
    """

    pid: int
    ready_fd: int


class _Lease:
    """The lock that this process holds on the engine, if it does."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.fd: int | None = None
        self.pid = 0


_lease = _Lease()


def runtime_dir() -> Path:
    """The directory of the engine's address and locks: this user's alone.

    Raises:
        EngineUnavailableException: it is a link, not ours, or open to others.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isabs(base) and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
        return _private(Path(base) / "grotte")
    return _private(Path(tempfile.gettempdir()) / f"grotte-{os.getuid()}")


def data_dir() -> Path:
    """Where engines of this user keep their state; the engine on demand uses ``local`` below it."""
    if given := os.environ.get("GROTTE_DATA_DIR"):
        return Path(given).absolute()
    state = os.environ.get("XDG_STATE_HOME")
    if state and os.path.isabs(state):
        return Path(state) / "grotte"
    try:
        return Path.home() / ".local" / "state" / "grotte"
    except RuntimeError:
        raise EngineUnavailableException(
            "no home directory for the engine's data: set GROTTE_DATA_DIR to a directory of your own"
        ) from None


def clients_lock() -> Path:
    """Clients hold it shared for as long as they live; the engine takes it alone to leave."""
    return runtime_dir() / _CLIENTS


def start_lock() -> Path:
    """Held by the client that starts the engine, so that two never start two."""
    return runtime_dir() / _START


def engine_log() -> Path:
    """What the engine on demand wrote since it started."""
    return runtime_dir() / _LOG


def last_words() -> str:
    """The last line of the engine's log: for an engine that ended without a reason, the reason."""
    try:
        lines = engine_log().read_text(errors="replace").split("\n")
    except OSError:
        return "it left no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it left an empty log")


def read_address() -> EngineAddress | None:
    """The engine's address as it was last published; whether it still answers is for the caller to try."""
    try:
        content = (runtime_dir() / _ADDRESS).read_bytes()
        return msgspec.json.decode(content, type=EngineAddress)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_address(address: EngineAddress) -> None:
    """Publish the address: whole or not at all, readable by this user alone."""
    directory = runtime_dir()
    temporary = directory / f".{_ADDRESS}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(address))
    temporary.rename(directory / _ADDRESS)


def remove_address() -> None:
    """Withdraw the address; no error if there is none."""
    (runtime_dir() / _ADDRESS).unlink(missing_ok=True)


def hold_lease() -> bool:
    """Keep the engine from leaving for as long as this process lives.

    Returns:
        False while a leaving engine holds the lock alone: try again in a moment.
    """
    with _lease.guard:
        if _lease.fd is not None and _lease.pid == os.getpid():
            return True
        # A forked child shares its parent's lock, which the parent's exit would not drop: it takes its own.
        fd = _lock(clients_lock(), fcntl.LOCK_SH)
        if fd is None:
            return False
        _lease.fd, _lease.pid = fd, os.getpid()
        return True


def try_exclusive(path: Path) -> int | None:
    """Take a lock without waiting.

    Returns:
        A descriptor for `release`, or None if somebody else holds the lock.
    """
    return _lock(path, fcntl.LOCK_EX)


def release(fd: int) -> None:
    """Let go of a lock of `try_exclusive`."""
    os.close(fd)


def spawn_engine() -> SpawnedEngine:
    """Start an engine on demand, in a session of its own.

    Raises:
        EngineUnavailableException: the process could not be started.
    """
    how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(engine_log(), how, 0o600)
    ready, ready_write = os.pipe()
    told, tell = os.pipe()
    try:
        _detach(log, ready_write, tell)
        os.close(tell)
        tell = -1
        answer = os.read(told, 64)
    except OSError as error:
        os.close(ready)
        raise EngineUnavailableException(f"the engine's process cannot be started: {error.strerror}") from None
    finally:
        for fd in (log, ready_write, told, tell):
            if fd >= 0:
                os.close(fd)
    return SpawnedEngine(int(answer or b"0"), ready)


def _detach(log: int, ready: int, tell: int) -> None:
    """Run the engine as a grandchild: its end leaves no zombie in a program that never waits for it."""
    where = ["--port", "0", "--data-dir", str(data_dir() / "local")]
    engine = [sys.executable, "-m", "grotte", "serve", "--on-demand", "--ready-fd", "3", *where]
    script = '"$@" 4>&- & echo $! >&4'
    spare = max(log, ready, tell) + 1
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        # By way of free numbers: 3 and 4 may be the sources of each other.
        (os.POSIX_SPAWN_DUP2, ready, spare),
        (os.POSIX_SPAWN_DUP2, tell, spare + 1),
        (os.POSIX_SPAWN_DUP2, spare, 3),
        (os.POSIX_SPAWN_DUP2, spare + 1, 4),
        (os.POSIX_SPAWN_CLOSE, spare),
        (os.POSIX_SPAWN_CLOSE, spare + 1),
    ]
    shell = os.posix_spawn(
        "/bin/sh", ["sh", "-c", script, "sh", *engine], os.environ, file_actions=actions, setsid=True
    )
    with contextlib.suppress(ChildProcessError):
        os.waitpid(shell, 0)


def _lock(path: Path, kind: int) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _private(path: Path) -> Path:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        state = path.lstat()
    except OSError as error:
        raise EngineUnavailableException(f"{path} cannot be used: {error.strerror}") from None
    reason = _why_not_private(state)
    if reason:
        raise EngineUnavailableException(f"{path} {reason}: remove it, or set XDG_RUNTIME_DIR to a directory of yours")
    return path


def _why_not_private(state: os.stat_result) -> str | None:
    if stat.S_ISLNK(state.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(state.st_mode):
        return "is not a directory"
    if state.st_uid != os.getuid():
        return "belongs to another user"
    if stat.S_IMODE(state.st_mode) & 0o077:
        return "is open to other users"
    return None
