"""How many connections all routes of a pool may have together, and which route gets the next one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from grotte._core import _aio
from grotte._core.http2.connection import AsyncConnection
from grotte._core.http2.seeker import AsyncLine


class Place(Protocol):
    """What the ceiling knows of a route."""

    line: AsyncLine
    connections: list[AsyncConnection]
    last_used: float

    def lacks_connection(self) -> bool:
        """Whether those who wait there can only be served by one more connection."""


class AsyncCeiling:
    """Counts connections, and those being opened. Places wait for one in the order in which they came to need it.

    One lock guards all routes of a pool and their connections, so that none of them can wait for another's. It is
    held around every call here.
    """

    def __init__(self, limit: int) -> None:
        self.lock = _aio.Lock()
        self._limit = limit
        self._taken = 0
        self._places: dict[Place, None] = {}
        #: Places that need one more connection while there can be none.
        self.waiting: OrderedDict[Place, None] = OrderedDict()

    def enter(self, place: Place) -> None:
        """A new route."""
        self._places[place] = None

    def leave(self, place: Place) -> None:
        """A route that is no more."""
        self._places.pop(place, None)
        self.waiting.pop(place, None)

    def admits(self, place: Place) -> bool:
        """Whether the place may open a connection now; if not, it has a place in the line of those that want to."""
        if self._taken < self._limit and not self.waiting:
            return True
        self.waiting.setdefault(place)
        return self._next() is place and self._has_room_for(place)

    def is_reached(self) -> bool:
        """Whether no more connections can be opened without closing others."""
        return self._taken >= self._limit

    def take(self, place: Place) -> None:
        """Count one more connection for a place that is admitted; an idle one of another place makes room for it."""
        self.waiting.pop(place, None)
        idle = self._idle(place) if self.is_reached() else None
        self._taken += 1
        if idle is not None:
            idle.retire()
        self.call()

    def give_back(self, count: int) -> None:
        """Connections have closed, or were not opened."""
        self._taken -= count
        if count:
            self.call()

    def call(self) -> None:
        """Have the next place open its connection, if there is room now."""
        place = self._next()
        if place is not None and self._has_room_for(place):
            place.line.first().wake()

    def readable_for(self, place: Place) -> Iterable[AsyncConnection]:
        """Whose news may serve those who wait at a place: its own, and all when the ceiling is what they wait for."""
        if place not in self.waiting:
            return place.connections
        return [connection for each in self._places for connection in each.connections]

    def baton_free(self) -> None:
        """A connection is not read any more: one of those who wait for an end somewhere should read it."""
        for place in self.waiting:
            if place.line.wake_parked():
                return

    def _next(self) -> Place | None:
        while self.waiting:
            place = next(iter(self.waiting))
            if place.lacks_connection():
                return place
            del self.waiting[place]
        return None

    def _has_room_for(self, place: Place) -> bool:
        return self._taken < self._limit or self._idle(place) is not None

    def _idle(self, place: Place) -> AsyncConnection | None:
        """A connection that nobody uses, of the place that was asked for longest ago."""
        others = sorted((each for each in self._places if each is not place), key=lambda each: each.last_used)
        for other in others:
            for connection in other.connections:
                if connection.usable and not connection.active:
                    return connection
        return None
