"""One budget of sandboxes for many processes: slots that are locked files. No event loop, nothing that blocks.

Each slot is a file, and whoever holds its lock may have one sandbox. The kernel drops the locks with the process, also
after a kill -9; what the file says then tells the next holder which sandbox that process left behind, so that it is
killed before the slot is used again and the budget holds even then. Who finds no free slot keeps the turnstile, a lock
of its own, until there is one: so processes that wait are served by turns, and whoever gives a slot back cannot take it
again over the heads of the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec

from grotte import _local
from grotte._proto import arguments
from grotte.errors import GrotteException, InvalidArgumentException

#: How often a process that waits looks again, in seconds.
POLL_SECONDS = 0.02
MAX_SLOTS = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TURNSTILE = "turnstile.lock"


class SlotNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot's file says of the sandbox that holds it.

    Attributes:
        api_url: The control plane that knows it.
        mark: What its metadata says, from before it is created.
        sandbox_id: Its id, once it is known.
        created: When it was asked for, in unix seconds.
        until: When it has ended for certain, in unix seconds.
    """

    api_url: str
    mark: str
    sandbox_id: str | None = None
    created: float
    until: float


class Slot:
    """The right to have one sandbox.

    Attributes:
        note: What the holder before left in it; None: nothing to clean up.
    """

    def __init__(self, fd: int, note: SlotNote | None) -> None:
        self._fd = fd
        self.note = note
        _all_slots.add(self)

    def write(self, note: SlotNote) -> None:
        """Say which sandbox holds it, in one write.

        Raises:
            GrotteException: the disk does not take it.
        """
        if self._fd < 0:
            return
        text = msgspec.json.encode(note) + b"\n"
        try:
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))
        except OSError as error:
            raise GrotteException(f"a slot of the budget cannot be written: {error.strerror or error}") from error

    def release(self) -> None:
        """Give it back: its sandbox is gone."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # then the next holder finds that out
                os.ftruncate(self._fd, 0)
        self.abandon()

    def abandon(self) -> None:
        """Give it back although its sandbox may run: the next holder sees to that."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_all_slots: weakref.WeakSet[Slot] = weakref.WeakSet()


def _forget_in_child() -> None:
    # the locks are the parent's: a child that kept the descriptors would hold them longer than the parent lives
    for slot in list(_all_slots):
        slot.abandon()
    for line in list(_all_lines):
        line.leave()


os.register_at_fork(after_in_child=_forget_in_child)


class SharedBudget:
    """A number of sandboxes that several fleets share, in one process or in many, on one machine or file system.

    Crash-safe: what a process that was killed had in use is free again as soon as its sandboxes are gone, and the next
    fleet that needs the room kills them.

    Args:
        name: All fleets with this name share the budget.
        size: How many sandboxes; the same in all programs.
        directory: Where its files are. Default: below this user's runtime directory; for a job on many machines name
            a directory on a file system with `flock` that all of them mount.

    Raises:
        InvalidArgumentException: the name or size cannot be right.

    Example:
        ```python
        with Fleet("base", size=50, budget=SharedBudget("experiment-7", 80)) as fleet:
            ...
        ```
    """

    def __init__(self, name: str, size: int, *, directory: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgumentException("the name of a budget must be letters, digits, dots, dashes and underscores")
        self.name = name
        self.size = arguments.whole(size, "size", 1, MAX_SLOTS)
        self._directory = None if directory is None else Path(directory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.size})"

    def line(self) -> BudgetLine:
        """A place to wait for slots.

        Raises:
            GrotteException: the directory cannot be used.
        """
        base = self._directory if self._directory is not None else _local.runtime_dir()
        folder = base / f"budget-{self.name}"
        try:
            folder.mkdir(mode=0o700, parents=self._directory is not None, exist_ok=True)
        except OSError as error:
            raise GrotteException(f"the budget's directory {folder} cannot be used: {error.strerror}") from error
        return BudgetLine(folder, self.size)


class BudgetLine:
    """One fleet's place before the turnstile; used by one task or thread at a time."""

    def __init__(self, folder: Path, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._size = size
        self._clock = clock
        self._turn = -1
        self._waited = False
        self._polite_until = 0.0
        self._first = 0
        _all_lines.add(self)

    def try_take(self) -> Slot | None:
        """Take a slot if it is our turn and one is free.

        Raises:
            GrotteException: the budget's files cannot be used.
        """
        try:
            return self._try_take()
        except OSError as error:
            text = f"the budget in {self._folder} cannot be used: {error.strerror or error}"
            raise GrotteException(text) from error

    def _try_take(self) -> Slot | None:
        if self._turn < 0 and self._clock() >= self._polite_until:
            self._turn = _lock(self._folder / _TURNSTILE)
        if self._turn < 0:
            self._waited = True
            return None
        for number in range(self._first, self._first + self._size):
            fd = _lock(self._folder / f"slot-{number % self._size:05}")
            if fd >= 0:
                # the next search begins where this one ended: what is in use lies behind it
                self._first = (number + 1) % self._size
                self._pass_on()
                return Slot(fd, _read_note(fd))
        self._waited = True
        return None

    def leave(self) -> None:
        """Wait no more."""
        turn, self._turn = self._turn, -1
        if turn >= 0:
            os.close(turn)

    def _pass_on(self) -> None:
        """Leave; whoever had to wait lets the others go first."""
        self.leave()
        if self._waited:
            self._polite_until = self._clock() + 2 * POLL_SECONDS
        self._waited = False


_all_lines: weakref.WeakSet[BudgetLine] = weakref.WeakSet()


def _lock(path: Path) -> int:
    """Take a lock without waiting; -1 if somebody else has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return -1
        raise
    return fd


def _read_note(fd: int) -> SlotNote | None:
    text = os.pread(fd, 4096, 0)
    if not text.strip():
        return None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(text, type=SlotNote)
    # torn: nobody can tell which sandbox it was, so its time has to pass
    changed = os.fstat(fd).st_mtime
    return SlotNote(api_url="", mark="", created=changed, until=changed + UNREADABLE_SECONDS)


#: How long a slot is left alone whose file cannot be read, in seconds: the default lifetime, and a request.
UNREADABLE_SECONDS = 360.0
