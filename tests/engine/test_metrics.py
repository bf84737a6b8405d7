"""What sandboxes use: over time, at this moment, of many at once, and as their daemon tells it."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from grotte.engine.host import usage
from grotte.engine.host.standalone import disks
from grotte.engine.host.standalone.usage import add_up
from grotte.engine.lifecycle.metering import KEPT, History, Sample
from tests.engine.background import Background
from tests.engine.wire import OTHER_KEY, Box, Wire, check_error
from tests.support.engine import running_engine

FIELDS = {
    "timestamp": str,
    "timestampUnix": int,
    "cpuCount": int,
    "cpuUsedPct": float,
    "memUsed": int,
    "memTotal": int,
    "memCache": int,
    "diskUsed": int,
    "diskTotal": int,
}
MIB = 1024 * 1024
NO_DISKS = disks.why_not(os.getuid() == 0)


def history(box: Box, **query: int) -> list[dict[str, Any]]:
    answer = box.wire.get(f"/sandboxes/{box.id}/metrics", params=query)
    assert answer.status_code == 200, answer.text
    samples: list[dict[str, Any]] = answer.json()
    return samples


def test_a_sample_has_all_fields(box: Box) -> None:
    sample = history(box)[-1]
    assert {name: type(value) for name, value in sample.items()} == FIELDS
    assert datetime.fromisoformat(sample["timestamp"]).timestamp() == pytest.approx(sample["timestampUnix"], abs=1)
    detail = box.wire.get(f"/sandboxes/{box.id}").json()
    assert sample["cpuCount"] == detail["cpuCount"]
    assert sample["memTotal"] == detail["memoryMB"] * MIB
    assert 0 < sample["memUsed"] < sample["memTotal"]
    assert 0 < sample["diskUsed"] < sample["diskTotal"]


def test_memory_and_processor_show(wire: Wire) -> None:
    with wire.box() as box:
        before = history(box)[-1]
        eater = "x = bytearray(200 << 20); open('/tmp/full', 'w')\nwhile True: pass"
        process = Background(box, f'exec python3 -c "{eater}"')
        while box.fs("Stat", path="/tmp/full").status_code != 200:
            time.sleep(0.05)
        time.sleep(1.1)  # a younger sample would be given again
        after = history(box)[-1]
        process.signal()
    assert after["memUsed"] - before["memUsed"] > 150 * MIB
    assert after["cpuUsedPct"] > 1


def test_cached_files_are_not_used_memory(wire: Wire) -> None:
    with wire.box() as box:
        box.sh("head -c 200000000 /dev/zero > /home/user/big; cat /home/user/big >/dev/null")
        for _ in range(10):
            if history(box)[-1]["memUsed"] < 150 * MIB:
                return
            time.sleep(1.1)  # the kernel's counts of pages follow its count of bytes a little later
    raise AssertionError("files in the kernel's cache are counted as used")


def test_a_span_of_time_is_chosen(box: Box) -> None:
    now = int(time.time())
    assert history(box, start=now + 3600) == []
    assert history(box, end=now - 3600) == []
    assert history(box, start=now - 3600, end=now + 5) == history(box)


@pytest.mark.parametrize("query", ["start=x", "end=-1", "start=1.5", "start=5&end=4", "end=", f"start={'9' * 30}"])
def test_spans_that_make_no_sense(box: Box, query: str) -> None:
    check_error(box.wire.get(f"/sandboxes/{box.id}/metrics?{query}"), 400)


def test_many_at_once(wire: Wire, box: Box) -> None:
    gone = "i" + "z" * 20
    with wire.box() as second:
        answer = wire.get("/sandboxes/metrics", params={"sandbox_ids": f"{box.id},{second.id},{gone}"})
        assert answer.status_code == 200
        found = answer.json()["sandboxes"]
        apart = wire.get("/sandboxes/metrics", params={"sandbox_ids": [box.id, second.id]})
        assert set(apart.json()["sandboxes"]) == set(found)
    assert set(found) == {box.id, second.id}
    assert {name: type(value) for name, value in found[box.id].items()} == FIELDS


@pytest.mark.parametrize("ids", ["", "nope", ",".join(["i" + "a" * 20] * 101), "../x"])
def test_many_that_make_no_sense(wire: Wire, ids: str) -> None:
    check_error(wire.get("/sandboxes/metrics", params={"sandbox_ids": ids}), 400)


def test_metrics_of_others_are_not_shown(wire: Wire, box: Box) -> None:
    with Wire(str(wire.base_url), OTHER_KEY) as stranger:
        check_error(stranger.get(f"/sandboxes/{box.id}/metrics"), 404)
        assert stranger.get("/sandboxes/metrics", params={"sandbox_ids": box.id}).json() == {"sandboxes": {}}


def test_a_sandbox_that_is_gone(wire: Wire) -> None:
    with wire.box() as box:
        pass
    check_error(wire.get(f"/sandboxes/{box.id}/metrics"), 404)


def test_a_paused_sandbox_shows_what_it_used(wire: Wire) -> None:
    with wire.box() as box:
        before = history(box)
        assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        assert history(box)[: len(before)] == before
        assert wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60}).status_code == 201
        time.sleep(1.1)
        assert len(history(box)) > len(before)


def test_the_daemon_tells_the_same(box: Box) -> None:
    answer = box.wire.get("/metrics", headers=box.headers)
    assert answer.status_code == 200
    told = answer.json()
    names = {"ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache", "mem_total_mib", "mem_used_mib"}
    assert set(told) == names | {"disk_used", "disk_total"}
    sample = history(box)[-1]
    assert told["mem_total"] == sample["memTotal"]
    assert told["mem_total_mib"] == told["mem_total"] // MIB
    without_token = {name: value for name, value in box.headers.items() if name != "x-access-token"}
    check_error(box.wire.get("/metrics", headers=without_token), 401)


# -- the parts -----------------------------------------------------------------------------------------------------


def write(group: Path, **files: str) -> str:
    group.mkdir()
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)
    return str(group)


def test_version_1_of_cgroups(tmp_path: Path) -> None:
    stat = "cache 1\ntotal_cache 400\ntotal_shmem 100\n"
    memory = write(tmp_path / "memory", memory__usage_in_bytes="1000\n", memory__stat=stat)
    assert usage.of_groups([memory]) is None
    cpu = write(tmp_path / "cpuacct", cpuacct__usage="2500000000\n")
    assert usage.of_groups([memory, cpu]) == usage.Usage(2.5, 700, 300)


def test_version_2_of_cgroups(tmp_path: Path) -> None:
    files = {"memory__current": "1000\n", "memory__stat": "anon 5\nfile 400\nshmem 100\n"}
    group = write(tmp_path / "g", cpu__stat="usage_usec 2500000\nuser_usec 1\n", **files)
    assert usage.of_groups([group]) == usage.Usage(2.5, 700, 300)
    assert usage.of_groups([]) is None
    assert usage.of_groups([str(tmp_path / "nothing")]) is None


def test_processes_are_added_up() -> None:
    before = add_up()
    ballast = bytearray(64 * MIB)
    ballast[::4096] = b"x" * (len(ballast) // 4096)
    after = add_up()
    assert after["cpu"] >= 0
    assert after["memory"] - before["memory"] > 16 * MIB
    assert ballast


def test_a_history_is_bounded() -> None:
    kept = History()
    for number in range(5 * KEPT):
        kept.add(Sample(float(number), 0.5, number, 2, 3, 4))
    samples = list(kept)
    assert len(samples) == KEPT
    assert samples[-1] == Sample(5 * KEPT - 1.0, 0.5, 5 * KEPT - 1, 2, 3, 4) == kept.last
    assert [int(sample.at) for sample in samples] == list(range(4 * KEPT, 5 * KEPT))


@pytest.mark.skipif(bool(NO_DISKS), reason=NO_DISKS)
def test_a_disk_of_its_own(tmp_path: Path) -> None:
    with (
        running_engine(tmp_path / "data", "--api-key", "k", "--disk-mib", "64", "--own-disks") as engine,
        Wire(engine.url, "k") as wire,
    ):
        with wire.box() as box:
            before = history(box)[-1]
            assert 40 * MIB < before["diskTotal"] <= 64 * MIB
            box.sh("head -c 20000000 /dev/urandom > ~/f; sync")
            time.sleep(1.1)
            assert history(box)[-1]["diskUsed"] - before["diskUsed"] > 15_000_000
