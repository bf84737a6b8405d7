"""The public surface has precise types, in both worlds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("room", ["sdk", "fleet"])
@pytest.mark.parametrize("world", ["async", "sync"])
def test_type_checkers_see_precise_types(world: str, room: str) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", f"tests/_{world}/{room}/surface.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
