"""A test that hangs ends with the place where it waits, and those after it run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import threading
import anyio
import pytest

for backend in ("asyncio", "trio"):  # imported now, as that counts against nobody's limit here
    anyio.run(anyio.sleep, 0, backend=backend)

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def shared(anyio_backend):
    yield "one event loop for all tests"

async def test_waits_for_ever(shared):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)

async def test_has_the_same_event_loop(shared):
    await anyio.sleep(0)

def test_waits_without_an_event_loop():
    threading.Event().wait()

@pytest.mark.timeout(0)
async def test_has_no_limit():
    await anyio.sleep(2.2)
"""


def test_hanging_tests_end_and_say_where_they_waited(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(TESTS)
    options = [
        "-p",
        "tests.support.limits",
        "-p",
        "no:cacheprovider",
        "-o",
        "anyio_mode=auto",
        "--timeout=2",
        "-rN",
        "--color=no",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--rootdir={tmp_path}", "--tb=short", *options, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "3 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("in test_waits_for_ever\n    async with anyio.create_task_group()") == 2
    assert "in test_waits_without_an_event_loop\n    threading.Event().wait()" in done.stdout
