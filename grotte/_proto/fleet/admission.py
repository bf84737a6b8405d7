"""When the next sandbox of a fleet may be created: numbers and times, no I/O.

Four limits at once: how many are alive, how many are being created, how many are created each second, and what the
server lets expect. The last one is learned: a refusal halves how many may be created at a time, every success adds a
little (AIMD), and nothing is created before a pause is over that the server asked for, or that grows with its
refusals.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

#: The first pause after a refusal without `Retry-After`, and the longest, in seconds.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
#: A server's wish is granted up to here, in seconds.
LONGEST_WISH = 300.0
#: How soon after the end of one of our sandboxes it is worth trying again, in seconds.
AFTER_END = 0.05
#: How much longer than needed the gap between two creations may be, so that fleets do not march in step.
JITTER = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What a fleet may do at most.

    Attributes:
        size: Sandboxes alive, those that are being created or killed included.
        max_starting: Sandboxes being created at a time.
        creates_per_second: Creations begun each second; None for as many as the other limits allow.
    """

    size: int
    max_starting: int
    creates_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The permission for one creation; goes back with what came of it."""

    number: int
    at: float


class Admission:
    """Counts, and says when the next creation may begin. All times are seconds on one monotonic clock."""

    def __init__(self, limits: Limits, rng: random.Random | None = None) -> None:
        self._limits = limits
        self._rng = rng or random.Random()  # noqa: S311 - not for secrets
        self.alive = 0
        self.starting = 0
        self._allowed = float(limits.max_starting)
        self._number = 0
        self._cut_from = 0
        self._refusals = 0
        self._next = float("-inf")
        self._pause = float("-inf")
        self._wish = float("-inf")
        self._stuck_since: float | None = None

    @property
    def start_limit(self) -> int:
        """How many may be created at a time, as the server's answers have it now."""
        return int(self._allowed)

    def opening(self, now: float) -> float | None:
        """When the next creation may begin, `now` or later; None: not before something else ends."""
        if self.alive >= self._limits.size or self.starting >= self.start_limit:
            return None
        return max(now, self._next, self._pause, self._wish)

    def start(self, now: float) -> Start:
        """Begin a creation, for which there is an opening."""
        assert self.opening(now) == now
        self.alive += 1
        self.starting += 1
        self._number += 1
        if self._limits.creates_per_second is not None:
            gap = self._rng.uniform(1.0, 1.0 + JITTER) / self._limits.creates_per_second
            self._next = max(now, self._next) + gap
        return Start(self._number, now)

    def succeeded(self) -> None:
        """A creation succeeded: the sandbox is alive."""
        self.starting -= 1
        self._refusals = 0
        self._stuck_since = None
        self._allowed = min(float(self._limits.max_starting), self._allowed + 1.0 / self._allowed)

    def failed(self) -> None:
        """A creation failed, for a reason that has nothing to do with how many there are."""
        self.starting -= 1
        self.alive -= 1

    def refused(self, start: Start, now: float, retry_after: float | None = None) -> None:
        """The server or the machine has no room for it.

        Args:
            start: Which.
            now: The time.
            retry_after: How long the server wants to be left alone, in seconds, if it said so.
        """
        self.failed()
        if self._stuck_since is None:
            self._stuck_since = now
        if start.number >= self._cut_from:
            # those that were under way together are refused together, and are one refusal
            self._cut_from = self._number + 1
            self._refusals += 1
            self._allowed = max(1.0, self._allowed / 2)
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 10))
            self.rest(now, longest * self._rng.uniform(0.5, 1.0))
        if retry_after is not None:
            wish = min(retry_after, LONGEST_WISH) * self._rng.uniform(1.0, 1.0 + JITTER)
            self._wish = max(self._wish, now + wish)

    def rest(self, now: float, seconds: float) -> None:
        """Begin nothing for a moment."""
        self._pause = max(self._pause, now + seconds)

    def ended(self, now: float) -> None:
        """A sandbox is gone: who was refused for want of room may try again as soon as the server's wish allows it."""
        self.alive -= 1
        self._pause = min(self._pause, now + AFTER_END)

    def told_to_wait(self, now: float) -> bool:
        """Whether the server wants to be left alone yet."""
        return now < self._wish

    def stuck_for(self, now: float) -> float:
        """For how long creations have been refused without one that succeeded, in seconds."""
        return 0.0 if self._stuck_since is None else now - self._stuck_since
