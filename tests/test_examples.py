"""The programs in `examples/` run; those about fleets have their own tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import Engine, environment

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("name", ["accounts", "quickstart", "typed"])
def test_program(name: str, engine: Engine) -> None:
    variables = environment() | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout, "an example shows something"
