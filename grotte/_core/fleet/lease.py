"""A sandbox of a fleet, and the bell with which its parts wake each other."""

from __future__ import annotations

from grotte._budget import Slot
from grotte._core import _aio
from grotte._core.sandbox import AsyncSandbox


class AsyncLease:
    """One sandbox from its creation to its end.

    Attributes:
        sandbox: The sandbox.
        slot: Its share of a budget.
        idle_since: Since when it is ready for the next user; None before anybody had it.
        expired: Its user's deadline passed, so that it is being killed under its hands.
        lost: It turned out to be gone.
        ending: Somebody is killing it.
        gone: It has ended, or an attempt to kill it has failed.
        failure: Why it could not be killed.
    """

    def __init__(self, sandbox: AsyncSandbox, slot: Slot | None) -> None:
        self.sandbox = sandbox
        self.slot = slot
        self.idle_since: float | None = None
        self.expired = False
        self.lost = False
        self.ending = False
        self.gone = _aio.Event()
        self.failure: Exception | None = None


class Bell:
    """Wakes all who listen, again and again. Listen before you look, then wait."""

    def __init__(self) -> None:
        self._event = _aio.Event()
        self._lock = _aio.Lock()

    def listen(self) -> _aio.Event:
        """What the next `ring` sets."""
        return self._event

    def ring(self) -> None:
        with self._lock:
            event, self._event = self._event, _aio.Event()
        event.set()
