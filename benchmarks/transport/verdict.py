"""What the numbers say: where we are not first, and whether the bars hold."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.report import Bar, number, ratio
from benchmarks.transport import plan
from benchmarks.transport.job import Loop, Scenario
from benchmarks.transport.plan import OURS
from benchmarks.transport.runner import Result

#: What counts in a scenario of each kind: field or rate of a result, its name, whether more is better.
MEASURES = {
    "get": (
        ("per_second", "requests/s", True),
        ("cpu_each", "CPU µs/request", False),
        ("p99", "p99 in seconds", False),
    ),
    "post": (
        ("per_second", "requests/s", True),
        ("cpu_each", "CPU µs/request", False),
        ("p99", "p99 in seconds", False),
    ),
    "hosts": (("wall", "seconds", False), ("cpu", "CPU s", False), ("connections", "connections", False)),
    "download": (("wall", "seconds", False), ("cpu", "CPU s", False)),
    "upload": (("wall", "seconds", False), ("cpu", "CPU s", False)),
    "held": (("wall", "seconds", False), ("cpu", "CPU s", False)),
    "beside": (("requests", "streams held", True), ("p50", "seconds a call", False), ("cpu", "CPU s", False)),
}


class Results:
    """All results of a run, looked up by scenario, library and loop."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.all = list(results)
        self._by_key = {(result.scenario, result.client.library, result.client.loop): result for result in self.all}

    def value(self, scenario: Scenario, library: str, measure: str, loop: Loop = "asyncio") -> float | None:
        """The median of a measure; None when it was not measured, or when requests failed."""
        result = self._by_key.get((scenario, library, loop))
        if result is None or not (result.complete or measure == "requests"):
            return None
        return result.median(measure)

    def ratio(self, scenario: Scenario, measure: str, peer: str, loop: Loop = "asyncio") -> float | None:
        """Ours divided by the peer's."""
        return ratio(self.value(scenario, OURS, measure, loop), self.value(scenario, peer, measure, loop))


def not_first(results: Results) -> list[str]:
    """A line for each scenario, loop and measure in which a peer is ahead of us by more than a percent.

    A peer counts only where it answered everything.
    """
    lines = []
    for ours in (result for result in results.all if result.client.library == OURS):
        rivals = [
            result
            for result in results.all
            if (result.scenario, result.client.loop) == (ours.scenario, ours.client.loop)
            and result.client.library != OURS
            and result.complete
        ]
        if not ours.complete:
            lines.append(f"{ours.scenario.name}, {ours.client.loop}: {ours.failed:,} of ours failed: {ours.error}")
        lines.extend(
            line for measure in MEASURES[ours.scenario.kind] if (line := behind(ours, rivals, *measure)) is not None
        )
    return lines


def behind(ours: Result, rivals: Iterable[Result], measure: str, unit: str, more: bool) -> str | None:
    """Who is ahead of us, and by how much; None when nobody is."""
    mine = ours.median(measure)
    theirs = {result.client.name: value for result in rivals if (value := result.median(measure)) is not None}
    if mine is None or not theirs:
        return None
    name, best = (max if more else min)(theirs.items(), key=lambda item: item[1])
    if (best <= mine * 1.01) if more else (best * 1.01 >= mine):
        return None
    return f"{ours.scenario.name}, {ours.client.loop}: {unit}: {name} {number(best)}, ours {number(mine)}"


def bars(results: Results) -> list[Bar]:
    """What must hold. httpx stands for `grotte` 0.2.0 and pyqwest for `e2b` 2.63, which send their requests through
    them: with what those add on top, the true ratios are better."""
    found: list[Bar] = []
    for amount in (50, 500):
        scenario = plan.GET[amount]
        text = f"CPU per request, {scenario.name}, ours / "
        found += [
            Bar(f"{text}httpx's", results.ratio(scenario, "cpu_each", "httpx"), 1 / 15, "less"),
            Bar(f"{text}pyqwest's", results.ratio(scenario, "cpu_each", "pyqwest"), 1 / 4, "less"),
        ]
    beside = plan.BESIDE
    alone = results.value(beside, OURS, "idle_p50")
    threads = "sync requests/s, ours / "
    return [
        *found,
        Bar(f"{plan.FAR.name}, time, ours / pyqwest's", results.ratio(plan.FAR, "wall", "pyqwest"), 1 / 3, "less"),
        Bar(f"{plan.FAR.name}, connections", results.value(plan.FAR, OURS, "connections"), 8, "less"),
        Bar("streams held in one process", results.value(beside, OURS, "requests"), 2000, "more"),
        Bar("a call beside them / alone", ratio(results.value(beside, OURS, "p50"), alone), 2, "less"),
        Bar("64 MiB down, speed, ours / aiohttp's", speed(results, plan.DOWN, "aiohttp"), 1, "more"),
        Bar("64 MiB down, speed, ours / pyqwest's", speed(results, plan.DOWN, "pyqwest"), 3, "more"),
        Bar("64 MiB up, speed, ours / pyqwest's", speed(results, plan.UP, "pyqwest"), 1, "more"),
        Bar(f"{threads}pyqwest's, 1 thread", results.ratio(plan.SYNC[1], "per_second", "pyqwest", "sync"), 1, "more"),
        Bar(
            f"{threads}pyqwest's, 50 threads",
            results.ratio(plan.SYNC[50], "per_second", "pyqwest", "sync"),
            1 / 2,
            "more",
        ),
        Bar(f"{threads}httpx's, 1 thread", results.ratio(plan.SYNC[1], "per_second", "httpx", "sync"), 5, "more"),
        Bar(f"{threads}httpx's, 50 threads", results.ratio(plan.SYNC[50], "per_second", "httpx", "sync"), 5, "more"),
    ]


def speed(results: Results, scenario: Scenario, peer: str) -> float | None:
    """How many times faster than a peer we move a body."""
    return ratio(1, results.ratio(scenario, "wall", peer))
