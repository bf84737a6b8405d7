"""Sandboxes that are paused: what they keep, who finds them, what wakes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.engine.background import Background
from tests.engine.wire import Box, Wire, check_error
from tests.support.census import groups_of

COUNTING = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; done"


def count(box: Box) -> int:
    return int(box.sh("cat /tmp/count").stdout or b"0")


def states(wire: Wire, query: str = "") -> dict[str, str]:
    return {listed["sandboxID"]: listed["state"] for listed in wire.get(f"/v2/sandboxes{query}").json()}


def gone(box: Box) -> bool:
    answer = box.wire.get("/health", headers=box.headers)
    return (answer.status_code, answer.json()["message"]) == (502, "The sandbox was not found")


def test_processes_and_memory_survive_a_pause(wire: Wire) -> None:
    with wire.box(timeout=60) as box:
        kept = Background(box, "x=kept; sleep 1000 & wait; true")
        assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        assert gone(box)
        answer = wire.post(f"/v2/sandboxes/{box.id}/connect", json={})
        assert answer.status_code == 201
        assert answer.json()["envdAccessToken"] == box.token
        assert kept.signal("SIGNAL_SIGTERM").status_code == 200


def test_nothing_runs_while_it_is_paused(wire: Wire) -> None:
    with wire.box() as box:
        Background(box, COUNTING)
        while not count(box):
            pass
        wire.post(f"/sandboxes/{box.id}/pause")
        processor = cpu_of(box.id)
        time.sleep(0.3)
        assert cpu_of(box.id) == processor
        wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60})
        seen = count(box)
        while count(box) <= seen:
            pass


def cpu_of(sandbox_id: str) -> list[str]:
    """What the processes of a sandbox have used of a processor."""
    pids = {pid for group in groups_of(sandbox_id) for pid in (group / "cgroup.procs").read_text().split()}
    assert len(pids) > 1
    return sorted(" ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]) for pid in pids)


def test_pause_says_what_was_there(wire: Wire) -> None:
    with wire.box() as box:
        assert wire.post(f"/sandboxes/{box.id}/pause", json={"requireHealthyGuest": True}).status_code == 204
        check_error(wire.post(f"/sandboxes/{box.id}/pause", json={"requireHealthyGuest": True}), 409)
        assert wire.get(f"/sandboxes/{box.id}").json()["state"] == "paused"
        check_error(wire.post(f"/sandboxes/{box.id}/timeout", json={"timeout": 60}), 404)
        check_error(wire.post(f"/sandboxes/{box.id}/refreshes", json={}), 404)
        check_error(wire.put(f"/sandboxes/{box.id}/network", json={"allow_internet_access": False}), 409)
        assert wire.post(f"/sandboxes/{box.id}/resume", json={"timeout": 60}).status_code == 201
        check_error(wire.post(f"/sandboxes/{box.id}/resume"), 409)
        assert wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60}).status_code == 200
        assert box.sh("echo hi").stdout == b"hi\n"


def test_unknown_and_others_sandboxes_cannot_be_paused(wire: Wire) -> None:
    for call in ("pause", "resume"):
        check_error(wire.post(f"/sandboxes/{'i' + '0' * 20}/{call}"), 404)


def test_the_list_tells_states_apart(wire: Wire) -> None:
    with wire.box() as running, wire.box() as paused:
        wire.post(f"/sandboxes/{paused.id}/pause")
        assert {running.id: "running", paused.id: "paused"}.items() <= states(wire).items()
        assert paused.id not in states(wire, "?state=running")
        assert set(states(wire, "?state=paused").values()) == {"paused"}
        answer = wire.get("/v2/sandboxes?state=running%2Cpaused")
        assert int(answer.headers["x-total-running"]) == list(states(wire).values()).count("running")
        assert paused.id not in {listed["sandboxID"] for listed in wire.get("/sandboxes").json()}


def test_a_paused_sandbox_can_be_killed(wire: Wire) -> None:
    box = Box(wire, wire.create())
    wire.post(f"/sandboxes/{box.id}/pause")
    assert wire.delete(f"/sandboxes/{box.id}").status_code == 204
    check_error(wire.get(f"/sandboxes/{box.id}"), 404)
    check_error(wire.post(f"/v2/sandboxes/{box.id}/connect", json={}), 404)


def test_at_the_end_of_its_time_it_is_paused_if_so_wanted(wire: Wire) -> None:
    with wire.box(timeout=1, autoPause=True) as box:
        detail = wire.get(f"/sandboxes/{box.id}").json()
        assert detail["lifecycle"] == {"autoResume": False, "onTimeout": "pause"}
        wait_for_pause(wire, box)
        assert gone(box)
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert box.sh("echo hi").stdout == b"hi\n"


def wait_for_pause(wire: Wire, box: Box) -> None:
    for _ in range(1000):
        if wire.get(f"/sandboxes/{box.id}").json()["state"] == "paused":
            return
        time.sleep(0.05)
    raise AssertionError("it was not paused")


def test_the_next_request_resumes_it_if_so_wanted(wire: Wire) -> None:
    with wire.box(timeout=60, autoPause=True, autoResume={"enabled": True}) as box:
        box.put_file("/tmp/x", b"kept")
        wire.post(f"/sandboxes/{box.id}/pause")
        stranger = box.headers | {"x-access-token": "wrong"}
        assert wire.post("/process.Process/List", json={}, headers=stranger).status_code == 401
        assert states(wire)[box.id] == "paused"
        assert box.get_file("/tmp/x").content == b"kept"
        assert states(wire)[box.id] == "running"
        assert seconds_left(wire, box) > 200  # five minutes, however short its life was to be


def seconds_left(wire: Wire, box: Box) -> float:
    end = datetime.fromisoformat(wire.get(f"/sandboxes/{box.id}").json()["endAt"])
    return (end - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("timeout", [400, 1000])
def test_a_request_gives_it_its_own_time_if_that_is_longer(wire: Wire, timeout: int) -> None:
    with wire.box(timeout=timeout, autoPause=True, autoResume={"enabled": True}) as box:
        wire.post(f"/sandboxes/{box.id}/pause")
        assert wire.get("/health", headers=box.headers).status_code == 204
        assert timeout - 60 < seconds_left(wire, box) <= timeout


def test_no_request_starts_it_anew(wire: Wire) -> None:
    """What was paused without its memory loses its processes: not because anybody looked at one of its ports."""
    with wire.box(timeout=60, autoPause=True, autoResume={"enabled": True}) as box:
        assert wire.post(f"/sandboxes/{box.id}/pause", json={"memory": False}).status_code == 204
        assert gone(box)
        assert states(wire)[box.id] == "paused"
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        assert wire.get("/health", headers=box.headers).status_code == 204


def test_without_its_memory_it_keeps_its_files(wire: Wire) -> None:
    with wire.box() as box:
        assert box.sh("echo kept > ~/file; rm -rf ~/.bashrc").stdout == b""
        Background(box, "sleep 1000")
        assert wire.post(f"/sandboxes/{box.id}/pause", json={"memory": False}).status_code == 204
        assert wire.get(f"/sandboxes/{box.id}").json()["pauseMode"] == "filesystem"
        assert gone(box)
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert box.rpc("process.Process/List").json() == {}
        assert box.sh("cat ~/file; ls ~/.bashrc 2>/dev/null").stdout == b"kept\n"


def test_at_the_end_of_its_time_it_may_keep_its_files_alone(wire: Wire) -> None:
    with wire.box(timeout=1, autoPause=True, autoPauseMemory=False) as box:
        box.put_file("/tmp/x", b"kept")
        Background(box, "sleep 1000")
        wait_for_pause(wire, box)
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        assert box.rpc("process.Process/List").json() == {}
        assert box.get_file("/tmp/x").content == b"kept"


@pytest.mark.parametrize("call", ["v2/sandboxes/{}/connect", "sandboxes/{}/connect", "sandboxes/{}/resume"])
def test_a_resume_without_memory_starts_anew(wire: Wire, call: str) -> None:
    with wire.box() as box:
        box.put_file("/tmp/x", b"kept")
        Background(box, "sleep 1000")
        assert "pauseMode" not in wire.get(f"/sandboxes/{box.id}").json()
        assert wire.post(f"/sandboxes/{box.id}/pause", json={"memory": True}).status_code == 204
        assert wire.get(f"/sandboxes/{box.id}").json()["pauseMode"] == "full"
        answer = wire.post("/" + call.format(box.id), json={"timeout": 60, "memory": False})
        assert answer.status_code == 201
        assert answer.json()["envdAccessToken"] == box.token
        assert box.rpc("process.Process/List").json() == {}
        assert box.get_file("/tmp/x").content == b"kept"


def test_without_memory_means_nothing_to_what_runs(wire: Wire) -> None:
    with wire.box() as box:
        process = Background(box, "sleep 1000")
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={"memory": False}).status_code == 200
        assert process.signal().status_code == 200


@pytest.mark.parametrize("memory", ["false", 0, {}])
def test_memory_is_true_or_false(wire: Wire, box: Box, memory: object) -> None:
    for call in ("sandboxes/{}/pause", "sandboxes/{}/connect", "v2/sandboxes/{}/connect", "sandboxes/{}/resume"):
        check_error(wire.post("/" + call.format(box.id), json={"timeout": 300, "memory": memory}), 400)
    check_error(wire.post(f"/sandboxes/{box.id}/resume", json={"autoPause": "yes"}), 400)
    check_error(wire.post(f"/sandboxes/{box.id}/pause", json={"requireHealthyGuest": memory}), 400)
    check_error(wire.post(f"/sandboxes/{box.id}/snapshots", json={"memory": memory}), 400)
    assert wire.get(f"/sandboxes/{box.id}").json()["state"] == "running"


@pytest.mark.parametrize("fields", [{"autoPauseMemory": False}])
def test_senseless_wishes_are_refused(wire: Wire, fields: dict[str, object]) -> None:
    check_error(wire.post("/v2/sandboxes", json={"templateID": "base"} | fields), 400)
