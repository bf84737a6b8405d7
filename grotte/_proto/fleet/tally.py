"""What a fleet counts, and how it is shown on one line."""

from __future__ import annotations

from collections import deque

from grotte._proto.fleet.admission import Admission
from grotte._proto.fleet.results import FleetStats

#: How many durations percentiles are taken of.
RECENT = 1000


def percentile(values: deque[float], part: float) -> float | None:
    """The value that `part` (0 to 1) of the values do not exceed: one of them; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


class Tally:
    """Counts what happened."""

    def __init__(self) -> None:
        self.created = 0
        self.lost = 0
        self.refused = 0
        self.broken = 0
        self.done = 0
        self.failed = 0
        self.retries = 0
        self._creates: deque[float] = deque(maxlen=RECENT)
        self._items: deque[float] = deque(maxlen=RECENT)

    def was_created(self, seconds: float) -> None:
        self.created += 1
        self._creates.append(seconds)

    def was_done(self, seconds: float, *, ok: bool) -> None:
        """An item has its result."""
        if ok:
            self.done += 1
        else:
            self.failed += 1
        self._items.append(seconds)

    def snapshot(self, admission: Admission, *, ready: int, in_use: int, waiting: int) -> FleetStats:
        return FleetStats(
            alive=admission.alive,
            starting=admission.starting,
            ready=ready,
            in_use=in_use,
            waiting=waiting,
            created=self.created,
            lost=self.lost,
            refused=self.refused,
            broken=self.broken,
            done=self.done,
            failed=self.failed,
            retries=self.retries,
            start_limit=admission.start_limit,
            create_p50=percentile(self._creates, 0.5),
            create_p99=percentile(self._creates, 0.99),
            item_p50=percentile(self._items, 0.5),
            item_p99=percentile(self._items, 0.99),
        )


def progress_line(stats: FleetStats, width: int | None = None) -> str:
    """The snapshot as one line of text, cut to a terminal's width."""
    parts = [
        f"{stats.alive} alive ({stats.starting} starting, {stats.ready} ready)",
        f"{stats.waiting} waiting",
        f"{stats.done} done",
        f"{stats.failed} failed",
        f"{stats.retries} retries",
        f"create p50/p99 {_seconds(stats.create_p50)}/{_seconds(stats.create_p99)}",
        f"item {_seconds(stats.item_p50)}/{_seconds(stats.item_p99)}",
    ]
    line = " · ".join(parts)
    return line if width is None or len(line) < width else line[: max(0, width - 2)] + "…"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.1f}s"
