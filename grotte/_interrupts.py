"""What SIGTERM and Ctrl-C do while fleets are open: their sandboxes are killed first. No event loop.

SIGTERM is looked after where nobody else does: its handler must be the default one, and the fleet be opened in the main
thread. Every open fleet is then left as by an exception; when the last one is closed the signal is sent again, so that
the program ends by SIGTERM as it would have.

Ctrl-C interrupts the block by itself: asyncio cancels the main task, and in sync only the main thread is hit, which
creates no sandboxes. Trio raises KeyboardInterrupt wherever it pleases, also between a sandbox and its owner: there it
is treated as SIGTERM is, and raised behind the block. While a fleet closes Ctrl-C is put off, because that is bounded
in time and is what the user wants.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

#: What `signal.signal` takes and returns.
Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


class _Watch:
    """The state of this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing is open, and nothing came."""
        self.guards: list[Guard] = []
        self.terminated = False
        self.pressed = False
        self.noted = False
        self.closing = 0
        self.handler: Handler = None
        self.trios_handler: Handler = None
        self.pid = os.getpid()


_watch = _Watch()


class Guard:
    """One open fleet.

    Args:
        abort: Leaves the fleet's block; called in a signal handler.
        raises: It does so by an exception, so it must not be called while one of the fleets is closing.
    """

    def __init__(self, abort: Callable[[], None], *, raises: bool) -> None:
        self._abort = abort
        self.raises = raises
        self.is_closing = False

    def install(self) -> None:
        """Look after signals from now on, if nobody else does."""
        if threading.current_thread() is not threading.main_thread():
            return
        if _watch.pid != os.getpid():  # forked: the fleets are the parent's
            _watch.reset()
        _watch.guards.append(self)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
        ctrl_c = signal.getsignal(signal.SIGINT)
        if getattr(ctrl_c, "__module__", "").startswith("trio."):
            _watch.trios_handler = ctrl_c
            signal.signal(signal.SIGINT, _interrupt)

    def abort(self) -> None:
        if not self.is_closing:
            self._abort()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Put Ctrl-C off until the block has ended."""
        self.is_closing = True
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        _put_off()
        try:
            yield
        finally:
            pressed = _put_off_no_more()
        if pressed:
            signal.raise_signal(signal.SIGINT)

    def remove(self) -> bool:
        """The fleet is closed. If a signal came and this was the last one, it is sent again.

        Returns:
            Whether the program is about to end: other fleets are still open.
        """
        if self not in _watch.guards:
            return False
        _watch.guards.remove(self)
        if not _watch.guards:
            _let_go()
        elif _watch.terminated or _watch.pressed:
            _abort_all()
        return _watch.terminated or _watch.pressed


def _put_off() -> None:
    _watch.closing += 1
    if _watch.closing == 1:  # others may close at the same time, in tasks of their own
        _watch.noted = False
        _watch.handler = signal.signal(signal.SIGINT, _note)


def _put_off_no_more() -> bool:
    """Whether Ctrl-C was pressed meanwhile, and has to be passed on."""
    _watch.closing -= 1
    if _watch.closing:
        return False
    # None: the handler was not set from Python, and cannot be set again
    signal.signal(signal.SIGINT, signal.SIG_DFL if _watch.handler is None else _watch.handler)
    return _watch.noted


def _note(number: int, frame: FrameType | None) -> None:
    _watch.noted = True


def _let_go() -> None:
    """No fleet is open any more: give the handlers back, and pass on what came meanwhile."""
    pressed, _watch.pressed = _watch.pressed, False
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, _watch.trios_handler)
    if _watch.terminated:
        os.kill(os.getpid(), signal.SIGTERM)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _terminate(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _watch.pid:  # a forked child: the fleets are its parent's
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _watch.terminated = True
    _abort_all()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _watch.pid:
        raise KeyboardInterrupt
    _watch.pressed = True
    _abort_all()


def _abort_all() -> None:
    unwinding = any(guard.raises and guard.is_closing for guard in _watch.guards)
    for guard in sorted(_watch.guards, key=lambda guard: guard.raises):
        if not (guard.raises and unwinding):
            guard.abort()
