"""``api_url="local"``: an engine that is there when it is needed, shared, private, and gone when it is not."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import environment

PROGRAM = """
import asyncio, json, sys
import grotte
from grotte import _local

async def main():
    async with await grotte.AsyncSandbox.create(**json.loads(sys.argv[1])) as sandbox:
        result = await sandbox.commands.run("echo $$")
        address = _local.read_address()
        print(json.dumps({"pid": address.pid, "url": address.url, "stdout": result.stdout}), flush=True)

asyncio.run(main())
"""
SYNC_PROGRAM = """
import json, sys
import grotte
try:
    with grotte.Sandbox.create(**json.loads(sys.argv[1])) as sandbox:
        print(json.dumps({"stdout": sandbox.commands.run("echo hi").stdout}))
except grotte.GrotteException as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""
LOCAL = {"api_url": "local"}
GONE_SECONDS = 60


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    yield environment() | {
        "XDG_RUNTIME_DIR": str(runtime),
        "GROTTE_DATA_DIR": str(tmp_path / "data"),
        "GROTTE_ENGINE_IDLE_SECONDS": "0.5",
    }
    address = runtime / "grotte" / "engine.json"
    deadline = time.monotonic() + GONE_SECONDS
    while address.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not address.exists(), "the engine that nobody needs does not leave"


def start(program: str, environ: dict[str, str], options: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, json.dumps(options)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    found: dict[str, object] = json.loads(out)
    return found


def test_programs_that_start_at_once_share_one_engine(environ: dict[str, str]) -> None:
    programs = [start(PROGRAM, environ, LOCAL) for _ in range(4)]
    found = [finish(program) for program in programs]
    assert len({result["pid"] for result in found}) == 1
    assert all(str(result["stdout"]).strip().isdigit() for result in found)
    directory = Path(environ["XDG_RUNTIME_DIR"]) / "grotte"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "engine.log").stat().st_mode) == 0o600


def wait_until_refused(port: int) -> None:
    """The address is withdrawn before the port is closed."""
    until = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def test_it_leaves_and_comes_back(environ: dict[str, str]) -> None:
    first = finish(start(PROGRAM, environ, LOCAL))
    address = Path(environ["XDG_RUNTIME_DIR"]) / "grotte" / "engine.json"
    while address.exists():
        time.sleep(0.05)
    wait_until_refused(int(str(first["url"]).rsplit(":", 1)[1]))
    assert finish(start(PROGRAM, environ, LOCAL))["pid"] != first["pid"]


def test_it_is_the_default_when_nothing_is_set(environ: dict[str, str]) -> None:
    assert finish(start(SYNC_PROGRAM, environ, {}))["stdout"] == "hi\n"


def test_the_address_of_a_dead_engine_is_not_believed(environ: dict[str, str]) -> None:
    directory = Path(environ["XDG_RUNTIME_DIR"]) / "grotte"
    directory.mkdir(0o700)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    old = {"url": f"http://127.0.0.1:{port}", "api_key": "old", "pid": os.getpid(), "version": "0"}
    (directory / "engine.json").write_text(json.dumps(old))
    assert finish(start(SYNC_PROGRAM, environ, LOCAL))["stdout"] == "hi\n"


@pytest.mark.parametrize("spoil", ["link", "open", "file"])
def test_a_directory_that_others_could_have_made_is_refused(environ: dict[str, str], spoil: str) -> None:
    directory = Path(environ["XDG_RUNTIME_DIR"]) / "grotte"
    if spoil == "link":
        directory.symlink_to("/tmp")
    elif spoil == "open":
        directory.mkdir()
        directory.chmod(0o777)
    else:
        directory.touch()
    result = finish(start(SYNC_PROGRAM, environ, LOCAL))
    assert result["error"] == "EngineUnavailableException"
    assert str(directory) in str(result["text"])


def test_an_engine_that_cannot_start_says_why(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").touch()  # where a directory should be
    result = finish(start(SYNC_PROGRAM, environ, LOCAL))
    assert result["error"] == "EngineUnavailableException"
    assert "cannot start" in str(result["text"])
    assert "engine.log" in str(result["text"])
