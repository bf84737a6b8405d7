"""What the numbers say: where we are not first, and whether the bars hold."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.report import Bar, Direction, number, ratio
from benchmarks.transport import plan
from benchmarks.transport.job import Loop, Scenario
from benchmarks.transport.plan import OURS
from benchmarks.transport.runner import Result

#: What counts in a scenario of each kind: field or rate of a result, its name, whether more is better.
SMALL = (
    ("per_second", "requests/s", True),
    ("cpu_each", "CPU µs/request", False),
    ("p99", "p99 in seconds", False),
)
HOSTS = (("wall", "seconds", False), ("cpu", "CPU s", False), ("connections", "connections", False))
BODY = (("wall", "seconds", False), ("cpu", "CPU s", False))
MEASURES = {
    "get": SMALL,
    "post": SMALL,
    "calls": SMALL,
    "sync_calls": SMALL,
    "hosts": HOSTS,
    "sandboxes": HOSTS,
    "download": BODY,
    "upload": BODY,
    "sdk_download": BODY,
    "held": BODY,
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


BEFORE, E2B = "grotte-0.2.0", "e2b"
#: Through which the two send their requests: what stands for them where they were not measured. With what they add on
#: top, the true ratios are better.
STAND_INS = {BEFORE: "httpx", E2B: "pyqwest"}


def bars(results: Results) -> list[Bar]:
    """What must hold, against the SDKs that the bars speak of where they were measured."""
    beside = plan.BESIDE
    alone = results.value(beside, OURS, "idle_p50")
    connections = max(
        (found for scenario in (plan.FAR, plan.SANDBOXES) if (found := results.value(scenario, OURS, "connections"))),
        default=None,
    )
    pyqwest = results.ratio(plan.SYNC[50], "per_second", "pyqwest", "sync")
    return [
        *(
            against(results, peer, plan.CALLS[amount], plan.GET[amount], "cpu_each", bound)
            for amount in (50, 500)
            for peer, bound in ((BEFORE, 1 / 15), (E2B, 1 / 4))
        ),
        against(results, E2B, plan.SANDBOXES, plan.FAR, "wall", 1 / 3),
        Bar(f"{plan.HOSTS} hosts, connections", connections, 8, "less"),
        Bar("streams held in one process", results.value(beside, OURS, "requests"), 2000, "more"),
        Bar("a call beside them / alone", ratio(results.value(beside, OURS, "p50"), alone), 2, "less"),
        Bar("64 MiB down, speed, ours / aiohttp's", speed(results, plan.DOWN, "aiohttp"), 1, "more"),
        against(results, E2B, plan.READ, plan.DOWN, "wall", 1 / 3),
        Bar("64 MiB up, speed, ours / pyqwest's", speed(results, plan.UP, "pyqwest"), 1, "more"),
        against(results, E2B, plan.SYNC_CALLS[1], plan.SYNC[1], "per_second", 1, "sync"),
        Bar(f"{plan.SYNC[50].name}, requests/s, ours / pyqwest's", pyqwest, 1 / 2, "more"),
        against(results, BEFORE, plan.SYNC_CALLS[50], plan.SYNC[50], "per_second", 5, "sync"),
    ]


def against(
    results: Results,
    peer: str,
    scenario: Scenario,
    substitute: Scenario,
    measure: str,
    bound: float,
    loop: Loop = "asyncio",
) -> Bar:
    """A bar against an SDK; where it was not measured, against its HTTP client in a scenario of those."""
    found = results.ratio(scenario, measure, peer, loop)
    if found is None:
        scenario, peer = substitute, STAND_INS[peer]
        found = results.ratio(scenario, measure, peer, loop)
    name, direction = MEASURE_NAMES[measure]
    return Bar(f"{scenario.name}, {name}, ours / {peer}'s", found, bound, direction)


#: Measure of a bar → its name, and how the ratio must be.
MEASURE_NAMES: dict[str, tuple[str, Direction]] = {
    "cpu_each": ("CPU", "less"),
    "wall": ("time", "less"),
    "per_second": ("per second", "more"),
}


def speed(results: Results, scenario: Scenario, peer: str) -> float | None:
    """How many times faster than a peer we move a body."""
    return ratio(1, results.ratio(scenario, "wall", peer))
