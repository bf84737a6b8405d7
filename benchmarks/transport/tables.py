"""The results as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks import report
from benchmarks.transport.job import BODY_SIZE, MIB
from benchmarks.transport.plan import Group
from benchmarks.transport.runner import Result

#: Title of a column → the cell of a result.
Columns = dict[str, Callable[[Result], str]]


def cell(value: float | None, scale: float = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else report.number(value * scale)


def failed(result: Result) -> str:
    """How many requests failed."""
    return f"{result.failed:,}" if result.failed else ""


SMALL: Columns = {
    "requests/s": lambda result: cell(result.median("per_second")),
    "CPU µs/request": lambda result: cell(result.median("cpu_each")),
    "connections": lambda result: cell(result.median("connections")),
    "p50 ms": lambda result: cell(result.median("p50"), 1e3),
    "p99 ms": lambda result: cell(result.median("p99"), 1e3),
    "failed": failed,
}
HOSTS: Columns = {
    "all answered, ms": lambda result: cell(result.median("wall"), 1e3),
    "CPU ms": lambda result: cell(result.median("cpu"), 1e3),
    "connections": SMALL["connections"],
    "p50 ms": SMALL["p50 ms"],
    "failed": failed,
}
BODY: Columns = {
    "MiB/s": lambda result: cell(report.ratio(BODY_SIZE / MIB, result.median("wall"))),
    "CPU ms": HOSTS["CPU ms"],
    "failed": failed,
}
HELD: Columns = {
    "all answered, s": lambda result: cell(result.median("wall")),
    "CPU ms": HOSTS["CPU ms"],
    "connections": SMALL["connections"],
    "failed": failed,
}
BESIDE: Columns = {
    "held": lambda result: cell(result.median("requests")),
    "not held": failed,
    "connections": SMALL["connections"],
    "call alone, ms": lambda result: cell(result.median("idle_p50"), 1e3),
    "call beside, ms": SMALL["p50 ms"],
    "ratio": lambda result: cell(report.ratio(result.median("p50"), result.median("idle_p50"))),
}
COLUMNS = {
    "get": SMALL,
    "post": SMALL,
    "hosts": HOSTS,
    "download": BODY,
    "upload": BODY,
    "held": HELD,
    "beside": BESIDE,
    "calls": SMALL,
    "sync_calls": SMALL,
    "sandboxes": HOSTS,
    "sdk_download": BODY,
}


def tables(group: Group, results: Iterable[Result]) -> list[str]:
    """A table for each scenario of a group, and a line for each client that failed somewhere."""
    texts = []
    for scenario in group.scenarios:
        columns = COLUMNS[scenario.kind]
        mine = [result for result in results if result.scenario == scenario]
        rows = [[result.client.name, *(make(result) for make in columns.values())] for result in mine]
        texts.append(report.table(f"{group.title}: {scenario.name}", ["client", *columns], rows))
        texts.extend(
            f"- {result.client.name}: {result.failed:,} failed: {result.error}\n" for result in mine if result.failed
        )
    return texts
