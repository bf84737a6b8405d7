"""What the engine stands on is killed, and it stands up again; whoever stops it may do so twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from grotte.engine.host import freezer
from grotte.engine.lifecycle import lasting as tasks
from grotte.engine.lifecycle.store import Store
from tests.engine.test_lifecycle import KEY, children, command_line, descendants, engine, traces, wait_until
from tests.engine.test_restart import folders
from tests.engine.test_spares import engine as parts_of
from tests.engine.wire import Box, Wire
from tests.support.census import groups_of
from tests.support.engine import Engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the engine's own event loop


def launcher_of(running: Engine) -> int:
    (pid,) = (pid for pid in children(running.process.pid) if b"launcher" in command_line(pid))
    return pid


def kill_launcher(running: Engine, wire: Wire) -> None:
    """Kill what holds the sandboxes, and wait for the next one."""
    before = launcher_of(running)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: command_line(before) == b"" and has_one(running), "no launcher was started")
    wait_until(lambda: listed(wire), "the engine does not answer any more")


def has_one(running: Engine) -> bool:
    return any(b"launcher" in command_line(pid) for pid in children(running.process.pid))


def listed(wire: Wire) -> bool:
    try:
        answer = wire.get("/v2/sandboxes", params={"state": "running,paused"})
    except httpx.TransportError:
        return False
    if answer.status_code == 503:
        assert answer.headers["should-retry"] == "true"
        assert answer.headers["retry-after"] == "1"
    return answer.is_success


def test_a_launcher_that_is_killed_takes_no_files_along(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        boxes = [Box(wire, wire.create(metadata={"n": str(number)})) for number in range(3)]
        for box in boxes:
            box.put_file("/home/user/x", box.id.encode())
        assert wire.post(f"/sandboxes/{boxes[0].id}/pause").status_code == 204
        assert wire.delete(f"/sandboxes/{boxes[2].id}").status_code == 204
        for _ in range(2):
            kill_launcher(running, wire)
            found = wire.get("/v2/sandboxes", params={"state": "running,paused"}).json()
            assert {one["sandboxID"]: one["state"] for one in found} == {box.id: "paused" for box in boxes[:2]}
            for box in boxes[:2]:
                assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).status_code == 201
                assert box.get_file("/home/user/x").content == box.id.encode()
                assert box.sh("echo $((6 * 7))").stdout == b"42\n"
        with wire.box() as new:
            assert new.sh("true").end["exited"]
        assert running.process.poll() is None
        assert running.stop() == 0
        assert folders(data_dir) == set()
    log = (tmp_path / "data.log").read_text()
    assert log.count("event=launcher_lost") == 2
    assert "Traceback" not in log
    assert traces(boxes[0].id, data_dir) == []


def test_streams_of_a_lost_launcher_end(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        with box.apart() as own, own.open("Start", {"process": {"cmd": "/bin/sleep", "args": ["100"]}}) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            os.kill(launcher_of(running), signal.SIGKILL)
            assert b'"code":"unavailable"' in b"".join(chunks)


def test_too_many_falls_end_the_engine_with_the_reason(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        box = Box(wire, wire.create())
        for _ in range(4):
            kill_launcher(running, wire)
        os.kill(launcher_of(running), signal.SIGKILL)
        assert running.process.wait(30) == 1
        assert "was killed 5 times" in (tmp_path / "data.log").read_text()
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire:
        assert wire.get(f"/sandboxes/{box.id}").json()["state"] == "paused"


def test_a_paused_sandbox_that_loses_its_memory_keeps_its_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        boxes = [Box(wire, wire.create()) for _ in range(2)]
        for box in boxes:
            box.put_file("/home/user/x", b"kept")
            assert wire.post(f"/sandboxes/{box.id}/pause").status_code == 204
        for pid in descendants(running.process.pid):
            if os.path.basename(command_line(pid).split(b"\0")[0]) == b"bwrap":
                os.kill(pid, signal.SIGKILL)
        for box in boxes:  # what version 1 has frozen dies when it is thawed, as the kernel does when it needs memory
            for group in groups_of(box.id):
                if freezer.group_of([str(group)]):
                    freezer.release(str(group))
        log = tmp_path / "data.log"
        wait_until(lambda: log.read_text().count("event=died ") == 2, "the engine did not notice")
        assert wire.post(f"/v2/sandboxes/{boxes[0].id}/connect", json={}).status_code == 201
        assert boxes[0].get_file("/home/user/x").content == b"kept"
        assert wire.get(f"/sandboxes/{boxes[1].id}").json()["state"] == "paused"
        for box in boxes:
            assert wire.delete(f"/sandboxes/{box.id}").status_code == 204
        assert folders(data_dir) & {box.id for box in boxes} == set()
        assert "Traceback" not in log.read_text()


def everybody(running: Engine) -> list[int]:
    return [running.process.pid, *descendants(running.process.pid)]


def twice(running: Engine) -> list[int]:
    return [running.process.pid] * 2


@pytest.mark.parametrize(
    ("who", "number"),
    [(everybody, signal.SIGTERM), (twice, signal.SIGTERM), (twice, signal.SIGINT), (twice, signal.SIGHUP)],
)
def test_stops_that_reach_many_or_come_twice_are_clean(
    tmp_path: Path, who: Callable[[Engine], list[int]], number: signal.Signals
) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        paused, ended = Box(wire, wire.create()), Box(wire, wire.create())
        paused.put_file("/home/user/x", b"kept")
        assert wire.post(f"/sandboxes/{paused.id}/pause").status_code == 204
        for pid in who(running):
            os.kill(pid, number)
        assert running.process.wait(30) == 0
    assert folders(data_dir) == {paused.id}
    assert "Traceback" not in (tmp_path / "data.log").read_text()
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        assert wire.post(f"/v2/sandboxes/{paused.id}/connect", json={}).status_code == 201
        paused.wire = wire
        assert paused.get_file("/home/user/x").content == b"kept"
        assert wire.get(f"/sandboxes/{ended.id}").status_code == 404


def test_a_launcher_that_is_told_to_stop_waits_for_its_engine(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire, wire.box() as box:
        before = launcher_of(running)
        os.kill(before, signal.SIGTERM)
        assert box.sh("echo hi").stdout == b"hi\n"
        with wire.box() as other:
            assert other.sh("echo hi").stdout == b"hi\n"
        assert launcher_of(running) == before


def test_whoever_hangs_up_on_nohup_is_not_heard(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as other:
        command = [str(word) for word in other.process.args] if isinstance(other.process.args, list) else []
    with subprocess.Popen(
        ["nohup", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as ignoring:
        assert ignoring.stdout is not None
        ignoring.stdout.readline()
        os.kill(ignoring.pid, signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            ignoring.wait(0.5)
        ignoring.terminate()
        assert ignoring.wait(30) == 0


class BrokenError(Exception):
    """What nobody has thought of."""


async def test_an_error_in_the_engine_ends_no_sandbox(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with pytest.raises(BaseExceptionGroup) as caught:
        async with parts_of(data_dir) as parts:
            running, paused = [await parts.create() for _ in range(2)]
            await parts.registry.pause(paused)
            raise BrokenError
    assert caught.group_contains(BrokenError)
    assert folders(data_dir) == {running.sandbox_id, paused.sandbox_id}
    with Store(data_dir / "state.sqlite") as store:
        store.recover()
        assert {row.id for row in store.paused()} == folders(data_dir)


async def test_a_task_begins_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "REST", 0.0)
    begun = 0
    done = anyio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise BrokenError
        done.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(tasks.lasting, work)
        with anyio.fail_after(10):
            await done.wait()
        group.cancel_scope.cancel()
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_snapshots_that_stood_on_each_other_go_together(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        ids, box = [], Box(wire, wire.create())
        for _ in range(3):
            made = wire.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
            ids.append(made)
            box = Box(wire, wire.create(templateID=made))
        assert wire.delete(f"/sandboxes/{box.id}").status_code == 204
        layers = data_dir / "host/layers"
        for made in ids[:2]:
            assert wire.delete(f"/templates/{made}").status_code in (204, 400)
        for one in wire.get("/v2/sandboxes").json():
            wire.delete(f"/sandboxes/{one['sandboxID']}")
        for made in ids[:2]:
            wire.delete(f"/templates/{made}")
        assert len(list(layers.iterdir())) == 3
        assert wire.delete(f"/templates/{ids[2]}").status_code == 204
        assert list(layers.iterdir()) == []


def test_an_upload_into_a_sandbox_that_goes_is_told_so(tmp_path: Path) -> None:
    with engine(tmp_path / "data") as running, Wire(running.url, KEY) as wire, Wire(running.url, KEY) as other:
        box = Box(wire, wire.create())

        def body() -> Iterator[bytes]:
            yield bytes(2 << 20)
            assert other.delete(f"/sandboxes/{box.id}").status_code == 204
            for _ in range(64):
                yield bytes(1 << 20)

        headers = box.headers | {"content-type": "application/octet-stream"}
        answer = wire.post("/files", params={"path": "/home/user/x"}, content=body(), headers=headers)
        assert answer.status_code == 502
        assert "not found" in answer.json()["message"]
        assert folders(tmp_path / "data") & {box.id} == set()
