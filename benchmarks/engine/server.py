"""An engine of the benchmark's own: ``grotte serve``, as a user would start it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 60


class EngineError(Exception):
    """The engine did not start; the message is its own."""


@dataclass(slots=True, frozen=True)
class Engine:
    """A running engine.

    Attributes:
        url: Where it is.
        keys: An API key for each prefix that some SDK insists on.
        process: Its process.
        data_dir: Where it keeps its data.
    """

    url: str
    keys: dict[str, str]
    process: int
    data_dir: Path

    def environment(self, module: str) -> dict[str, str]:
        """What makes an SDK use this engine for everything."""
        prefix = module.upper()
        values = {"API_URL": self.url, "SANDBOX_URL": self.url, "API_KEY": self.keys[module]}
        return {f"{prefix}_{name}": value for name, value in values.items()}


@contextmanager
def run_engine(*options: str) -> Iterator[Engine]:
    """Start an engine on a free port, stop it at the end.

    Args:
        options: More words for its command line.

    Raises:
        EngineError: it cannot run here.
    """
    keys = {"grotte": f"grt_{secrets.token_hex(20)}", "e2b": f"e2b_{secrets.token_hex(20)}"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GROTTE_", "E2B_"))}
    with tempfile.TemporaryDirectory(prefix="grotte-benchmark-") as folder:
        command = [sys.executable, "-m", "grotte", "serve", "--port", "0", "--data-dir", f"{folder}/data"]
        for key in keys.values():
            command += ["--api-key", key]
        command += options
        log = Path(folder, "log")
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, env=kept
            )
        try:
            yield Engine(read_url(process, log), keys, process.pid, Path(folder, "data"))
        finally:
            stop(process)


def read_url(process: subprocess.Popen[str], log: Path) -> str:
    """The URL that the engine prints when it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("export GROTTE_API_URL="):
            return line.strip().partition("=")[2]
    raise EngineError(f"the engine did not start: {log.read_text().strip()[-800:]}")


def stop(process: subprocess.Popen[str]) -> None:
    """End the engine, and with it its sandboxes."""
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
