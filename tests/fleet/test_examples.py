"""The examples run as they are, at a small size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import Engine, environment

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "count", "printed"),
    [
        ("evaluate_programs", 20, "20 programs: 18 right, 2 wrong, 0 without an end"),
        ("best_of_n", 4, "best of 4: number 3"),
        ("trio_fleet", 10, "10 of 10 agents answered"),
        ("thread_pool", 12, "12 texts counted in 4 sandboxes"),
    ],
)
def test_example(engine: Engine, name: str, count: int, printed: str) -> None:
    variables = environment() | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), str(count)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout, done.stdout + done.stderr
