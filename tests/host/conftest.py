"""One launcher for all tests of this folder, and a fresh sandbox for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from grotte.engine.host import Guest, SandboxHost, SandboxSpec, diagnose, explain


# No longer than for this folder: the event loop of the launcher would be that of all tests that follow.
@pytest.fixture(scope="package")
def anyio_backend() -> str:
    return "asyncio"  # the engine's own event loop


@pytest.fixture(scope="package")
async def host(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxHost]:
    problems = explain(diagnose())
    assert not problems, problems
    async with SandboxHost(tmp_path_factory.mktemp("host")) as started:
        yield started


@pytest.fixture
async def box(host: SandboxHost) -> AsyncIterator[Guest]:
    guest = await host.launch(SandboxSpec("box"))
    yield guest
    await guest.kill()


@pytest.fixture
def pybox(box: Guest) -> Guest:
    """A sandbox with a Python of its own, for attacks that a shell cannot make."""
    if not any(os.access(f"{place}/python3", os.X_OK) for place in ("/usr/bin", "/usr/local/bin")):
        pytest.skip("the host's /usr has no python3")
    return box


@pytest.fixture(scope="session")
def is_root() -> bool:
    return os.getuid() == 0
