"""The command line of the soak, and its verdict."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import anyio

from benchmarks import report
from benchmarks.engine import memory
from benchmarks.engine.server import Engine, EngineError, run_engine
from benchmarks.soak.load import run_load, use_once

#: How long the load of the warm-up is, and how long the engine is left alone before it is looked at, in seconds.
WARM_UP, REST = 20.0, 12.0
MIB = 1 << 20
#: How much more may be there than before, in MiB: what allocators keep; what a database grows by, and what it remembers
#: of each sandbox that has ended, for a day.
MEMORY_SLACK, DISK_SLACK, DISK_EACH = 24.0, 4.0, 1 / 1024


@dataclass(slots=True, frozen=True)
class State:
    """What an engine holds at one moment: numbers, and MiB for `memory` and `disk`."""

    files: float
    threads: float
    processes: float
    mounts: float
    memory: float
    disk: float


def settle(engine: Engine, data_dir: Path) -> State:
    """Count what is held after a rest, one sandbox, and another rest.

    Pools of threads end those that had nothing to do for ten seconds, but not before they are used again: without that
    sandbox their number says how many jobs happened to come at once in the last moments of the load.
    """
    time.sleep(REST)
    anyio.run(use_once)
    time.sleep(REST)
    return look(engine, data_dir)


def look(engine: Engine, data_dir: Path) -> State:
    """Count what the engine's processes hold."""
    pids = memory.family(engine.process)
    return State(
        files=sum(len(list_of(pid, "fd")) for pid in pids),
        threads=sum(len(list_of(pid, "task")) for pid in pids),
        processes=len(pids),
        mounts=sum(str(data_dir) in line for line in Path("/proc/self/mounts").read_text().splitlines()),
        memory=memory.proportional(pids) / MIB,
        disk=sum(size(path) for path in data_dir.rglob("*")) / MIB,
    )


def list_of(pid: int, name: str) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/{name}")
    except OSError:  # it ended meanwhile
        return []


def size(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def bars(before: State, after: State, done: Counter[str]) -> list[report.Bar]:
    """Everything must be where it was."""
    failed = sum(count for name, count in done.items() if name.startswith("failed"))
    slack = {"memory": MEMORY_SLACK, "disk": DISK_SLACK + DISK_EACH * done["sandboxes"]}
    grown = {name.name: getattr(after, name.name) - getattr(before, name.name) for name in fields(State)}
    found = [report.Bar(f"{name}: more than before", more, slack.get(name, 0), "less") for name, more in grown.items()]
    found.append(report.Bar("sandboxes or calls that failed", failed, 0, "less"))
    return [*found, report.Bar("threads of the client: more than one", threading.active_count() - 1, 0, "less")]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number to this file")
    parser.add_argument("--quick", action="store_true", help="30 seconds")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=12, help="how many work at once (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the soak; the exit status says whether everything returned to where it was."""
    options = parse(arguments)
    seconds = 30.0 if options.quick else options.seconds
    try:
        with run_engine() as engine:
            data_dir = engine.data_dir
            os.environ.update(engine.environment("grotte"))
            report.progress("soak: warming up")
            anyio.run(run_load, WARM_UP, options.workers)
            before = settle(engine, data_dir)
            report.progress(f"soak: {seconds:.0f} s of load")
            done = anyio.run(run_load, seconds, options.workers)
            after = settle(engine, data_dir)
    except EngineError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report.progress("")
    held = bars(before, after, done)
    rows = [[name, report.number(asdict(before)[name]), report.number(asdict(after)[name])] for name in asdict(before)]
    print(report.table(f"{seconds:.0f} seconds of load", ["the engine's", "before", "after"], rows))
    print(report.table("What was done", ["", "times"], [[name, str(count)] for name, count in done.most_common()]))
    print("\n".join(f"- {bar.line()}" for bar in held))
    content: dict[str, object] = {
        "benchmark": "soak",
        "machine": report.machine(),
        "seconds": seconds,
        "before": asdict(before),
        "after": asdict(after),
        "done": dict(done),
        "bars": [bar.as_json() for bar in held],
    }
    report.write_json(options.json, content)
    return 0 if all(bar.holds for bar in held) else 1
