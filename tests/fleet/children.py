"""Programs with fleets, as processes that may be ended in any way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grotte import ApiParams, Sandbox, SandboxQuery
from tests.support.engine import environment
from tests.support.programs import killed_after

ROOT = Path(__file__).resolve().parent.parent.parent
#: How long a program may take to end, in seconds; the bound of the fleet's own clean-up is of this order.
END_SECONDS = 60
#: How long it may be silent when it is expected to speak, in seconds.
LINE_SECONDS = 60


class Child:
    """A program that runs.

    Attributes:
        process: The process.
        fleet_id: Its fleet.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.fleet_id = self.line()

    def line(self) -> str:
        """The next line that it prints; a program that prints none in time is killed."""
        assert self.process.stdout is not None
        with killed_after(LINE_SECONDS, self.process):
            line = self.process.stdout.readline()
        assert line, f"ended, or silent for {LINE_SECONDS} s: {self.process.communicate(timeout=10)[1]}"
        return line.strip()

    def finish(self) -> tuple[int, str]:
        """Wait for its end; its exit status and what it printed besides."""
        out, _ = self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode, out


@contextmanager
def running_program(world: str, options: Mapping[str, object]) -> Iterator[Child]:
    """Run `tests/fleet/program.py`; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.program", world, json.dumps(options)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()


def alive(fleet_id: str, options: ApiParams) -> list[str]:
    """The sandboxes of a fleet, as the server has them."""
    return [info.sandbox_id for info in Sandbox.list(SandboxQuery(metadata={"grotte.fleet": fleet_id}), **options)]
