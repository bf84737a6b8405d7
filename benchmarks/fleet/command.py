"""The command line of the fleet benchmark, and its report: the modes of the field's "time to interactive" benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers, report
from benchmarks.engine.server import Engine, EngineError, run_engine
from benchmarks.samples import median

CHILD = Path(__file__).with_name("child.py")
SECONDS = 300.0
SANDBOXES = 100
QUICK_SANDBOXES = 20


@dataclass(slots=True, frozen=True)
class Mode:
    """How sandboxes follow each other.

    Attributes:
        title: In words.
        gap: Seconds between two starts; None: the next when the one before is gone.
        rounds: How often it is measured, by turns with the others.
    """

    title: str
    gap: float | None
    rounds: int


MODES = (
    Mode("one after another", None, 1),
    Mode("one every 200 ms", 0.2, 1),
    Mode("all at once", 0.0, 3),
)


@dataclass(slots=True, frozen=True)
class Entrant:
    """A column of the tables: an SDK, and how it is used."""

    peer: peers.Peer
    fleet: bool = False

    @property
    def name(self) -> str:
        """As it is called in tables."""
        return f"{self.peer.name}, AsyncFleet" if self.fleet else self.peer.name


@dataclass(slots=True, frozen=True)
class Row:
    """One line of a table: a field of the answers, with its unit."""

    title: str
    name: str
    scale: float = 1.0


ROWS = (
    Row("median, ms", "median", 1e3),
    Row("p95, ms", "p95", 1e3),
    Row("p99, ms", "p99", 1e3),
    Row("all, s", "wall"),
    Row("client CPU per sandbox, ms", "cpu_each", 1e3),
    Row("failed", "failed"),
)

#: Mode → entrant → the answers of its rounds.
Answers = dict[str, dict[str, list[object]]]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number to this file")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SANDBOXES} sandboxes, once")
    peers.add_option(parser)
    return parser.parse_args(arguments)


def measure(engine: Engine, entrants: Sequence[Entrant], *, quick: bool) -> Answers:
    """Give every mode to everybody, by turns."""
    answers: Answers = {mode.title: {entrant.name: [] for entrant in entrants} for mode in MODES}
    for mode in MODES:
        for number in range(1 if quick else mode.rounds):
            for entrant in entrants:
                report.progress(f"{mode.title}, {number + 1}: {entrant.name}")
                module = "grotte" if entrant.peer == peers.OURS else entrant.peer.module
                count = QUICK_SANDBOXES if quick else SANDBOXES
                job = {"count": count, "gap": mode.gap, "fleet": entrant.fleet}
                answer = peers.run_script(entrant.peer, CHILD, job, engine.environment(module), SECONDS)
                answers[mode.title][entrant.name].append(answer)
    return answers


def value(answers: Sequence[object], name: str) -> float | None:
    """The median over the rounds; None when it was not measured."""
    found = [answer.get(name) for answer in answers if isinstance(answer, dict)]
    return median(float(one) for one in found if isinstance(one, int | float))


def trouble(answers: Answers) -> list[str]:
    """What went wrong, a line each; a peer that was not given is one line."""
    lines = []
    for title, entrants in answers.items():
        for name, rounds in entrants.items():
            for answer in rounds:
                reason = answer.get("error") if isinstance(answer, dict) else answer
                if reason is not None:
                    absent = str(reason).startswith("not measured")
                    lines.append(f"{name}: {reason}" if absent else f"{name}, {title}: {reason}")
    return list(dict.fromkeys(lines))


def bars(answers: Answers) -> list[report.Bar]:
    """What must hold: we are nobody's slower choice, and our fleet costs no more than doing without."""
    found = []
    for title, entrants in answers.items():

        def ratio(ours: str, theirs: str, name: str, entrants: Mapping[str, list[object]] = entrants) -> float | None:
            return report.ratio(value(entrants.get(ours, []), name), value(entrants.get(theirs, []), name))

        for other in peers.EXPECTED:
            text = f"{title}, client CPU per sandbox, ours / {other}'s"
            found.append(report.Bar(text, ratio("ours", other, "cpu_each"), 1, "less"))
        text = f"{title}, median, AsyncFleet / without"
        found.append(report.Bar(text, ratio("ours, AsyncFleet", "ours", "median"), 1.2, "less"))
    return found


def print_report(entrants: Sequence[Entrant], answers: Answers, held: Sequence[report.Bar]) -> None:
    """A table for each mode: a row for each measure, a column for each entrant."""
    names = [entrant.name for entrant in entrants]
    for title, found in answers.items():
        rows = []
        for row in ROWS:
            values = (value(found[name], row.name) for name in names)
            rows.append([row.title, *("–" if one is None else report.number(one * row.scale) for one in values)])
        print(report.table(f"Sandboxes, {title}", ["", *names], rows))
    print("\n".join([*(f"- {line}" for line in trouble(answers)), ""]))
    print("### Bars\n")
    print("\n".join(f"- {bar.line()}" for bar in held))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status says whether it ran, not who won."""
    options = parse(arguments)
    ours, *others = peers.everybody(options.peer_python)
    entrants = [Entrant(ours), Entrant(ours, fleet=True), *(Entrant(peer) for peer in others)]
    try:
        with run_engine() as engine:
            answers = measure(engine, entrants, quick=options.quick)
    except EngineError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report.progress("")
    held = bars(answers)
    print_report(entrants, answers, held)
    content: dict[str, object] = {
        "benchmark": "fleet",
        "machine": report.machine(),
        "results": answers,
        "bars": [bar.as_json() for bar in held],
    }
    report.write_json(options.json, content)
    return 0
