"""The house rules: what generated code, imports, sizes, style, types and documentation must look like."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "grotte"

#: What both trees of the SDK may use.
SHARED_BY_BOTH_TREES = {
    "_proto",
    "_archive",
    "_budget",
    "_dual",
    "_interrupts",
    "_local",
    "config",
    "errors",
    "models",
    "volume_models",
}

#: Who may import whom: a folder of `grotte` → the folders and modules of `grotte` that it may use.
MAY_IMPORT = {
    "_proto": {"_proto", "errors", "models", "volume_models"},
    "_core": {"_core"} | SHARED_BY_BOTH_TREES,
    "_sync": {"_sync"} | SHARED_BY_BOTH_TREES,
    "engine": {"engine", "_proto", "_local", "_version", "errors", "models"},
    "cli": {"cli", "_core", "_sync", "_proto", "_local", "config", "engine", "errors", "models", "_version"},
}


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sync_tree_is_what_the_async_tree_generates() -> None:
    run("tools/unasync.py", "--check")


def test_style() -> None:
    run("-m", "ruff", "check", ".")
    run("-m", "ruff", "format", "--check", ".")


def test_types() -> None:
    run("-m", "mypy")


def test_documentation_names_what_exists() -> None:
    run("tools/check_docs.py")


def imports_of(path: Path) -> Iterator[str]:
    """The rooms of `grotte` that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            deeper = node.module == "grotte"
            names = [f"grotte.{alias.name}" for alias in node.names] if deeper else [node.module]
        yield from (name.split(".")[1] for name in names if name.startswith("grotte."))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_dependencies_point_one_way(room: str) -> None:
    modules = sorted((PACKAGE / room).rglob("*.py"))
    assert modules, f"grotte/{room} has moved: mend this test"
    strays = {
        f"{path.relative_to(ROOT)} imports grotte.{name}"
        for path in modules
        for name in imports_of(path)
        if name not in MAY_IMPORT[room]
    }
    assert not strays


def test_no_module_has_outgrown_one_idea() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if "_sync" not in path.parts]
    assert len(sources) > 30
    assert not [str(path) for path in sources if len(path.read_text().splitlines()) > 500]
    assert not [str(path) for path in sources if path.stem in {"utils", "helpers", "common", "misc"}]
