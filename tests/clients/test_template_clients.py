"""The clients of others build templates on the engine."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest

from tests.clients.running import addresses, prefixed, results
from tests.support.engine import Engine

BUILDING = Path(__file__).with_name("building.py")
FILES = ["./below/deep.txt", "./latest", "./link", "./main.txt", "./run.sh", "below/deep.txt", "/app/main.txt"]
EXPECTED = {
    "built": [True, ["v1"]],
    # a variable in the step that sets it has the value from before, as in a Dockerfile
    "seen": [*FILES, "it runs", "user", "main", "made-by-root", "root", "/app", "hello you|!", "644 user", "755 root"],
    "logged": [True, True],
    "uploaded": 2,
    "cached": 8,
    "run again": False,
    "kept": True,
    "in the background": ["ready", True, "./below/deep.txt"],
    "failed": ["step 2, RUN echo before; echo why >&2; exit 7", ["before", "why"]],
    "tags": [["v1", "v2"], ["prod", "stable"], ["prod", "stable", "v1", "v2"], ["prod", "v1", "v2"], True, False],
    "delete": [204, False],
}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    app = tmp_path / "app"
    (app / "below").mkdir(parents=True)
    (app / "main.txt").write_text("main\n")
    (app / "below" / "deep.txt").write_text("deep\n")
    (app / "left.log").write_text("not for the template\n")
    (app / "link").symlink_to("below/deep.txt")
    # what one client has uploaded, the next need not
    (app / "run.sh").write_text(f"#!/bin/sh\necho it runs # {secrets.token_hex(8)}\n")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    return tmp_path


@pytest.fixture(params=["e2b", "0.2.0", "grotte", "node"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """How a client is started, up to the name of its template."""
    if request.param == "node":
        return ["node", str(BUILDING.with_suffix(".mjs")), str(request.getfixturevalue("e2b_node"))]
    fixture = {"e2b": "e2b_python", "0.2.0": "former_python"}.get(request.param)
    python = str(request.getfixturevalue(fixture)) if fixture else sys.executable
    return [python, str(BUILDING), "e2b" if request.param == "e2b" else "grotte"]


def test_what_they_build(command: list[str], engine: Engine, context: Path) -> None:
    variables = prefixed("e2b", addresses(engine)) | prefixed("grotte", addresses(engine))
    assert results([*command, f"built-{secrets.token_hex(4)}", str(context)], variables) == EXPECTED
