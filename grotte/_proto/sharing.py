"""Which hosts use one another's connections, and what was learnt about that. No I/O; times are the caller's clock's.

A connection may serve any host that the server speaks for (RFC 9113 §9.1.1). A server that disagrees should say 421.
Some gateways say 404 instead: each connection is bound to the host that it was opened for, and they know of no other.
That cannot be told from a 404 that is meant. So the first such answer of a domain is not believed, unless hosts were
served well before: the request goes out again on a connection of the host's own, and what that says decides for the
whole domain, for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from grotte._proto.http import Coalesce, Headers, Origin

#: Scheme, host or "*." and the parent domain, port.
Place = tuple[str, str, int]

#: For how long a host is taken to have the addresses that it had.
ADDRESS_MEMORY = 60.0
NOT_FOUND = 404
#: How many hosts and domains are remembered before what has expired is looked for.
CROWD = 256


def own_place(origin: Origin) -> Place:
    """The place of an origin that shares with nobody."""
    return (origin.scheme, origin.host, origin.port)


class Sharing:
    """The memory of one pool. In sync, threads share it: each entry is read and written in one step."""

    def __init__(self, memory: float, clock: Callable[[], float]) -> None:
        """Know nothing yet.

        Args:
            memory: For how long it is known how a domain is served on shared connections, in seconds.
            clock: Tells the time, in seconds.
        """
        self._memory = memory
        self._clock = clock
        #: Hosts, and whole domains, that get connections of their own although they could share; until when.
        self._separate: dict[Place, float] = {}
        #: Places whose connections were seen to serve other hosts well; until when that is believed.
        self._proven: dict[Place, float] = {}
        #: In mode "strict": whose connections a host uses, and until when that has been looked into.
        self._adopted: dict[Place, Place] = {}
        self._judged: dict[Place, float] = {}

    def place(self, origin: Origin, mode: Coalesce) -> Place:
        """Which connections a request may use: shared ones, or those of its origin alone."""
        own = own_place(origin)
        if mode == "strict":
            return self._adopted.get(own, own)
        label, _, parent = origin.host.partition(".")
        shared = mode == "domain" and label and ("." in parent or parent == "localhost")
        if not shared or parent[-1].isdigit():  # an address has no parent
            return own
        domain = (origin.scheme, f"*.{parent}", origin.port)
        return own if self._separate and self._is_separate(own, domain) else domain

    def _is_separate(self, *places: Place) -> bool:
        now = self._clock()
        return any(self._separate.get(place, now) > now for place in places)

    def separate(self, origin: Origin, mode: Coalesce) -> bool:
        """Give a host connections of its own for a while; False if it has them already."""
        own = own_place(origin)
        if self.place(origin, mode) == own:
            return False
        self._separate[own] = self._judged[own] = self._clock() + self._memory
        self._adopted.pop(own, None)
        return True

    # 404s

    def is_proven(self, place: Place) -> bool:
        """Whether connections to a place are known to serve hosts that they were not opened for."""
        return place in self._proven

    def prove(self, place: Place) -> None:
        """They have just served one."""
        self._proven[place] = self._clock() + self._memory

    def doubt(self, place: Place, origin: Origin, mode: Coalesce, headers: Headers) -> Doubt | None:
        """Whether to disbelieve a 404 that came for one host on another's connection.

        If so, the host has connections of its own now: enter what is returned, ask again, and say what came.
        """
        if self._proven.get(place, 0.0) > self._clock() or of_an_application(headers):
            return None
        return Doubt(self, place, origin) if self.separate(origin, mode) else None

    def convict(self, place: Place) -> None:
        """Connections to a place serve no hosts but those that they were opened for."""
        self._proven.pop(place, None)
        if place[1].startswith("*."):
            self._separate[place] = self._clock() + self._memory

    def acquit(self, origin: Origin) -> None:
        """Let a host share again."""
        self._separate.pop(own_place(origin), None)
        self._judged.pop(own_place(origin), None)

    # Mode "strict"

    def to_look_up(self, origin: Origin) -> bool:
        """Whether it is time to find out whose connections a host may use; the caller does then, and says `adopt`."""
        own, now = own_place(origin), self._clock()
        if self._judged.get(own, now) > now:
            return False
        self._judged[own] = now + ADDRESS_MEMORY
        self._adopted.pop(own, None)
        return True

    def adopt(self, origin: Origin, place: Place) -> None:
        """Let a host use the connections of a place."""
        self._adopted[own_place(origin)] = place

    def forget(self) -> None:
        """Drop what has expired, once there is much to remember."""
        now = self._clock()
        for memory in (self._separate, self._proven, self._judged):
            if len(memory) > CROWD:
                for key in [key for key, until in list(memory.items()) if until <= now]:
                    memory.pop(key, None)
        if len(self._adopted) > CROWD:
            for key in [key for key in list(self._adopted) if key not in self._judged]:
                self._adopted.pop(key, None)


class Doubt:
    """A 404 that is not believed, while the host is asked again on a connection of its own."""

    def __init__(self, sharing: Sharing, place: Place, origin: Origin) -> None:
        self._sharing = sharing
        self._place = place
        self._origin = origin
        self._shares = True

    def __enter__(self) -> None:
        """Until the block ends the host has connections of its own."""

    def __exit__(self, *exception: object) -> None:
        if self._shares:
            self._sharing.acquit(self._origin)

    def answered(self, status: int, headers: Headers) -> None:
        """What the host says when it is asked alone."""
        if status < 400 or of_an_application(headers):
            self._shares = False
            self._sharing.convict(self._place)
        elif status == NOT_FOUND:
            self._sharing.prove(self._place)


def of_an_application(headers: Headers) -> bool:
    """Whether an answer has content that an application means, as opposed to a gateway's page or nothing."""
    return headers.get("content-type", "").lstrip().lower().startswith("application/")
