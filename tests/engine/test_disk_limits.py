"""What clients see of sandboxes that hold more of the disk than they may, and of an engine whose disk is full."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import KEY
from tests.engine.test_logs import logs
from tests.engine.test_metrics import history
from tests.engine.wire import Box, Wire, check_error, check_rpc_error
from tests.support.engine import running_engine

MIB = 1 << 20
SIZE = 24
PATIENCE = 60.0


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    place: Path = tmp_path_factory.mktemp("limited") / "data"
    options = ("--disk-mib", str(SIZE), "--disk-reserve-mib", "0")
    with running_engine(place, "--api-key", KEY, *options) as engine, Wire(engine.url, KEY) as wire:
        yield wire


@pytest.fixture
def full(limited: Wire) -> Iterator[Box]:
    """A sandbox that has written more than it may."""
    with limited.box() as box:
        end = box.sh("cat /dev/zero > ~/zeros").end
        assert end["status"] == "signal: killed"
        assert (
            end["error"] == f"signal: killed (disk limit: this sandbox holds more than {SIZE} MiB: remove some of it)"
        )
        yield box


def test_everything_says_why(full: Box) -> None:
    refused = full.sh("true").error
    assert refused["code"] == "resource_exhausted"
    assert refused["message"].startswith("disk limit: ")
    assert "disk limit" in check_error(full.put_file("/home/user/f", b"x"), 507)["message"]
    assert "disk limit" in check_rpc_error(full.fs("MakeDir", path="/home/user/d"), 429, "resource_exhausted")
    (entry,) = [entry for entry in logs(full) if entry["level"] == "error"]
    assert entry["message"].startswith("disk limit: ")
    time.sleep(1.1)  # a younger sample would be given again
    sample = history(full)[-1]
    assert sample["diskUsed"] > sample["diskTotal"] == SIZE * MIB
    assert "grotte_disk_stops_total" in full.wire.get("/metrics").text


def test_files_can_be_fetched_and_removed(full: Box) -> None:
    assert full.fs("Stat", path="/home/user/zeros").status_code == 200
    assert len(full.get_file("/home/user/zeros", range="bytes=0-9").content) == 10
    assert full.fs("Remove", path="/home/user/zeros").status_code == 200
    deadline = time.monotonic() + PATIENCE
    while "error" in full.sh("true").end_of_stream:  # a look that is very young is not repeated
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert full.put_file("/home/user/f", b"x").status_code == 200


def test_an_upload_that_does_not_fit(limited: Wire) -> None:
    with limited.box() as box:
        assert box.put_file("/home/user/f", b"before").status_code == 200
        check_error(box.put_file("/home/user/f", bytes((SIZE + 8) * MIB)), 507)
        assert box.get_file("/home/user/f").content == b"before"
        assert box.sh("ls -A ~ | grep -c -v '^.bash\\|^.profile'").stdout == b"1\n"


def test_a_paused_one_stays_full(full: Box) -> None:
    for body in ({}, {"memory": False}):
        assert full.wire.post(f"/sandboxes/{full.id}/pause", json=body).status_code == 204
        assert full.wire.post(f"/sandboxes/{full.id}/connect", json={"timeout": 60}).status_code in (200, 201)
    deadline = time.monotonic() + PATIENCE
    while "error" not in full.sh("true").end_of_stream:  # a fresh guest is measured soon
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_size_is_shown(limited: Wire) -> None:
    with limited.box() as box:
        assert limited.get(f"/sandboxes/{box.id}").json()["diskSizeMB"] == SIZE
        assert limited.get("/default-templates").json()[0]["diskSizeMB"] == SIZE


def test_an_engine_whose_disk_is_full_takes_nothing_in(tmp_path: Path) -> None:
    options = ("--api-key", KEY, "--disk-reserve-mib", str(1 << 24))
    with running_engine(tmp_path / "data", *options) as engine, Wire(engine.url, KEY) as wire:
        deadline = time.monotonic() + PATIENCE
        while (answer := wire.post("/v2/sandboxes", json={"templateID": "base"})).status_code == 201:
            assert time.monotonic() < deadline
            wire.delete(f"/sandboxes/{answer.json()['sandboxID']}")
        assert "not enough disk space available" in check_error(answer, 503)["message"]
        assert answer.headers["retry-after"]
        volume = wire.post("/volumes", json={"name": "v"}).json()
        token = {"authorization": f"Bearer {volume['token']}"}
        place = f"/volumecontent/{volume['volumeID']}/file"
        check_error(wire.put(place, params={"path": "/f"}, content=b"x", headers=token), 507)
        assert wire.get("/v2/sandboxes").json() == []
