"""Running what a client does in a process of its own, and reading what it says."""

from __future__ import annotations

import json
import subprocess

from tests.support.engine import Engine, environment

SECONDS = 180


def addresses(engine: Engine) -> dict[str, str]:
    """The variables by which clients find an engine, without the prefix that each has for its own."""
    urls = dict.fromkeys(("API_URL", "SANDBOX_URL", "VOLUME_API_URL"), engine.url)
    return {"API_KEY": engine.api_key, **urls}


def prefixed(prefix: str, named: dict[str, str]) -> dict[str, str]:
    return {f"{prefix.upper()}_{name}": value for name, value in named.items()}


def results(command: list[str], variables: dict[str, str]) -> dict[str, object]:
    """The JSON that a command prints.

    Args:
        command: Words of the command line.
        variables: Of its environment, beside those of this process.
    """
    done = subprocess.run(
        command,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found
