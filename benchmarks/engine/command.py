"""The command line of the engine benchmark, and its report."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers, report
from benchmarks.engine import memory
from benchmarks.engine.server import Engine, EngineError, run_engine

CHILD = Path(__file__).with_name("sdk_child.py")
SECONDS = 120.0
MIB = 1 << 20

#: Part of the table → what the child is to do: the second job is that of `--quick`.
Jobs = Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]
JOBS: Jobs = {
    "sequential": ({"part": "sequential", "count": 20}, {"part": "sequential", "count": 5}),
    "at_once": ({"part": "at_once", "count": 100}, {"part": "at_once", "count": 30}),
    "run": ({"part": "run", "count": 100}, {"part": "run", "count": 30}),
    "unary_50": (
        {"part": "unary", "in_flight": 50, "count": 10_000, "seconds": 3},
        {"part": "unary", "in_flight": 50, "count": 2_000, "seconds": 1},
    ),
    "unary_500": (
        {"part": "unary", "in_flight": 500, "count": 10_000, "seconds": 3},
        {"part": "unary", "in_flight": 500, "count": 2_000, "seconds": 1},
    ),
    "output": ({"part": "output"}, {"part": "output"}),
}
#: The first of them, on an engine that keeps no sandboxes ready.
UNPREPARED = "unprepared"
IDLE_SANDBOXES = 500
COMMANDS = 200


@dataclass(slots=True, frozen=True)
class Column:
    """One column of the table: a field of the answer of a part, with its unit."""

    title: str
    part: str
    name: str
    scale: float = 1.0


COLUMNS = (
    Column("create, ms", "sequential", "create", 1e3),
    Column("create → first command, ms", "sequential", "first_command", 1e3),
    Column("the same where no spare stands ready, ms", UNPREPARED, "first_command", 1e3),
    Column("… many at once, all, ms", "at_once", "all", 1e3),
    Column("client CPU, ms", "at_once", "cpu", 1e3),
    Column("failed", "at_once", "failed"),
    Column("run(true), ms", "run", "p50", 1e3),
    Column("p99", "run", "p99", 1e3),
    Column("CPU µs/call, 50 in flight", "unary_50", "cpu_each", 1e6),
    Column("calls/s", "unary_50", "per_second"),
    Column("CPU µs/call, 500 in flight", "unary_500", "cpu_each", 1e6),
    Column("calls/s", "unary_500", "per_second"),
    Column("32 MiB of stdout, MiB/s", "output", "mib_per_second"),
    Column("client CPU, ms", "output", "cpu", 1e3),
)


class Answers:
    """What every SDK answered to every job."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], object] = {}

    def keep(self, sdk: str, part: str, answer: object) -> None:
        """Remember one."""
        self._answers[sdk, part] = answer

    def value(self, sdk: str, part: str, name: str) -> float | None:
        """A field of an answer; None when it was not measured."""
        answer = self._answers.get((sdk, part))
        value = answer.get(name) if isinstance(answer, dict) else None
        return float(value) if isinstance(value, int | float) else None

    def trouble(self) -> list[str]:
        """What went wrong, a line each; a peer that was not given is one line."""
        lines = []
        for (sdk, part), answer in self._answers.items():
            reason = answer.get("error") if isinstance(answer, dict) else answer
            if reason is not None:
                absent = str(reason).startswith("not measured")
                lines.append(f"{sdk}: {reason}" if absent else f"{sdk}, {part}: {reason}")
        return list(dict.fromkeys(lines))

    def as_json(self) -> dict[str, dict[str, object]]:
        """SDK → part → answer."""
        found: dict[str, dict[str, object]] = {}
        for (sdk, part), answer in self._answers.items():
            found.setdefault(sdk, {})[part] = answer
        return found


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engine", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number to this file")
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    peers.add_option(parser)
    return parser.parse_args(arguments)


def measure(engine: Engine, everybody: Sequence[peers.Peer], *, quick: bool) -> Answers:
    """Give every job to every SDK, job by job."""
    answers = Answers()
    for part, jobs in JOBS.items():
        for peer in everybody:
            report.progress(f"{part}: {peer.name}")
            module = "grotte" if peer == peers.OURS else peer.module
            extra = engine.environment(module)
            answers.keep(peer.name, part, peers.run_script(peer, CHILD, jobs[quick], extra, SECONDS))
    return answers


def measure_unprepared(answers: Answers, everybody: Sequence[peers.Peer], *, quick: bool) -> None:
    """Let every SDK create sandboxes one after another where each has to be started when it is asked for."""
    with run_engine("--spares", "0") as engine:
        for peer in everybody:
            report.progress(f"{UNPREPARED}: {peer.name}")
            extra = engine.environment("grotte" if peer == peers.OURS else peer.module)
            answers.keep(
                peer.name, UNPREPARED, peers.run_script(peer, CHILD, JOBS["sequential"][quick], extra, SECONDS)
            )


def idle_memory(engine: Engine, count: int) -> dict[str, float]:
    """Memory of idle sandboxes, each, in bytes: of their processes, and as the machine's free memory sees it.

    And how many of the commands that they then ran at once succeeded, and in how many seconds all of them.
    """
    before, free = memory.proportional(memory.family(engine.process)), memory.available()
    job = f'{{"module": "grotte", "part": "hold", "count": {count}, "commands": {COMMANDS}}}'
    environment = peers.environment(peers.OURS, engine.environment("grotte"))
    command = [sys.executable, "-P", str(CHILD), job]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().strip()
        if ready != "ready":
            raise EngineError(f"idle sandboxes could not be held: {ready}")
        time.sleep(1)
        pids = memory.family(engine.process)
        total, used = memory.proportional(pids), free - memory.available()
        said, _ = process.communicate("\n", timeout=SECONDS)
    commands = json.loads(said)
    if not isinstance(commands, dict):
        raise EngineError(f"idle sandboxes could not run commands: {commands}")
    return {"processes": (total - before) / count, "machine": used / count, "count": count, **commands}


def bars(answers: Answers, idle: Mapping[str, float]) -> list[report.Bar]:
    """What must hold; the engine's own bars are times, those of the SDK ratios."""

    def milliseconds(part: str, name: str) -> float | None:
        value = answers.value("ours", part, name)
        return None if value is None else value * 1e3

    found = [
        report.Bar(
            "create → first command where a spare stands ready, ms",
            milliseconds("sequential", "first_command"),
            15,
            "less",
        ),
        report.Bar("the same where none stands ready, ms", milliseconds(UNPREPARED, "first_command"), 50, "less"),
        report.Bar(
            "all of the sandboxes created at once have answered, ms", milliseconds("at_once", "all"), 1000, "less"
        ),
        report.Bar("commands.run('true'), ms", milliseconds("run", "p50"), 4, "less"),
        report.Bar("memory of an idle sandbox, MiB", idle["processes"] / MIB, 10, "less"),
    ]
    for part in ("unary_50", "unary_500"):
        for sdk, bound in (("grotte-0.2.0", 1 / 15), ("e2b", 1 / 4)):
            share = report.ratio(answers.value("ours", part, "cpu_each"), answers.value(sdk, part, "cpu_each"))
            found.append(report.Bar(f"CPU per call, {part}, ours / {sdk}'s", share, bound, "less"))
    speeds = [answers.value(sdk, "output", "mib_per_second") for sdk in ("ours", "e2b")]
    return [*found, report.Bar("32 MiB of stdout, speed, ours / e2b's", report.ratio(*speeds), 3, "more")]


def print_report(everybody: Sequence[peers.Peer], answers: Answers, held: Sequence[report.Bar]) -> None:
    """Print table, trouble and bars: a row for each measure, a column for each SDK."""

    def cell(peer: peers.Peer, column: Column) -> str:
        value = answers.value(peer.name, column.part, column.name)
        return "–" if value is None else report.number(value * column.scale)

    rows = [[column.title, *(cell(peer, column) for peer in everybody)] for column in COLUMNS]
    print(report.table("SDKs on one engine", ["", *(peer.name for peer in everybody)], rows))
    print("\n".join([*(f"- {line}" for line in answers.trouble()), ""]))
    print("### Bars\n")
    print("\n".join(f"- {bar.line()}" for bar in held))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status says whether it ran, not who won."""
    options = parse(arguments)
    everybody = peers.everybody(options.peer_python)
    try:
        with run_engine() as engine:
            idle = idle_memory(engine, 10 if options.quick else IDLE_SANDBOXES)
            answers = measure(engine, everybody, quick=options.quick)
        measure_unprepared(answers, everybody, quick=options.quick)
    except EngineError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report.progress("")
    held = bars(answers, idle)
    print_report(everybody, answers, held)
    print(
        f"\nidle sandboxes: {idle['count']:.0f}, each {idle['processes'] / MIB:.1f} MiB in its processes, "
        f"{idle['machine'] / MIB:.1f} MiB by the machine's free memory; of {COMMANDS} commands at once in them "
        f"{idle['succeeded']:.0f} succeeded, in {idle['seconds'] * 1e3:.0f} ms"
    )
    content: dict[str, object] = {
        "benchmark": "engine",
        "machine": report.machine(),
        "idle": idle,
        "results": answers.as_json(),
        "bars": [bar.as_json() for bar in held],
    }
    report.write_json(options.json, content)
    return 0
