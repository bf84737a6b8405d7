"""The command line of the transport benchmark, and its report."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import peers, report
from benchmarks.transport import names
from benchmarks.transport.nginx import Nginx, ServerError, run_nginx
from benchmarks.transport.plan import FAR, GROUPS, HOSTS, LIBRARIES, QUICK, Group, sdk_groups
from benchmarks.transport.runner import Result, Runner
from benchmarks.transport.slow import run_slow
from benchmarks.transport.tables import tables
from benchmarks.transport.verdict import Results, bars, not_first


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks transport", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number to this file")
    parser.add_argument("--quick", action="store_true", help="one round of the essential: under 90 seconds")
    parser.add_argument("--rounds", type=int, help="how often each client is measured (3; --quick: 1)")
    parser.add_argument("--seconds", type=float, help="how long each measurement takes (0.7; --quick: 0.4)")
    parser.add_argument("--only", metavar="TEXT", help="only scenarios whose name contains this")
    peers.add_option(parser)
    parser.add_argument("--clients", metavar="NAMES", help=f"only these, by comma: {','.join(LIBRARIES)}")
    return parser.parse_args(arguments)


def select(options: argparse.Namespace) -> list[Group]:
    """The groups that the command line asks for."""
    groups = []
    sdks = sdk_groups([peer.name for peer in options.peer_python]) if options.peer_python else ()
    for group in (*(QUICK if options.quick else GROUPS), *sdks):
        scenarios = tuple(one for one in group.scenarios if options.only is None or options.only in one.name)
        if scenarios:
            groups.append(dataclasses.replace(group, scenarios=scenarios))
    return groups


def environment(nginx: Nginx) -> dict[str, object]:
    """Machine, server and versions."""
    packages = [package for _, parts in LIBRARIES.values() for package in parts]
    return {
        **report.machine(),
        "server": nginx.version,
        "versions": report.versions([*packages, "anyio", "trio", "uvloop"]),
    }


def measure(options: argparse.Namespace) -> tuple[dict[str, object], list[tuple[Group, list[Result]]]]:
    """Start everything, measure, stop everything."""
    libraries = options.clients.split(",") if options.clients else list(LIBRARIES)
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.seconds or (0.4 if options.quick else 0.7)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grotte-benchmark-")))
        slow = stack.enter_context(run_slow(folder / "slow"))
        nginx = stack.enter_context(run_nginx(folder / "slow"))
        ports = {0: nginx.port, FAR.delay_ms: slow.link(nginx.port, FAR.delay_ms)}
        names.write_hosts(folder / "hosts", HOSTS)
        runner = Runner(nginx, ports, names.wrapper(folder / "hosts"), seconds, options.peer_python)
        return environment(nginx), [(group, runner.measure(group, libraries, rounds)) for group in select(options)]


def as_json(result: Result) -> dict[str, object]:
    """A result with its medians and its rounds."""
    return {
        "scenario": result.scenario.name,
        "library": result.client.library,
        "loop": result.client.loop,
        "requests_per_second": result.median("per_second"),
        "cpu_us_per_request": result.median("cpu_each"),
        "connections": result.median("connections"),
        "p50_s": result.median("p50"),
        "p99_s": result.median("p99"),
        "failed": result.failed,
        "error": result.error,
        "rounds": msgspec.to_builtins(result.outcomes),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status says whether it ran, not who won."""
    options = parse(arguments)
    started = time.monotonic()
    try:
        machine, measured = measure(options)
    except ServerError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report.progress("")
    results = Results(result for _, part in measured for result in part)
    held, behind = bars(results), not_first(results)
    for group, part in measured:
        print("\n".join(tables(group, part)))
    print("### Where we are not first\n")
    print("\n".join(f"- {line}" for line in behind) or "- nowhere")
    print("\n### Bars\n")
    print("\n".join(f"- {bar.line()}" for bar in held))
    print(
        f"\n{machine['cores']} cores, {machine['server']}, Python {machine['python']}; "
        f"{time.monotonic() - started:.0f} s in all"
    )
    content: dict[str, object] = {
        "benchmark": "transport",
        "machine": machine,
        "seconds": round(time.monotonic() - started, 1),
        "results": [as_json(result) for result in results.all],
        "not_first": behind,
        "bars": [bar.as_json() for bar in held],
    }
    report.write_json(options.json, content)
    return 0
