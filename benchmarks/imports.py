"""``python -m benchmarks imports``: what importing the package costs, beside others, over a bare interpreter.

Each sample is a fresh interpreter, with warm file caches and byte code (in a temporary folder for all alike).
Memory is what is resident.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peers, report
from benchmarks.samples import median

CHILD = Path(__file__).with_name("imports_child.py")
STATEMENTS = ("import MODULE", "from MODULE import Sandbox", "from MODULE import AsyncSandbox")
TIMEOUT = 60.0


@dataclass(slots=True)
class Cost:
    """What a statement costs with one peer.

    Attributes:
        samples: One dictionary a fresh interpreter: seconds, bytes, modules.
        error: Why there are none.
    """

    peer: peers.Peer
    statement: str
    samples: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None

    def median(self, name: str) -> float | None:
        """The median of a field of the samples."""
        return median(sample[name] for sample in self.samples)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks imports", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number to this file")
    parser.add_argument("--quick", action="store_true", help="5 interpreters each instead of 21")
    peers.add_option(parser)
    return parser.parse_args(arguments)


def measure(everybody: Sequence[peers.Peer], rounds: int) -> list[Cost]:
    """Take the samples, by turns."""
    costs = [Cost(peer, statement) for statement in STATEMENTS for peer in everybody]
    with tempfile.TemporaryDirectory(prefix="grotte-benchmark-") as cache:
        for turn in range(rounds + 1):
            for cost in costs:
                if cost.error is not None:
                    continue
                report.progress(f"{cost.statement}: {cost.peer.name} ({turn} of {rounds})")
                extra = {"PYTHONPYCACHEPREFIX": cache}
                sample = peers.run_script(cost.peer, CHILD, {"statement": cost.statement}, extra, TIMEOUT)
                if not isinstance(sample, dict):
                    cost.error = str(sample)
                elif turn:  # the first only warms the caches
                    cost.samples.append(sample)
    report.progress("")
    return costs


def table(statement: str, costs: Sequence[Cost]) -> str:
    """The table of one statement."""

    def cell(value: float | None, scale: float) -> str:
        return "–" if value is None else report.number(value * scale)

    rows = [
        [
            cost.peer.name,
            cell(cost.median("seconds"), 1e3),
            cell(cost.median("bytes"), 1 / (1 << 20)),
            cell(cost.median("modules"), 1),
            cost.error or "",
        ]
        for cost in costs
        if cost.statement == statement
    ]
    title = f"`{statement.replace('MODULE', '…')}`"
    return report.table(title, ["SDK", "ms", "MiB over bare Python", "modules", ""], rows)


def bars(costs: Sequence[Cost]) -> list[report.Bar]:
    """At most a third of the time and memory of `grotte` 0.2.0."""
    by_key = {(cost.peer.name, cost.statement): cost for cost in costs}
    found = []
    for statement in STATEMENTS[:2]:
        ours, before = by_key["ours", statement], by_key["grotte-0.2.0", statement]
        for measure_name, text in (("seconds", "time"), ("bytes", "memory")):
            share = report.ratio(ours.median(measure_name), before.median(measure_name))
            label = f"{statement.replace('MODULE', 'grotte')}, {text}, ours / grotte 0.2.0's"
            found.append(report.Bar(label, share, 1 / 3, "less"))
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark."""
    options = parse(arguments)
    costs = measure(peers.everybody(options.peer_python), 5 if options.quick else 21)
    held = bars(costs)
    for statement in STATEMENTS:
        print(table(statement, costs))
    print("### Bars\n")
    print("\n".join(f"- {bar.line()}" for bar in held))
    content: dict[str, object] = {
        "benchmark": "imports",
        "machine": report.machine(),
        "results": [
            {
                "sdk": cost.peer.name,
                "statement": cost.statement,
                "seconds": cost.median("seconds"),
                "bytes": cost.median("bytes"),
                "modules": cost.median("modules"),
                "error": cost.error,
            }
            for cost in costs
        ],
        "bars": [bar.as_json() for bar in held],
    }
    report.write_json(options.json, content)
    return 0
