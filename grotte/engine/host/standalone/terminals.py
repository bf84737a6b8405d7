"""Terminals: bytes between the master sides of pseudo-terminals and pipes of the engine.

The engine never gets a master: whoever shares an open file shares its flags, and a read of the engine's must not
block because something in here made the file blocking. The two ends of a pipe are open files of their own. The guest
moves the bytes on its one loop, nothing is read that cannot be passed on, and so a slow reader of a terminal slows its
programs down.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

from . import programs
from .wire import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .accounts import Account
    from .processes import Order

CHUNK = 64 << 10
READS = 16  # in a row, before others get their turn


def open_pair(account: Account, size: tuple[int, int]) -> tuple[int, int]:
    """Return both sides of a new terminal of a user: master and slave."""
    master, slave = os.openpty()
    try:
        os.fchown(slave, account.uid, account.gid)
        os.fchmod(slave, 0o600)
        resize(master, size)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def resize(terminal: int, size: tuple[int, int]) -> None:
    """Set columns and rows; the programs in the foreground are told by SIGWINCH."""
    columns, rows = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def take_control() -> None:
    """Make stdin the controlling terminal of this new session; runs between fork and exec."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A master side and the engine's pipes, one for what is typed and one for what is shown.

    Args:
        master: Belongs to the terminal from now on.
        keys: Where to read what is typed; duplicated.
        screen: Where to write what is shown; duplicated.

    Attributes:
        over: Nothing is left to do, and everything is closed.
    """

    def __init__(self, master: int, keys: int, screen: int) -> None:
        self._master, self._keys, self._screen = master, os.dup(keys), os.dup(screen)
        for fd in (master, keys, screen):
            os.set_blocking(fd, False)
        self._typed = self._shown = b""
        self._ended = False
        self.over = False

    def resize(self, size: tuple[int, int]) -> None:
        """Set columns and rows."""
        resize(self._master, size)

    def wishes(self) -> dict[int, int]:
        """What to wait for: poll events by descriptor."""
        wishes: dict[int, int] = {}
        if self._shown:
            wishes[self._screen] = select.POLLOUT
        elif self._screen >= 0:
            wishes[self._master] = select.POLLIN
        if self._typed:
            wishes[self._master] = wishes.get(self._master, 0) | select.POLLOUT
        elif self._keys >= 0:
            wishes[self._keys] = select.POLLIN
        return wishes

    def end(self) -> None:
        """The session's leader has ended: show what the terminal still holds, and no more."""
        self._ended = True
        self._close_keys()
        self.pump()

    def pump(self) -> None:
        """Move what can be moved without waiting."""
        for _ in range(READS):
            if not self._show():
                break
        self._type()
        if self._ended and self._screen < 0:
            self.close()

    def close(self) -> None:
        """Hang up."""
        self._close_keys()
        self._close_screen()
        self._master = _closed(self._master)
        self.over = True

    def _show(self) -> bool:
        if self._screen < 0:
            return False
        try:
            # the end of a terminal is EIO: nobody has its other side open
            self._shown = self._shown or os.read(self._master, CHUNK)
        except BlockingIOError:
            if self._ended:  # who opens the other side now, by its name, is not the session that was started
                self._close_screen()
            return False
        except OSError:
            self._close_screen()
            return False
        try:
            self._shown = self._shown[os.write(self._screen, self._shown) :]
        except BlockingIOError:
            return False
        except OSError:  # the engine listens no more
            self._close_screen()
        return not self._shown

    def _type(self) -> None:
        try:
            if not self._typed and self._keys >= 0:
                self._typed = os.read(self._keys, CHUNK)
                if not self._typed:
                    self._close_keys()
            if self._typed:
                self._typed = self._typed[os.write(self._master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody has the other side open
            self._close_keys()

    def _close_screen(self) -> None:
        self._screen, self._shown = _closed(self._screen), b""

    def _close_keys(self) -> None:
        self._keys, self._typed = _closed(self._keys), b""


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


class Terminals:
    """All terminals, on the loop of a poller."""

    def __init__(self, poller: select.poll) -> None:
        self._poller = poller
        self._running: dict[int, Terminal] = {}  # by the pid of the process that was started on it
        self._awaited: dict[Terminal, dict[int, int]] = {}
        self._owners: dict[int, Terminal] = {}  # by descriptor

    def start(self, arguments: list[str], order: Order, size: tuple[int, int]) -> int:
        """Start a process on a terminal of its own; return its pid.

        Raises:
            OSError: It could not be started.
            RefusedError: There is no terminal to be had.
        """
        try:
            # one for each attempt: a session that ends hangs up its terminal
            master, slave = open_pair(order.account, size)
        except OSError as error:
            raise RefusedError("invalid_argument", f"no terminal could be opened: {error.strerror}") from error
        terminal = Terminal(master, *order.fds)
        try:
            pid = programs.start(
                arguments,
                (slave, slave, slave),
                order.cwd,
                order.environment,
                user=order.account.uid,
                group=order.account.gid,
                groups=order.groups,
                new_session=True,
                preexec=take_control,  # one ioctl, which takes no lock
            )
        except BaseException:
            terminal.close()
            raise
        finally:
            os.close(slave)
        self._running[pid] = terminal
        self._await(terminal)
        return pid

    def find(self, pid: int) -> Terminal | None:
        """Return the terminal of a running process."""
        return self._running.get(pid)

    def serve(self, ready: Iterable[int]) -> None:
        """Move bytes for those of the descriptors that belong to terminals."""
        for terminal in {self._owners[fd] for fd in ready if fd in self._owners}:
            self._forget(terminal)  # before anything is closed
            terminal.pump()
            self._await(terminal)

    def end(self, pid: int) -> None:
        """A process has ended; if it had a terminal, pass on what that holds."""
        terminal = self._running.pop(pid, None)
        if terminal is not None:
            self._forget(terminal)
            terminal.end()
            self._await(terminal)

    def _forget(self, terminal: Terminal) -> None:
        for fd in self._awaited.pop(terminal, {}):
            del self._owners[fd]
            self._poller.unregister(fd)

    def _await(self, terminal: Terminal) -> None:
        if terminal.over:
            return
        wishes = self._awaited[terminal] = terminal.wishes()
        for fd, events in wishes.items():
            self._poller.register(fd, events)
            self._owners[fd] = terminal
