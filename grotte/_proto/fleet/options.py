"""What a fleet is told, checked before anything is started."""

from __future__ import annotations

import math
from collections.abc import Iterable

from grotte._proto import arguments
from grotte._proto.fleet.admission import Limits
from grotte.errors import InvalidArgumentException

MAX_SIZE = 100_000
MAX_RETRIES = 1_000
DEFAULT_STARTING = 32


def limits(size: object, max_starting: object, creates_per_second: object) -> Limits:
    """The limits of a fleet.

    Raises:
        InvalidArgumentException: one of them cannot be right.
    """
    most = arguments.whole(size, "size", 1, MAX_SIZE)
    starting = min(most, DEFAULT_STARTING)
    if max_starting is not None:
        starting = min(most, arguments.whole(max_starting, "max_starting", 1, MAX_SIZE))
    rate = None if creates_per_second is None else positive(creates_per_second, "creates_per_second")
    return Limits(most, starting, rate)


def positive(value: object, name: str) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentException(f"{name} must be a number, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise InvalidArgumentException(f"{name} must be positive and finite, not {value}")
    return float(value)


def effort(deadline: object, retries: object) -> tuple[float | None, int]:
    """How long, and how often."""
    return arguments.seconds(deadline, "deadline"), arguments.whole(retries, "retries", 0, MAX_RETRIES)


def without(found: dict[str, str], reserved: Iterable[str]) -> dict[str, str]:
    """Metadata that leaves the fleet's own names alone."""
    for name in reserved:
        if name in found:
            raise InvalidArgumentException(f"the metadata {name!r} is the fleet's own")
    return found
