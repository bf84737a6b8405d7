"""Those who wait for a slot at one place, in the order of their arrival."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator

from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.stream import AsyncParty


class AsyncSeeker(AsyncParty):
    """Somebody who waits for a slot. Short calls may take the reserve, held streams may not."""

    def __init__(self, may_dial: Callable[[], bool], *, held: bool) -> None:
        #: Whether one more connection should be opened, by whoever looks.
        self.may_dial = may_dial
        self.held = held
        self.number = 0
        self.connection: AsyncConnection | None = None
        self.failure: Exception | None = None

    def ready(self) -> bool:
        return self.connection is not None or self.failure is not None or self.may_dial()


class AsyncLine:
    """The seekers of one place. Its route's lock is held around every call."""

    def __init__(self) -> None:
        self._short: OrderedDict[AsyncSeeker, None] = OrderedDict()
        self._held: OrderedDict[AsyncSeeker, None] = OrderedDict()
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._short) + len(self._held)

    def __bool__(self) -> bool:
        return bool(self._short) or bool(self._held)

    def __iter__(self) -> Iterator[AsyncSeeker]:
        yield from self._short
        yield from self._held

    def join(self, seeker: AsyncSeeker) -> None:
        """Stand at the end."""
        seeker.number = next(self._numbers)
        self._queue(seeker)[seeker] = None

    def leave(self, seeker: AsyncSeeker) -> None:
        """Be served, or give up."""
        self._queue(seeker).pop(seeker, None)

    def short_waits(self) -> bool:
        """Whether there is a short call among them."""
        return bool(self._short)

    def first(self) -> AsyncSeeker:
        """Who is to act for all of them: the first that is not busy with opening a connection."""
        idle = (seeker for seeker in self if seeker.event is not None or seeker.reading is not None)
        return next(idle, None) or next(iter(self))

    def first_short(self) -> AsyncSeeker | None:
        """The short call that has waited longest."""
        return next(iter(self._short), None)

    def oldest(self) -> AsyncSeeker | None:
        """Who has waited longest."""
        heads = [next(iter(queue)) for queue in (self._short, self._held) if queue]
        return min(heads, key=lambda seeker: seeker.number) if len(heads) > 1 else next(iter(heads), None)

    def wake_parked(self) -> bool:
        """Wake one that is parked, so that it reads; False when none is."""
        for seeker in self:
            if seeker.event is not None and not seeker.event.is_set():
                seeker.wake()
                return True
        return False

    def _queue(self, seeker: AsyncSeeker) -> OrderedDict[AsyncSeeker, None]:
        return self._held if seeker.held else self._short


class AsyncProber(AsyncParty):
    """Waits for the first sign of HTTP/2 on a new connection, or for its end."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    def ready(self) -> bool:
        return self.connection.settled or self.connection.closed
