"""How builds end before their time, and what goes when nobody needs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import KEY
from tests.engine.templates.building import Build, Templates, archive, copy, run
from tests.engine.test_lifecycle import wait_until
from tests.support.engine import Engine, running_engine

DIGEST = "a" * 64
LONG = run("echo under way; sleep 1000")


@contextmanager
def serving(data_dir: Path, *options: str) -> Iterator[tuple[Engine, Templates]]:
    with running_engine(data_dir, "--api-key", KEY, *options) as engine, Templates(engine.url, KEY) as templates:
        yield engine, templates


def layers(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "host/layers").iterdir()}


def sandboxes(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "host/sandboxes").iterdir()}


def under_way(templates: Templates, name: str) -> Build:
    build = templates.request_build(name)
    build.start(steps=[run("echo one"), LONG])
    wait_until(lambda: "under way" in build.messages(), "the build does not begin")
    return build


def test_a_build_whose_template_is_deleted_leaves_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (_, templates):
        build = under_way(templates, "cancelled")
        assert layers(data_dir)
        assert sandboxes(data_dir)
        assert templates.delete("/templates/cancelled").status_code == 204
        assert (layers(data_dir), sandboxes(data_dir)) == (set(), set())
        assert templates.get(f"{build.path}/status").status_code == 404


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_build_ends_with_its_engine(tmp_path: Path, how: str) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (engine, templates):
        build = under_way(templates, "interrupted")
        waiting = templates.request_build("interrupted")
        if how == "kill":
            engine.process.kill()
            engine.process.wait()
        else:
            assert engine.stop() == 0
    with serving(data_dir) as (_, templates):
        build, waiting = (Build(templates, b.template, b.build) for b in (build, waiting))
        status = build.status()
        assert status["status"] == "error"
        assert status["reason"]["step"] == "base"
        assert "under way" in build.messages()
        assert sandboxes(data_dir) == set()
        waiting.start(steps=[run("echo one")])
        assert waiting.wait()["status"] == "ready"
        assert "CACHED [1/1] RUN echo one" in waiting.messages()
        assert templates.delete("/templates/interrupted").status_code == 204
        assert layers(data_dir) == set()


def test_the_build_goes_on_when_its_client_leaves(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (engine, templates):
        build = templates.request_build("patient")
        with Templates(engine.url, KEY) as other:
            Build(other, build.template, build.build).start(steps=[run("sleep 1; echo done")])
        assert build.wait()["status"] == "ready"


def test_layers_go_with_the_last_that_needs_them(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (engine, templates):
        templates.build("one", run("echo shared"), run("echo one"))
        templates.build("two", run("echo shared"), run("echo two"))
        shared = layers(data_dir)
        assert len(shared) == 3
        templates.build("one", run("echo shared"), run("echo other"))
        wait_until(lambda: len(layers(data_dir)) == 3, "layers of the build before, which is nobody's now, were kept")
        assert templates.delete("/templates/one").status_code == 204
        assert len(layers(data_dir)) == 2
        with templates.box(templateID="two") as box:
            before = layers(data_dir)
            templates.build("two", run("echo new"))
            assert layers(data_dir) > before  # a sandbox stands on what no tag means
            taken = templates.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
        wait_until(lambda: len(layers(data_dir)) == 4, "layers of a snapshot or of nobody")
        engine.process.kill()
        engine.process.wait()
    with serving(data_dir) as (_, templates):
        assert len(layers(data_dir)) == 4
        with templates.box(templateID=taken) as box:
            assert box.sh("echo alive").stdout == b"alive\n"
        assert templates.delete(f"/templates/{taken}").status_code == 204
        assert len(layers(data_dir)) == 1
        assert templates.delete("/templates/two").status_code == 204
        assert layers(data_dir) == set()


def test_a_paused_sandbox_keeps_its_build_over_a_restart(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (engine, templates):
        templates.build("paused", run("echo first > /tmp/x"))
        made = templates.create(templateID="paused")
        templates.post(f"/sandboxes/{made['sandboxID']}/pause", json={"memory": False})
        templates.build("paused", run("echo second > /tmp/x"))
        engine.process.kill()
        engine.process.wait()
    with serving(data_dir) as (_, templates):
        assert templates.post(f"/v2/sandboxes/{made['sandboxID']}/connect", json={}).status_code == 201
        headers = {"e2b-sandbox-id": made["sandboxID"], "x-access-token": made["envdAccessToken"]}
        answer = templates.get("/files?path=/tmp/x", headers=headers | {"e2b-sandbox-port": "49983"})
        assert answer.content == b"first\n"


def test_files_are_uploaded_once_and_outlive_the_engine(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (_, templates):
        build = templates.request_build("files")
        templates.upload(build.template, DIGEST, archive(("a", b"a")))
        (data_dir / "contexts/left.part").write_bytes(b"x")
    with serving(data_dir) as (_, templates):
        assert templates.get(f"/templates/files/files/{DIGEST}").json()["present"] is True
        assert not (data_dir / "contexts/left.part").exists()
        templates.build("files", copy("a", "/a", digest=DIGEST))


def test_many_builds_at_once_share_what_they_have_in_common(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as (_, templates):
        builds = [templates.request_build(f"many{number}") for number in range(8)]
        started = time.monotonic()
        for number, build in enumerate(builds):
            build.start(steps=[run(f"sleep 0.2; echo {number} > /tmp/n")])
        assert time.monotonic() - started < 60
        for number, build in enumerate(builds):
            assert build.wait()["status"] == "ready"
            with templates.box(templateID=f"many{number}") as box:
                assert box.sh("cat /tmp/n").stdout == b"%d\n" % number


def test_a_step_writes_no_more_than_a_sandbox_may(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir, "--disk-mib", "64", "--own-disks") as (_, templates):
        templates.build("bounded", run("head -c 1000000 /dev/zero > ~/small"), run("echo x > ~/x"))
        reason = templates.failure("full", run("cat /dev/zero > ~/zeros"))
        assert (reason["step"], "No space left on device" in reason["message"]) == ("1", True)
        with templates.box(templateID="bounded") as box:
            assert box.sh("stat -c %s ~/small; cat ~/x").stdout == b"1000000\nx\n"
        assert len(layers(data_dir)) == 2


def test_debian_is_made_of_packages_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nothing can be reached
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(tmp_path / "data") as (_, templates):
        reason = templates.failure("debian", fromTemplate="debian")
        assert reason["step"] == "base"
        assert "template 'debian'" in reason["message"]
        assert "packages, which could not be had" in reason["message"] or "apt-get install" in reason["message"]
