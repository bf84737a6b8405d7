"""What happened in and to a sandbox, for its owner to read: bounded, in memory, and for a while after its end."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

Level = Literal["debug", "info", "warn", "error"]
#: From the least to the most important.
LEVELS: tuple[Level, ...] = ("debug", "info", "warn", "error")

#: What the entries of one sandbox may take together, in characters.
PER_SANDBOX = 256 * 1024
#: A longer message or field is cut, in characters.
MAX_TEXT = 4096
#: What an entry takes besides its text.
ENTRY_COST = 100
#: How many sandboxes that have ended can still be asked about, and what their entries may take together.
KEPT_ENDED = 500
KEPT_COST = 16 * 1024 * 1024


class Entry(NamedTuple):
    """Something that happened.

    Attributes:
        at: Unix microseconds.
    """

    at: int
    level: Level
    message: str
    fields: dict[str, str]

    @property
    def cost(self) -> int:
        return ENTRY_COST + len(self.message) + sum(len(name) + len(text) for name, text in self.fields.items())


class Journal:
    """The entries of one sandbox, oldest first; the oldest make room.

    Attributes:
        cost: What they take together.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.cost = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)

    def add(self, level: Level, message: str, **fields: str) -> None:
        """Write something down; what is said must hold no secrets of the engine."""
        # Entries are told apart and ordered by their times, whatever the clock does.
        before = self._entries[-1].at if self._entries else 0
        at = max(time.time_ns() // 1000, before + 1)
        entry = Entry(at, level, message[:MAX_TEXT], {name: text[:MAX_TEXT] for name, text in fields.items()})
        self._entries.append(entry)
        self.cost += entry.cost
        while self.cost > PER_SANDBOX:
            self.cost -= self._entries.popleft().cost


class Journals:
    """The journals of all sandboxes that live, and of those that ended last."""

    def __init__(self) -> None:
        self._live: dict[str, tuple[str, Journal]] = {}
        self._ended: OrderedDict[str, tuple[str, Journal, int]] = OrderedDict()  # with its cost at that time
        self._ended_cost = 0

    def begin(self, sandbox_id: str, owner: str, journal: Journal) -> None:
        self._live[sandbox_id] = owner, journal

    def end(self, sandbox_id: str) -> None:
        """The sandbox is no more."""
        if (kept := self._live.pop(sandbox_id, None)) is not None:
            self._ended[sandbox_id] = *kept, kept[1].cost
            self._ended_cost += kept[1].cost
            while len(self._ended) > KEPT_ENDED or self._ended_cost > KEPT_COST:
                _, (_, _, cost) = self._ended.popitem(last=False)
                self._ended_cost -= cost

    def find(self, sandbox_id: str, owner: str) -> Journal | None:
        """What is known of an owner's sandbox."""
        found = self._live.get(sandbox_id) or self._ended.get(sandbox_id)
        return found[1] if found is not None and found[0] == owner else None
