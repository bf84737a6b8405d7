"""Engines that were killed or stopped, and what the next one finds."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

from tests.engine.background import Background
from tests.engine.test_lifecycle import KEY, descendants, engine, traces, wait_until
from tests.engine.wire import Box, Wire, check_error
from tests.support.engine import Engine

FIELDS = {"metadata": {"a": "b"}, "envVars": {"FOO": "bar"}}


def crash(running: Engine) -> None:
    """Kill the engine as hard as can be, and wait until its sandboxes have gone with it."""
    family = descendants(running.process.pid)
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "a process outlived its engine")


def folders(data_dir: Path) -> set[str]:
    return {path.name for path in data_dir.glob("host/sandboxes/*")}


def test_after_a_kill_what_ran_is_paused_with_its_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        key = {"idempotency-key": "again"}
        first = wire.post("/v2/sandboxes", json={"templateID": "base"} | FIELDS, headers=key).json()
        box = Box(wire, first)
        assert box.put_file("/home/user/x", b"kept").status_code == 200
        assert box.sh("mkdir ~/d; ln -s x ~/d/l; rm -rf ~/.bashrc").stdout == b""
        Background(box, "sleep 1000")
        crash(running)
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        box.wire = wire
        assert folders(data_dir) == {box.id}
        detail = wire.get(f"/sandboxes/{box.id}").json()
        assert (detail["state"], detail["metadata"]) == ("paused", {"a": "b"})
        for headers in (box.headers, {"x-access-token": str(box.token)}):
            answer = wire.get("/health", headers=headers)
            assert (answer.status_code, answer.json()["message"]) == (502, "The sandbox was not found")
        answer = wire.post(f"/v2/sandboxes/{box.id}/connect", json={})
        assert (answer.status_code, answer.json()) == (201, first)
        assert box.get_file("/home/user/x").content == b"kept"
        assert box.sh("cat ~/x; readlink ~/d/l; ls ~/.bashrc 2>/dev/null; echo $FOO").stdout == b"keptx\nbar\n"
        assert box.rpc("process.Process/List").json() == {}
        assert wire.post("/v2/sandboxes", json={"templateID": "base"} | FIELDS, headers=key).json() == first
        assert wire.delete(f"/sandboxes/{box.id}").status_code == 204
    assert traces(box.id, data_dir) == []


def test_a_paused_sandbox_outlives_kill_and_stop(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        box.put_file("/home/user/x", b"kept")
        Background(box, "sleep 1000")
        assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        crash(running)
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        assert wire.get(f"/sandboxes/{box.id}").json()["state"] == "paused"
        wire.post(f"/v2/sandboxes/{box.id}/connect", json={})
        wire.post(f"/sandboxes/{box.id}/pause")
        assert running.stop() == 0
    assert folders(data_dir) == {box.id}
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        box.wire = wire
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert box.get_file("/home/user/x").content == b"kept"
        wire.post(f"/sandboxes/{box.id}/pause", json={"memory": False})
        assert wire.delete(f"/sandboxes/{box.id}").status_code == 204
        assert folders(data_dir) & {box.id} == set()
    assert traces(box.id, data_dir) == []


def test_what_was_killed_or_never_told_is_reclaimed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        killed, kept = Box(wire, wire.create()), Box(wire, wire.create())
        assert wire.delete(f"/sandboxes/{killed.id}").status_code == 204
        wait_until(lambda: len(folders(data_dir)) == 3, "there are no spares")
        crash(running)
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        assert folders(data_dir) == {kept.id}
        check_error(wire.get(f"/sandboxes/{killed.id}"), 404)
        wait_until(lambda: not list(data_dir.glob("host/trash/*")), "the trash was not emptied")


def test_what_was_over_by_then_is_over(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        over, paused = Box(wire, wire.create(timeout=2)), Box(wire, wire.create(timeout=2, autoPause=True))
        os.kill(running.process.pid, signal.SIGSTOP)
        wait_until(lambda: is_past(data_dir), "time stood still")
        crash(running)
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        check_error(wire.get(f"/sandboxes/{over.id}"), 404)
        assert wire.get(f"/sandboxes/{paused.id}").json()["state"] == "paused"


def is_past(data_dir: Path) -> bool:
    with sqlite3.connect(f"file:{data_dir}/state.sqlite?mode=ro", uri=True) as database:
        ((end_at,),) = database.execute("SELECT max(end_at) FROM sandboxes").fetchall()
    database.close()
    return bool(end_at < time.time_ns() // 1000)
