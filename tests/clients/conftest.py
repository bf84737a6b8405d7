"""The clients of others, installed into environments of their own, which the test cache keeps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.front import Front, running_front
from tests.support.engine import Engine

INSTALL_SECONDS = 300


@pytest.fixture(scope="session")
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directories that later runs find again, as long as there is a test cache."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp if cache is None else lambda name: Path(cache.mkdir(name))


def python_with(folder: Path, requirement: str) -> str:
    """A Python with a client, the newest that fits."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=INSTALL_SECONDS)
    command = [str(python), "-m", "pip", "install", "--quiet", "--upgrade", "--disable-pip-version-check", requirement]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    return str(python)


@pytest.fixture(scope="session")
def e2b_python(kept: Callable[[str], Path]) -> str:
    """A Python with the newest official client of E2B."""
    return python_with(kept("client-e2b"), "e2b")


@pytest.fixture(scope="session")
def former_python(kept: Callable[[str], Path]) -> str:
    """A Python with the client that had this package's name before."""
    return python_with(kept("client-former"), "grotte==0.2.0")


@pytest.fixture(scope="session")
def e2b_node(kept: Callable[[str], Path]) -> Path:
    """A directory with the newest official client for Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: the JavaScript client is not tried")
    folder = kept("client-e2b-node")
    quietly = ("--no-audit", "--no-fund", "--loglevel", "error")
    command = ["npm", "install", "--prefix", str(folder), *quietly, "e2b@latest"]
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return folder


@pytest.fixture(scope="session")
def front(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with running_front(tmp_path_factory.mktemp("front"), engine.url) as running:
        yield running
