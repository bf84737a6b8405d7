"""Engines that start, stop, are killed, and are needed no longer."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.engine.wire import Box, Wire, check_error, first_message, unpack
from tests.support.census import groups_of
from tests.support.engine import Engine, environment, read_exports, running_engine

KEY = "grt_life"
ON_DEMAND = [sys.executable, "-m", "grotte", "serve", "--on-demand", "--port", "0"]


@contextmanager
def engine(data_dir: Path, become: Sequence[str] = ()) -> Iterator[Engine]:
    with running_engine(data_dir, "--api-key", KEY, become=become) as running:
        yield running


def wait_until(condition: Any, what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(what)


def traces(sandbox_id: str, data_dir: Path) -> list[str]:
    """What is left of a sandbox and its engine, anywhere on the machine; others may run engines of their own."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(data_dir) in line]
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    words = (sandbox_id.encode(), str(data_dir).encode())
    processes = [f"{pid}" for pid in pids if any(word in command_line(pid) for word in words)]
    groups = [str(path) for path in groups_of(sandbox_id)]
    return mounts + processes + groups + [str(path) for path in data_dir.glob("host/sandboxes/*")]


def test_a_stop_ends_sandboxes_and_streams_and_exits_with_0(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        with box.open("Start", {"process": {"cmd": "/bin/sleep", "args": ["100"]}}) as answer:
            _, chunks = first_message(answer)
            running.process.send_signal(signal.SIGTERM)
            (end,) = unpack(b"".join(chunks))
            assert end["error"]["code"] == "unavailable"
        assert running.process.wait(20) == 0
    log = (tmp_path / "data.log").read_text()
    assert "event=stopped" in log
    assert KEY not in log
    assert str(box.token) not in log
    assert "Traceback" not in log
    assert traces(box.id, tmp_path / "data") == []


def test_ctrl_c_stops_too(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    with engine(tmp_path / "data"):
        for file in (tmp_path / "data").glob("state.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) & 0o067 == 0


def start(*arguments: str, stdout: IO[str] | int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grotte", "serve", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, env=environment())


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = start("--port", port, "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_directory_serves_one_engine(tmp_path: Path) -> None:
    with engine(tmp_path / "data"):
        ended = start("--port", "0", "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1
    assert "another engine uses the data directory" in ended.stderr


NO_VERSION = "should hold the number of a layout"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"2\n", "use a newer grotte"), (b"x\n", NO_VERSION), (b"", NO_VERSION), (b"\xff\xfe", NO_VERSION)],
)
def test_a_data_directory_of_another_version_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "version").write_bytes(content)
    ended = start("--port", "0", "--data-dir", str(tmp_path))
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_of_another_version_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    ended = start("--port", "0", "--data-dir", str(tmp_path))
    assert (ended.returncode, "newer grotte" in ended.stderr) == (1, True)
    (tmp_path / "state.sqlite").write_bytes(b"nonsense" * 1000)
    ended = start("--port", "0", "--data-dir", str(tmp_path))
    assert (ended.returncode, "cannot be used" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("key", ["", "idempotency-key: some\r\n"])
def test_a_client_that_leaves_during_create_leaves_no_sandbox(tmp_path: Path, key: str) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        host, port = wire.base_url.host, wire.base_url.port
        body = b'{"templateID":"base"}'
        head = f"POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n{key}\r\n"
        for number in range(5):
            with socket.create_connection((host, port)) as sock:
                sock.sendall(head.replace("some", f"some-{number}").encode() + body)
                time.sleep(0.02)
        wait_until(lambda: (tmp_path / "data.log").read_text().count("event=ended") == 5, "a sandbox was left")
        assert wire.get("/v2/sandboxes").json() == []


def test_a_client_that_leaves_does_not_take_along_what_another_one_asked_for_too(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        body = b'{"templateID":"base"}'
        head = (
            f"POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n"
            "idempotency-key: shared\r\n\r\n"
        )
        with (
            ThreadPoolExecutor(1) as pool,
            socket.create_connection((wire.base_url.host, wire.base_url.port)) as leaver,
        ):
            leaver.sendall(head.encode() + body)
            time.sleep(0.01)
            headers = {"idempotency-key": "shared"}
            stayer = pool.submit(wire.post, "/v2/sandboxes", json={"templateID": "base"}, headers=headers)
            time.sleep(0.01)
            leaver.close()
            made = stayer.result().json()["sandboxID"]
        assert wire.get(f"/sandboxes/{made}").status_code == 200
        # the one that left had its own made and ended if it was faster: what lives is what was answered
        wait_until(
            lambda: [one["sandboxID"] for one in wire.get("/v2/sandboxes").json()] == [made], "something else lives"
        )


def test_creates_with_one_key_at_the_same_time_make_one_sandbox(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:

        def create(_: int) -> str:
            headers = {"idempotency-key": "same"}
            made = httpx.post(
                f"{running.url}/v2/sandboxes",
                json={"templateID": "base"},
                headers=headers | {"x-api-key": KEY},
                timeout=30,
            )
            return str(made.json()["sandboxID"])

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(create, range(8)))) == 1
        assert len(wire.get("/v2/sandboxes").json()) == 1


def test_a_sandbox_that_dies_is_gone(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        before = set(children(running.process.pid))
        assert before
        for pid in descendants(running.process.pid):
            if os.path.basename(command_line(pid).split(b"\0")[0]) == b"bwrap":
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: wire.get(f"/sandboxes/{box.id}").status_code == 404, "the dead sandbox is still listed")
        assert wire.get("/health", headers=box.headers).status_code == 502


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# -- on demand ---------------------------------------------------------------------------------------------------

CLIENT = """
import json, os, sys, time
from grotte import _local
while not _local.hold_lease():
    time.sleep(0.05)
address = _local.read_address()
if address is None:
    while (lock := _local.try_exclusive(_local.start_lock())) is None:
        time.sleep(0.05)
    if (address := _local.read_address()) is None:
        engine = _local.spawn_engine()
        with open(engine.ready_fd) as ready:
            answer = json.loads(ready.read() or '{"error": "no answer"}')
        assert "error" not in answer, answer
        assert answer["pid"] == engine.pid, (answer["pid"], engine.pid)
        address = _local.read_address()
    _local.release(lock)
print(json.dumps([address.url, address.api_key, address.pid]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose engine on demand nobody else finds."""
    (tmp_path / "run").mkdir(mode=0o700)
    own = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path), "GROTTE_ENGINE_IDLE_SECONDS": "1"}
    return environment() | own


def client(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_programs_share_one_engine_which_leaves_after_them(runtime: dict[str, str], tmp_path: Path) -> None:
    programs = [client(runtime) for _ in range(3)]
    try:
        addresses = [json.loads(program.stdout.readline()) for program in programs if program.stdout]
        url, key, pid = addresses[0]
        assert addresses == [[url, key, pid]] * 3
        published = tmp_path / "run/grotte/engine.json"
        assert stat.S_IMODE(published.stat().st_mode) == 0o600
        programs[0].kill()
        with Wire(url, key) as wire:
            box = Box(wire, wire.create())
            for program in programs:
                program.kill()
            time.sleep(2.5)
            assert alive(pid), "the engine left a sandbox alone"
            assert box.sh("echo hi").stdout == b"hi\n"
            wire.delete(f"/sandboxes/{box.id}")
        wait_until(lambda: not alive(pid), "the engine stayed though nobody needs it")
        assert not published.exists()
        assert (tmp_path / "grotte/local/state.sqlite").exists()
    finally:
        for program in programs:
            program.kill()
            program.communicate()


def test_the_reason_for_not_starting_goes_to_the_ready_descriptor(runtime: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir):
        ready, tell = os.pipe()
        command = [*ON_DEMAND, "--ready-fd", str(tell), "--data-dir", str(data_dir)]
        ended = subprocess.run(command, env=runtime, pass_fds=[tell], capture_output=True, timeout=60)
        os.close(tell)
        with open(ready) as told:
            message = json.loads(told.read())
    assert ended.returncode == 1
    assert "another engine uses the data directory" in message["error"]


@pytest.mark.parametrize("spoil", ["link", "open", "file"])
def test_a_runtime_directory_that_others_could_use_is_refused(
    runtime: dict[str, str], tmp_path: Path, spoil: str
) -> None:
    directory = tmp_path / "run/grotte"
    if spoil == "link":
        directory.symlink_to(tmp_path)
    elif spoil == "open":
        directory.mkdir()
        directory.chmod(0o755)
    else:
        directory.write_text("")
    code = "from grotte import _local; _local.runtime_dir()"
    ended = subprocess.run([sys.executable, "-c", code], env=runtime, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "EngineUnavailableException" in ended.stderr


def test_a_runtime_directory_that_cannot_be_used_is_told_too(runtime: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run/grotte").write_text("")
    ready, tell = os.pipe()
    command = [*ON_DEMAND, "--ready-fd", str(tell), "--data-dir", str(tmp_path / "data")]
    ended = subprocess.run(command, env=runtime, pass_fds=[tell], capture_output=True, timeout=60)
    os.close(tell)
    with open(ready) as told:
        assert "is not a directory" in json.loads(told.read())["error"]
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr


def test_a_thousand_cheap_calls_leave_nothing_open(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire, wire.box() as box:
        box.sh("true")

        def files() -> int:
            return len(os.listdir(f"/proc/{running.process.pid}/fd"))

        before = files()

        def work(_: int) -> None:
            with Wire(running.url, KEY) as own:
                mine = Box(own, box.answer)
                for _ in range(10):
                    assert mine.sh("echo x", stdin=True).stdout == b"x\n"
                    mine.put_file("/tmp/x", b"x")
                    mine.get_file("/tmp/x")
                    mine.get_file("/nope")
                    mine.put_file("/tmp", b"x")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: files() <= before + 1, "descriptors were left open")


def test_serve_needs_no_key_and_prints_what_to_export(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as running, Wire(running.url, running.api_key) as wire:
        assert running.api_key.startswith("grt_")
        assert wire.get("/v2/sandboxes").json() == []


def test_only_so_many_sandboxes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom grotte.engine.serve import ServeOptions, serve\n"
        "sys.exit(serve(ServeOptions(port=0, data_dir=pathlib.Path(sys.argv[1]), api_keys=('grt_life',),"
        " max_sandboxes=2, domain='example.org')))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            url = read_exports(process, tmp_path)["GROTTE_API_URL"]
            with Wire(url, KEY) as wire:
                with wire.box() as first, wire.box():
                    assert first.answer["domain"] == "example.org"
                    refused = wire.post("/v2/sandboxes", json={"templateID": "base"})
                    assert "at most 2" in check_error(refused, 429)["message"]
                    assert refused.headers["should-retry"] == "false"
                with wire.box(autoPause=True, autoResume={"enabled": True}) as asleep:
                    assert wire.post(f"/sandboxes/{asleep.id}/pause").status_code == 204
                    with wire.box(), wire.box():
                        for headers in (asleep.headers, {"host": f"8000-{asleep.id}.example.org"}):
                            refused = wire.get("/health", headers=headers)
                            assert check_error(refused, 429)["sandboxId"] == asleep.id
                    assert wire.get("/health", headers=asleep.headers).status_code == 204
        finally:
            process.terminate()
            assert process.wait(20) == 0
