"""What an engine finds in its data directory, and what of it is not to be trusted; what it forgets in time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grotte.engine.builds.catalogue import Catalogue
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.store import MEMORY, Store
from tests.engine.test_lifecycle import KEY, engine, start
from tests.engine.test_restart import crash, folders
from tests.engine.wire import Box, Wire


def refusal(data_dir: Path) -> str:
    """Why no engine starts there."""
    ended = start("--port", "0", "--data-dir", str(data_dir))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A data directory with a sandbox, whose engine was killed."""
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        Box(wire, wire.create()).put_file("/home/user/x", b"kept")
        crash(running)
    return tmp_path / "data"


def test_a_damaged_database_removes_nothing(left: Path) -> None:
    before, state = folders(left), left / "state.sqlite"
    with sqlite3.connect(state) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = state.read_bytes()
    for spoiled in (
        content[:4096] + b"\x99" * 8192 + content[12288:],
        content[:3000],
        b"nonsense" * 1000,
    ):
        state.write_bytes(spoiled)
        for log in left.glob("state.sqlite-*"):
            log.unlink()
        assert f"the database {state} cannot be used" in refusal(left)
        assert folders(left) == before
    state.write_bytes(content)
    with engine(left) as running, Wire(running.url, KEY) as wire:
        (found,) = wire.get("/v2/sandboxes", params={"state": "paused"}).json()
        assert folders(left) == {found["sandboxID"]}


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_database_that_is_gone_takes_nothing_along(left: Path, how: str) -> None:
    before = folders(left)
    for file in left.glob("state.sqlite*"):
        file.unlink()
    if how == "empty":
        (left / "state.sqlite").touch()
    assert "is missing or empty" in refusal(left)
    assert folders(left) == before


def test_a_directory_that_is_moved_while_an_engine_uses_it_loses_nothing(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        (tmp_path / "data").rename(tmp_path / "moved")
        assert box.put_file("/home/user/x", b"kept").status_code == 200
        with wire.box() as other:
            assert other.sh("echo hi").stdout == b"hi\n"
        assert wire.post(f"/sandboxes/{box.id}/snapshots", json={}).status_code == 201
        assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        assert running.stop() == 0
    assert "Traceback" not in (tmp_path / "data.log").read_text()
    with engine(tmp_path / "moved") as running, Wire(running.url, KEY) as wire:
        box.wire = wire
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert box.get_file("/home/user/x").content == b"kept"


def test_the_log_of_the_database_may_be_cut_off(left: Path) -> None:
    log = left / "state.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-5000])
    with engine(left) as running, Wire(running.url, KEY) as wire:
        assert wire.get("/v2/sandboxes").status_code == 200


def test_files_of_what_was_over_by_then_go_at_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        over, kept = Box(wire, wire.create()), Box(wire, wire.create())
        crash(running)
    with sqlite3.connect(data_dir / "state.sqlite") as database:
        database.execute("UPDATE sandboxes SET end_at = 1 WHERE id = ?", (over.id,))
    database.close()
    with engine(data_dir):
        assert folders(data_dir) == {kept.id}


def test_what_ended_long_ago_is_forgotten_while_the_engine_runs(tmp_path: Path) -> None:
    old, new = (time.time_ns() // 1000 - age * 1_000_000 for age in (MEMORY + 60, MEMORY - 60))
    with Store(tmp_path / "state.sqlite") as store:
        for name, at in (("old", old), ("new", new)):
            store.database.execute(
                "INSERT INTO sandboxes (id, owner, template, state, started_at, end_at, ended_at, metadata, envs)"
                " VALUES (?, '', '', 'ended', 0, 0, ?, '{}', '{}')",
                (name, at),
            )
            store.database.execute("INSERT INTO idempotency VALUES ('', ?, x'', x'', ?)", (name, at))
        store.forget_old()
        for column, table in (("id", "sandboxes"), ("key", "idempotency")):
            assert store.database.execute(f"SELECT {column} FROM {table}").fetchall() == [("new",)]


def test_a_build_is_ready_with_its_tags_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "state.sqlite") as store:
        catalogue = Catalogue(store.database)
        template = catalogue.add_template("owner", "name")
        build = catalogue.add_build(template.id, ["a", "b"], Setup())
        catalogue.set_building(build.id)
        store.database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON tags WHEN new.tag = 'b' BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
        with pytest.raises(sqlite3.Error, match="disk full"):
            catalogue.set_ready(build)
        found = catalogue.build(build.id)
        assert found is not None
        assert found.status == "building"
        assert catalogue.tags(template.id) == []
        store.database.execute("DROP TRIGGER full")
        catalogue.set_ready(build)
        assert [row.tag for row in catalogue.tags(template.id)] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "x"], "'x' is not a whole number"),
        (["--spares", "-1"], "-1 is not a number of spares"),
        (["--disk-mib", "1.5"], "'1.5' is not a whole number"),
        (["--api-key", ""], "a key is printable ASCII"),
        (["--api-key", " secret"], "a key is printable ASCII"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], said: str) -> None:
    ended = start(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "secret" not in ended.stderr


def test_an_address_that_nobody_can_read_is_told(tmp_path: Path) -> None:
    command = ["--port", "0", "--data-dir", str(tmp_path / "data")]
    with open("/dev/full", "w") as full:
        ended = start(*command, stdout=full)
    assert ended.returncode == 1
    assert "cannot be written to stdout: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_log_of_an_engine_on_demand_stays_small(tmp_path: Path) -> None:
    code = (
        "import logging\nfrom grotte.engine.ondemand import ShortLog\n"
        "logging.basicConfig(handlers=[ShortLog(1000)], format='%(message)s')\n"
        "for number in range(500): logging.warning('event=line number=%d', number)"
    )
    with (tmp_path / "log").open("a+") as log:
        subprocess.run([sys.executable, "-c", code], stderr=log, check=True, timeout=60)
        log.seek(0)
        lines = log.read().splitlines()
    assert len("\n".join(lines)) <= 1000
    last = [f"event=line number={number}" for number in range(500)]
    assert lines == last[-len(lines) :]
    assert len(lines) > 10


def test_a_directory_that_is_gone_is_no_place_to_depend_on(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    command = ["sh", "-c", script, str(tmp_path / "gone")]
    with engine(tmp_path / "data", become=command) as running, Wire(running.url, KEY) as wire, wire.box() as box:
        assert box.sh("true").end["exited"]
        assert subprocess.run(["readlink", f"/proc/{running.process.pid}/cwd"], capture_output=True).stdout == b"/\n"
