"""Who waits for a sandbox, and which stand ready: first come, first served. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

S = TypeVar("S")


class Ticket(Generic[S]):
    """A place in the line.

    Attributes:
        served: What it got.
        error: Why it will get nothing.
        troubles: How many creations failed while it was the first in line.
    """

    __slots__ = ("_notify", "error", "served", "troubles")

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self.served: S | None = None
        self.error: Exception | None = None
        self.troubles = 0

    def serve(self, resource: S) -> None:
        self.served = resource
        self._notify()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._notify()


class Desk(Generic[S]):
    """Hands out what there is, to the oldest ticket first. Either nobody waits, or nothing is ready."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket[S]] = deque()
        self._ready: deque[S] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """How much stands ready."""
        return len(self._ready)

    def ask(self, notify: Callable[[], None], *, again: bool = False) -> Ticket[S]:
        """Join the line.

        Args:
            notify: Called once, when the ticket has been served or has failed.
            again: What this one got was no good: it keeps its place, which was the first.
        """
        ticket: Ticket[S] = Ticket(notify)
        if self._ready:
            ticket.serve(self._ready.popleft())
        elif again:
            self._waiting.appendleft(ticket)
        else:
            self._waiting.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket[S]) -> S | None:
        """Leave the line; what the ticket got a moment earlier comes back."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        served, ticket.served = ticket.served, None
        return served

    def offer(self, resource: S) -> None:
        """There is one more: for the oldest ticket, or to stand ready."""
        if self._waiting:
            self._waiting.popleft().serve(resource)
        else:
            self._ready.append(resource)

    def take_back(self, resource: S) -> bool:
        """Remove one that stands ready; False if it does not."""
        if resource not in self._ready:
            return False
        self._ready.remove(resource)
        return True

    def surplus(self, keep: int) -> list[S]:
        """Remove, and return, what stands ready beyond so many; the oldest first."""
        return [self._ready.popleft() for _ in range(len(self._ready) - keep)]

    def trouble(self, error: Exception, patience: int) -> bool:
        """A creation failed: the oldest ticket takes note, and fails when that was one too many.

        Returns:
            Whether anybody waited.
        """
        if not self._waiting:
            return False
        self._waiting[0].troubles += 1
        if self._waiting[0].troubles > patience:
            self._waiting.popleft().fail(error)
        return True

    def despair(self, error: Exception) -> None:
        """Everybody who waits is told why that is in vain."""
        while self._waiting:
            self._waiting.popleft().fail(error)

    def close(self, error: Exception) -> None:
        """Nothing is given out any more."""
        self.despair(error)
        self._ready.clear()
