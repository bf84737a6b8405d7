"""Start commands: what runs in every sandbox of a template before anybody has it."""

from __future__ import annotations

import time

from tests.engine.background import running
from tests.engine.templates.building import Templates, run, step
from tests.engine.wire import Box, check_error

SERVER = "echo started >> /tmp/starts; exec python3 -m http.server 8000"
READY = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))'"


def commands(box: Box) -> list[str]:
    return [entry["config"]["args"][-1] for entry in running(box)]


def test_every_sandbox_has_its_server_from_the_first_moment(templates: Templates) -> None:
    build = templates.build("server", step("ENV", "A", "b"), step("WORKDIR", "/srv"), startCmd=SERVER, readyCmd=READY)
    assert f"start: {SERVER}; ready: {READY}" in build.messages()
    for number in range(4):  # the first is launched, others are spares
        with templates.box(templateID="server") as box:
            answer = templates.get("/tmp/starts", headers=box.headers | {"e2b-sandbox-port": "8000"})
            assert answer.status_code == 404  # it serves its working directory
            assert answer.headers["server"].startswith("SimpleHTTP"), number
            assert commands(box) == [SERVER]
            # once when it was built, once here
            assert box.sh("cat /tmp/starts").stdout == b"started\nstarted\n"
            (process,) = running(box)
            shown = box.sh(f"tr '\\0' '\\n' < /proc/{process['pid']}/environ; readlink /proc/{process['pid']}/cwd")
            assert b"A=b\n" in shown.stdout
            assert f"E2B_SANDBOX_ID={box.id}\n".encode() in shown.stdout
            assert shown.stdout.endswith(b"/srv\n")


def test_what_is_written_until_it_is_ready_is_kept(templates: Templates) -> None:
    templates.build(
        "filled", startCmd="echo x > ~/filled; sleep 1000", readyCmd="test -s ~/filled && echo seen > /tmp/y"
    )
    with templates.box(templateID="filled") as box:
        assert box.sh("cat ~/filled /tmp/y").stdout == b"x\nseen\n"


def test_a_template_without_a_server_may_wait_once(templates: Templates) -> None:
    templates.build("once", readyCmd="echo x >> ~/asked; test $(wc -l < ~/asked) = 3")
    with templates.box(templateID="once") as box:
        assert box.sh("cat ~/asked").stdout == b"x\n" * 3
        assert commands(box) == []


def test_it_starts_again_in_copies_and_after_a_boot(templates: Templates) -> None:
    templates.build("again", startCmd="echo started >> ~/starts; sleep 1000", readyCmd="test -s ~/starts")
    templates.build("above", run("rm ~/starts"), fromTemplate="again")
    with templates.box(templateID="above") as box:
        wait_for_line(box, 2)
        assert templates.post(f"/sandboxes/{box.id}/pause", json={"memory": False}).status_code == 204
        assert templates.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
        wait_for_line(box, 3)
        taken = templates.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
    with templates.box(templateID=taken) as box:
        wait_for_line(box, 4)
    assert templates.delete(f"/templates/{taken}").status_code == 204


def wait_for_line(box: Box, count: int) -> None:
    deadline = time.monotonic() + 60
    while box.sh("cat ~/starts").stdout != b"started\n" * count:
        assert time.monotonic() < deadline, box.sh("cat ~/starts").stdout


def test_a_start_command_that_fails_fails_the_build(templates: Templates) -> None:
    reason = templates.failure("broken", startCmd="echo why >&2; exit 4", readyCmd="echo asked; false")
    assert reason["step"] == "finalize"
    assert "ended with exit status 4 before it was ready" in reason["message"]
    assert "asked" in reason["message"]


def test_a_start_command_that_fails_later_fails_the_creation(templates: Templates) -> None:
    templates.build(
        "later",
        startCmd="test ! -e ~/flag && touch ~/flag && sleep 1000",
        readyCmd="test -e ~/flag && pgrep -f 'sleep 1000'",
    )
    answer = templates.post("/v2/sandboxes", json={"templateID": "later"})
    assert "before it was ready" in check_error(answer, 500)["message"]
