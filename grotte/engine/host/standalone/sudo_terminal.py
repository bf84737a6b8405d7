"""The time while a command of ``sudo`` runs: signals to it, and the bytes of its terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios

from .sudo_link import STATUS

CHUNK = 32 << 10
CC = 6


def size() -> tuple[int, int]:
    """Return columns and rows of the terminal at hand, zeros where there is none."""
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8)))
            return columns, rows
    return 0, 0


class Relay:
    """Passes signals, keys and output on until the command ends.

    Args:
        link: Where the first process tells of the end, and is told of signals.
        wake: Becomes readable when a signal has come.
        pending: The signals that have come.
        master: The command's terminal, if it has one: it is not the caller's, which belongs to another session.
    """

    def __init__(self, link: socket.socket, wake: int, pending: list[int], master: int | None) -> None:
        self._link = link
        self._wake = wake
        self._pending = pending
        self._master = master
        self._screen = next((number for number in (1, 2, 0) if os.isatty(number)), 1)
        self._saved: list[object] | None = None
        self._typed, self._listens = b"", True
        if master is not None:
            os.set_blocking(master, False)

    def run(self) -> int:
        """Return the command's wait status."""
        try:
            self._take_keys()
            return self._serve()
        finally:
            if self._saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]  # as tcgetattr gave it

    def _take_keys(self) -> None:
        """In the foreground, let every key go to the command; what is in the background must not ask for them."""
        if self._master is None or not os.isatty(0):
            return
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(0) == os.getpgrp():
                self._saved = list(termios.tcgetattr(0))
                raw = termios.tcgetattr(0)
                make_raw(raw)
                termios.tcsetattr(0, termios.TCSADRAIN, raw)

    def _serve(self) -> int:
        while True:
            ready = self._wait()
            if self._wake in ready:
                self._pass_signals()
            if self._master in ready:
                self._show()
                self._press()
            if 0 in ready and self._saved is not None:
                self._typed = os.read(0, CHUNK)
                self._listens = bool(self._typed)
                self._press()
            if self._link.fileno() in ready:
                return self._end()

    def _wait(self) -> set[int]:
        poller = select.poll()
        for fd in (self._link.fileno(), self._wake):
            poller.register(fd, select.POLLIN)
        if self._master is not None:
            poller.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if self._saved is not None and self._listens and not self._typed:
            poller.register(0, select.POLLIN)
        return {fd for fd, _ in poller.poll()}

    def _end(self) -> int:
        data = self._link.recv(STATUS.size)
        while self._show():
            pass
        # The first process is gone, or killed the command without a word: nothing better is known.
        return STATUS.unpack(data)[0] if len(data) == STATUS.size else int(signal.SIGKILL)

    def _pass_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while self._pending:
            number = self._pending.pop(0)
            if number != signal.SIGWINCH:
                self._link.send(STATUS.pack(number))
            elif self._master is not None:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(self._master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    def _show(self) -> bool:
        """Show some of what the command's terminal has to show; False if there is nothing, now or ever."""
        if self._master is None:
            return False
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # nobody has the other side open
            self._master, self._typed = None, b""
            return False
        while data:
            data = data[os.write(self._screen, data) :]
        return True

    def _press(self) -> None:
        """Give the command's terminal as many keys as it takes now."""
        if self._typed and self._master is not None:
            with contextlib.suppress(BlockingIOError):
                self._typed = self._typed[os.write(self._master, self._typed) :]


def make_raw(mode: list[object]) -> None:
    """Change the settings of a terminal so that nothing of it is done to the bytes: the command's own does all that."""
    flags = (
        termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON | termios.INLCR | termios.IGNCR,
        termios.OPOST,
        termios.CSIZE | termios.PARENB,
        termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG,
    )
    for index, off in enumerate(flags):
        current = mode[index]
        assert isinstance(current, int)
        mode[index] = current & ~off | (termios.CS8 if index == 2 else 0)
    control = mode[CC]
    assert isinstance(control, list)
    control[termios.VMIN], control[termios.VTIME] = 1, 0
