"""What happened in and to a sandbox, as its owner can read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from grotte.engine.journal import KEPT_COST, KEPT_ENDED, PER_SANDBOX, Journal, Journals
from tests.engine.wire import OTHER_KEY, Box, Wire, check_error

SECRET = "s3cret-w0rd"


def logs(box: Box, **query: object) -> list[dict[str, Any]]:
    answer = box.wire.get(f"/v2/sandboxes/{box.id}/logs", params={"direction": "forward"} | query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["logs"]
    return entries


def messages(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["message"] for entry in entries]


def millis(entry: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(entry["timestamp"]).timestamp() * 1000)


@pytest.fixture
def busy(wire: Wire) -> Any:
    """A sandbox with a past."""
    with wire.box(envVars={"TOKEN": SECRET}) as box:
        box.start("/bin/true", envs={"PASSWORD": SECRET})
        box.sh(f"echo {SECRET}; echo trouble >&2; exit 3")
        wire.post(f"/sandboxes/{box.id}/pause")
        wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60})
        yield box


def test_the_life_of_a_sandbox(busy: Box) -> None:
    entries = logs(busy)
    assert all(set(entry) == {"timestamp", "level", "message", "fields"} for entry in entries)
    first, second = (entry["fields"]["pid"] for entry in entries[1:5:2])
    assert messages(entries) == [
        "sandbox created",
        f"process {first} started: /bin/true",
        f"process {first} ended: exit status 0",
        f"process {second} started: /bin/sh",
        f"process {second} ended: exit status 3",
        "sandbox paused",
        "sandbox resumed",
    ]
    assert entries[0]["fields"] == {"template": "base"}
    assert entries[2]["fields"] == {"pid": first, "status": "exit status 0"}
    assert (entries[4]["level"], entries[4]["fields"]["stderr"]) == ("warn", "trouble\n")
    assert SECRET not in str(entries)
    assert busy.token is not None
    assert busy.token not in str(entries)


def test_ways_to_read(busy: Box) -> None:
    entries = logs(busy)
    assert busy.wire.get(f"/v2/sandboxes/{busy.id}/logs").json()["logs"] == entries[::-1]
    assert logs(busy, limit=2) == entries[:2]
    assert logs(busy, direction="backward", limit=2) == entries[:-3:-1]
    assert logs(busy, level="warn") == [entry for entry in entries if entry["level"] == "warn"]
    assert logs(busy, level="debug") == entries
    assert logs(busy, search="ended") == [entry for entry in entries if "ended" in entry["message"]]
    assert logs(busy, search="nothing like it") == []
    middle = millis(entries[3])
    assert logs(busy, cursor=middle) == [entry for entry in entries if millis(entry) >= middle]
    assert logs(busy, cursor=middle, direction="backward") == [e for e in entries[::-1] if millis(e) <= middle]


def test_the_older_way_to_read(busy: Box) -> None:
    entries = logs(busy)
    shown = busy.wire.get(f"/sandboxes/{busy.id}/logs").json()
    assert shown["logEntries"] == entries
    assert shown["logs"] == [{"timestamp": e["timestamp"], "line": e["message"]} for e in entries]
    later = busy.wire.get(f"/sandboxes/{busy.id}/logs", params={"start": millis(entries[5]), "limit": 1}).json()
    assert len(later["logs"]) == 1
    assert later["logEntries"][0] in entries[3:6]


def test_the_end_can_be_read_about(wire: Wire) -> None:
    with wire.box() as box:
        pass
    assert messages(logs(box)) == ["sandbox created", "sandbox ended"]


def test_the_end_of_time_can_be_read_about(wire: Wire) -> None:
    with wire.box() as box:
        wire.post(f"/sandboxes/{box.id}/timeout", json={"timeout": 0})
        while wire.get(f"/sandboxes/{box.id}").status_code == 200:
            pass
        assert messages(logs(box))[-2:] == ["time to live is over", "sandbox ended"]


@pytest.mark.parametrize(
    "query",
    ["limit=1001", "limit=-1", "limit=x", "cursor=-1", "direction=up", "level=loud", f"search={'x' * 257}", "cursor="],
)
def test_questions_that_make_no_sense(box: Box, query: str) -> None:
    check_error(box.wire.get(f"/v2/sandboxes/{box.id}/logs?{query}"), 400)


def test_logs_of_others(box: Box, wire: Wire) -> None:
    with Wire(str(wire.base_url), OTHER_KEY) as stranger:
        for path in (f"/sandboxes/{box.id}/logs", f"/v2/sandboxes/{box.id}/logs"):
            check_error(stranger.get(path), 404)
    check_error(wire.get(f"/v2/sandboxes/i{'z' * 20}/logs"), 404)


def test_a_journal_is_bounded_and_in_order() -> None:
    journal = Journal()
    for number in range(10_000):
        journal.add("info", f"{number} " + "x" * 100_000)
    entries = list(journal)
    assert sum(entry.cost for entry in entries) <= PER_SANDBOX
    assert entries[-1].message.startswith("9999 ")
    times = [entry.at for entry in entries]
    assert times == sorted(set(times))


def test_journals_of_ended_sandboxes_are_bounded() -> None:
    journals = Journals()
    for number in range(KEPT_ENDED + 10):
        journals.begin(str(number), "owner", Journal())
        journals.end(str(number))
    assert journals.find("9", "owner") is None
    assert journals.find("10", "owner") is not None
    assert journals.find("10", "other") is None


def test_journals_of_ended_sandboxes_are_bounded_together() -> None:
    journals = Journals()
    kept: list[Journal] = []
    for number in range(200):
        kept.append(Journal())
        for _ in range(100):
            kept[-1].add("info", "x" * 4000)
        journals.begin(str(number), "owner", kept[-1])
        journals.end(str(number))
    found = [journal for number, journal in enumerate(kept) if journals.find(str(number), "owner")]
    assert found == kept[-len(found) :]
    assert KEPT_COST - PER_SANDBOX <= sum(journal.cost for journal in found) <= KEPT_COST
