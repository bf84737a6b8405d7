"""The engine's own numbers, as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.engine.test_lifecycle import KEY, engine
from tests.engine.wire import OTHER_KEY, Box, Wire, check_error, first_message

LINE = re.compile(r'(?P<name>[a-z_]+)(\{(?P<labels>[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*)\})? (?P<value>[0-9]+)')


def numbers(wire: Wire) -> dict[str, int]:
    answer = wire.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, int] = {}
    announced: set[str] = set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            announced.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match, line
            assert match["name"] in announced
            found[f"{match['name']}{{{match['labels'] or ''}}}"] = int(match["value"])
    return found


def test_sandboxes_and_requests_are_counted(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as alone, Wire(alone.url, KEY) as wire:  # nothing that others do is counted
        before = numbers(wire)
        with wire.box() as box:
            box.put_file("/tmp/x", bytes(100_000))
            with wire.box() as second:
                wire.post(f"/sandboxes/{second.id}/pause")
                during = numbers(wire)
                wire.get(f"/sandboxes/i{'z' * 20}")
            command = {"process": {"cmd": "/bin/sleep", "args": ["50"]}}
            with box.apart() as apart, apart.open("Start", command) as answer:
                opened = first_message(answer)  # holds the stream, which ends when nobody does
                streaming = numbers(wire)
                assert opened
        after = numbers(wire)

    def grown(name: str, then: dict[str, int]) -> int:
        return then.get(name, 0) - before.get(name, 0)

    assert grown('grotte_sandboxes{state="running"}', during) == 1
    assert grown('grotte_sandboxes{state="paused"}', during) == 1
    assert grown("grotte_processes{}", streaming) >= 1
    assert after["grotte_websockets_active{}"] == 0
    assert grown('grotte_requests_active{method="POST"}', streaming) >= 1
    assert grown("grotte_sandboxes_created_total{}", after) == 2
    assert grown("grotte_sandboxes_ended_total{}", after) == 2
    assert grown('grotte_requests_total{route="/v2/sandboxes",status="2xx"}', after) == 2
    assert grown('grotte_requests_total{route="/sandboxes/{id}",status="4xx"}', after) == 1
    assert grown('grotte_requests_total{route="/files",status="2xx"}', after) == 1
    assert grown('grotte_body_bytes_total{direction="in"}', after) >= 100_000


def test_what_clients_make_up_is_no_label(wire: Wire) -> None:
    wire.get("/made/up")
    wire.request("BREW", "/v2/sandboxes")
    text = wire.get("/metrics").text
    assert "made" not in text
    assert "BREW" not in text


def test_who_may_read_them(wire: Wire, box: Box) -> None:
    for key, status in ((None, 401), ("grt_wrong", 401), (OTHER_KEY, 403)):
        with Wire(str(wire.base_url), key) as stranger:
            check_error(stranger.get("/metrics"), status)
    bearer = {"authorization": f"Bearer {wire.headers['x-api-key']}"}
    with Wire(str(wire.base_url), None) as scraper:
        assert scraper.get("/metrics", headers=bearer).status_code == 200
    assert "cpu_count" in box.wire.get("/metrics", headers=box.headers).json()
