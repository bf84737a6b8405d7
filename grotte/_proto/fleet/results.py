"""What a fleet says of its work: one result for each item, and a snapshot of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, NoReturn, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

FailureKind: TypeAlias = Literal["function", "deadline", "infrastructure"]


@dataclass(frozen=True, slots=True)
class FleetAttempt:
    """One try at an item.

    Attributes:
        sandbox_id: Where; None: no sandbox could be had.
        seconds: How long the function ran, or the wait for a sandbox took.
        error: How it failed; None if it did not.
    """

    sandbox_id: str | None
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class FleetSuccess(Generic[T, R]):
    """What the function returned for an item.

    Attributes:
        index: The item's position among the items.
        item: The item.
        value: What the function returned.
        attempts: All tries; the last one succeeded.
        ok: True.
    """

    index: int
    item: T
    value: R
    attempts: tuple[FleetAttempt, ...]
    ok: Literal[True] = True

    def unwrap(self) -> R:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class FleetFailure(Generic[T]):
    """Why there is no value for an item.

    Attributes:
        index: The item's position among the items.
        item: The item.
        error: The last failure.
        kind: "function": it raised `error`; "deadline": it took too long; "infrastructure": sandboxes could not be
            had, or ended under it, more often than `retries` allows.
        attempts: All tries.
        ok: False.
    """

    index: int
    item: T
    error: Exception
    kind: FailureKind
    attempts: tuple[FleetAttempt, ...]
    ok: Literal[False] = False

    def unwrap(self) -> NoReturn:
        """Raise the failure."""
        raise self.error


FleetResult: TypeAlias = FleetSuccess[T, R] | FleetFailure[T]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStats:
    """A fleet at one moment.

    Attributes:
        alive: Sandboxes that count against `size`: starting, ready, in use, or being killed.
        starting: Being created.
        ready: Alive, and in nobody's use.
        in_use: In use.
        waiting: Who waits for a sandbox.
        created: Sandboxes created so far.
        lost: Of these, how many ended by themselves.
        refused: Creations that the server or machine had no room for.
        broken: Creations that failed otherwise.
        done: Items with a value.
        failed: Items without.
        retries: Tries that were repeated.
        start_limit: How many may be created at a time, as the server's answers have it now.
        create_p50: Seconds that a creation took, the median of the last thousand; None before the first.
        create_p99: The same, 99 of 100.
        item_p50: Seconds that an item took, likewise.
        item_p99: The same, 99 of 100.
    """

    alive: int
    starting: int
    ready: int
    in_use: int
    waiting: int
    created: int
    lost: int
    refused: int
    broken: int
    done: int
    failed: int
    retries: int
    start_limit: int
    create_p50: float | None
    create_p99: float | None
    item_p50: float | None
    item_p99: float | None
