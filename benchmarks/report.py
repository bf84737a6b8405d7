"""What a benchmark hands out: tables for people, JSON for programs, the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Direction = Literal["more", "less"]


@dataclass(slots=True, frozen=True)
class Bar:
    """One thing that must hold.

    Attributes:
        text: What is compared.
        measured: The ratio, count or time; None when a part of it could not be measured.
        bound: The number that it must keep.
        direction: "less": at most `bound`; "more": at least.
    """

    text: str
    measured: float | None
    bound: float
    direction: Direction

    @property
    def holds(self) -> bool | None:
        """Whether it does; None: not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.direction == "less" else self.measured >= self.bound

    def line(self) -> str:
        """The bar as a line of the report."""
        sign = "≤" if self.direction == "less" else "≥"
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}[self.holds]
        measured = "–" if self.measured is None else number(self.measured)
        return f"{verdict:<14}{self.text}: {measured} (bar {sign} {number(self.bound)})"

    def as_json(self) -> dict[str, object]:
        """The bar for the JSON file."""
        return {
            "text": self.text,
            "measured": self.measured,
            "bound": self.bound,
            "direction": self.direction,
            "holds": self.holds,
        }


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """`ours / theirs`; None when one of them is missing."""
    return None if ours is None or not theirs else ours / theirs


def number(value: float) -> str:
    """A number as people read it: three digits that matter, thousands separated."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose source is readable too."""
    body = [list(columns), *[list(row) for row in rows]]
    widths = [max(3, *(len(row[index]) for row in body)) for index in range(len(columns))]
    lines = [f"### {title}", ""]
    for position, row in enumerate(body):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
        if position == 0:
            rest = ("-" * (width - 1) + ":" for width in widths[1:])
            lines.append(f"| {' | '.join(['-' * widths[0], *rest])} |")
    return "\n".join([*lines, ""])


def machine() -> dict[str, object]:
    """The machine and the interpreter, as far as they explain the numbers."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package; "not installed" where there is none."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path | None, content: Mapping[str, object]) -> None:
    """Write the results to a file, if one is wanted."""
    if path is not None:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def progress(text: str) -> None:
    """Say on stderr what is being measured, over the line before when somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
