"""An engine in a process of its own, started as a user would: ``grotte serve``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grotte import ApiParams
from tests.support.programs import killed_after

START_TIMEOUT = 60
STOP_TIMEOUT = 60
EXPORT = re.compile(r"^export (\w+)=(\S+)$")


@dataclass(frozen=True)
class Engine:
    """A running engine: where it is, its key, its process, its data."""

    url: str
    api_key: str
    process: subprocess.Popen[str]
    data_dir: Path

    @property
    def options(self) -> ApiParams:
        """The arguments with which the SDK reaches it."""
        return {"api_url": self.url, "api_key": self.api_key}

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)


def serve_command(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "grotte", "serve", "--port", "0", "--data-dir", str(data_dir), *arguments]


@contextmanager
def running_engine(data_dir: Path, *arguments: str, become: Sequence[str] = ()) -> Iterator[Engine]:
    """Start an engine on a free port, wait for its two ``export`` lines, and stop it at the end.

    Args:
        data_dir: Where it keeps its data.
        arguments: More arguments of ``grotte serve``.
        become: Words before the command line, to run it as another user.
    """
    command = [*become, *serve_command(data_dir, *arguments)]
    log = data_dir.with_name(f"{data_dir.name}.log")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment()
        )
    try:
        with killed_after(START_TIMEOUT, process):
            exports = read_exports(process, log)
        yield Engine(exports["GROTTE_API_URL"], exports["GROTTE_API_KEY"], process, data_dir)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT)
    finally:
        process.kill()
        process.communicate()


def environment() -> dict[str, str]:
    """This process's environment without what would redirect the engine or the SDK."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GROTTE_", "E2B_"))}


def read_exports(process: subprocess.Popen[str], log: Path) -> dict[str, str]:
    """The variables of the ``export`` lines that ``grotte serve`` prints when it is ready."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    while not {"GROTTE_API_URL", "GROTTE_API_KEY"} <= found.keys():
        line = process.stdout.readline()
        assert line, f"the engine ended: {log.read_text()}"
        if match := EXPORT.match(line.strip()):
            found[match[1]] = match[2]
    return found
