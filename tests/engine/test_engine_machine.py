"""The whole engine as a state machine: any order of calls, crashes among them, against a model of a few lines."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from tests.engine.background import Background, running
from tests.engine.test_lifecycle import KEY, engine
from tests.engine.test_restart import crash
from tests.engine.wire import Box, Wire, check_error
from tests.support.census import Census, left_since, take_census
from tests.support.engine import Engine

NAMES = st.sampled_from(["a", "b", "dir/c", "dir/deeper/d"])
CONTENT = st.binary(max_size=200)
MOST = 5
#: In one run of the machine: each takes seconds.
MOST_CRASHES = 2
TTL = 3600


class Server:
    """The engine that all runs of the machine share; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.stack = ExitStack()
        self.start()
        self.census: Census = take_census(self.data_dir)

    def start(self) -> None:
        self.engine: Engine = self.stack.enter_context(engine(self.data_dir))
        self.wire: Wire = self.stack.enter_context(Wire(self.engine.url, KEY))

    def restart(self) -> None:
        crash(self.engine)
        self.stack.close()
        self.start()


@dataclass
class Known:
    """What the model knows of one sandbox."""

    box: Box
    files: dict[str, bytes]
    stands_on: frozenset[str]
    paused: bool = False
    pids: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Snapshot:
    """What the model knows of one snapshot; `stands_on` names it and those below it."""

    reference: str
    files: dict[str, bytes]
    stands_on: frozenset[str]


BASE = Snapshot("base", {}, frozenset())


class EngineMachine(RuleBasedStateMachine):
    """Sandboxes, their files and processes, and snapshots, beside what the engine says of them."""

    server: ClassVar[Server]
    boxes: Bundle[Known] = Bundle("boxes")
    snapshots: Bundle[Snapshot] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[Known] = []
        self.all: list[Known] = []
        self.references: list[str] = []
        self.crashes = 0

    @property
    def wire(self) -> Wire:
        return self.server.wire

    def known(self, answer: dict[str, Any], source: Snapshot | Known) -> Known:
        known = Known(Box(self.wire, answer), dict(source.files), source.stands_on)
        self.alive.append(known)
        self.all.append(known)
        return known

    def awake(self, known: Known) -> bool:
        return known in self.alive and not known.paused

    @precondition(lambda self: len(self.alive) < MOST)
    @rule(target=boxes)
    def create(self) -> Known:
        return self.known(self.wire.create(timeout=TTL), BASE)

    @precondition(lambda self: len(self.alive) < MOST)
    @rule(target=boxes, snapshot=snapshots)
    def create_from(self, snapshot: Snapshot) -> Known:
        if snapshot is not BASE and snapshot.reference not in self.references:
            check_error(self.wire.post("/v2/sandboxes", json={"templateID": snapshot.reference}), 404)
            snapshot = BASE
        return self.known(self.wire.create(templateID=snapshot.reference, timeout=TTL), snapshot)

    @rule(known=boxes, name=NAMES, content=CONTENT)
    def write(self, known: Known, name: str, content: bytes) -> None:
        answer = known.box.put_file(name, content)
        assert answer.status_code == (200 if self.awake(known) else 502)
        if self.awake(known):
            known.files[name] = content

    @rule(known=boxes, name=NAMES)
    def read(self, known: Known, name: str) -> None:
        answer = known.box.get_file(name)
        if not self.awake(known):
            assert answer.status_code == 502
        elif name in known.files:
            assert (answer.status_code, answer.content) == (200, known.files[name])
        else:
            check_error(answer, 404)

    @rule(known=boxes, name=NAMES)
    def remove_by_command(self, known: Known, name: str) -> None:
        if self.awake(known):
            assert known.box.start("/bin/rm", "-f", name).end["exited"]
            known.files.pop(name, None)

    @rule(known=boxes)
    def run_in_the_background(self, known: Known) -> None:
        if self.awake(known):
            known.pids.add(Background(known.box, "exec sleep 1000").pid)

    @rule(known=boxes)
    def look_at_processes(self, known: Known) -> None:
        if self.awake(known):
            assert {process["pid"] for process in running(known.box)} == known.pids

    @rule(known=boxes)
    def pause(self, known: Known) -> None:
        answer = self.wire.post(f"/sandboxes/{known.box.id}/pause")
        if known not in self.alive:
            check_error(answer, 404)
        elif known.paused:
            check_error(answer, 409)
        else:
            assert answer.status_code == 204
            known.paused = True

    @rule(known=boxes)
    def connect(self, known: Known) -> None:
        answer = self.wire.post(f"/sandboxes/{known.box.id}/connect", json={"timeout": TTL})
        if known not in self.alive:
            check_error(answer, 404)
        else:
            assert answer.status_code == (201 if known.paused else 200)
            known.paused = False

    @rule(known=boxes)
    def kill(self, known: Known) -> None:
        answer = self.wire.delete(f"/sandboxes/{known.box.id}")
        assert answer.status_code == (204 if known in self.alive else 404)
        self.forget(known)

    @rule(known=boxes)
    def expire(self, known: Known) -> None:
        if not self.awake(known):
            return
        assert self.wire.post(f"/sandboxes/{known.box.id}/timeout", json={"timeout": 0}).status_code == 204
        until = time.monotonic() + 20
        while self.wire.get(f"/sandboxes/{known.box.id}").status_code != 404:
            assert time.monotonic() < until, "a sandbox outlived its time"
            time.sleep(0.02)
        self.forget(known)

    @precondition(lambda self: len(self.references) < MOST)
    @rule(target=snapshots, known=boxes)
    def snapshot(self, known: Known) -> Snapshot:
        answer = self.wire.post(f"/sandboxes/{known.box.id}/snapshots", json={})
        if known not in self.alive:
            check_error(answer, 404)
            return BASE
        assert answer.status_code == 201, answer.text
        reference = answer.json()["snapshotID"]
        self.references.append(reference)
        return Snapshot(reference, dict(known.files), known.stands_on | {reference})

    @rule(snapshot=snapshots)
    def delete_snapshot(self, snapshot: Snapshot) -> None:
        answer = self.wire.delete(f"/templates/{snapshot.reference}")
        if any(snapshot.reference in known.stands_on for known in self.alive) or snapshot is BASE:
            check_error(answer, 400)
        elif snapshot.reference in self.references:
            assert answer.status_code == 204, answer.text
            self.references.remove(snapshot.reference)
        else:
            check_error(answer, 404)

    @precondition(lambda self: len(self.alive) < MOST)
    @rule(target=boxes, known=boxes)
    def fork(self, known: Known) -> Known:
        answer = self.wire.post(f"/sandboxes/{known.box.id}/fork", json={"timeout": TTL})
        if known not in self.alive:
            check_error(answer, 404)
            return known
        assert answer.status_code == 201, answer.text
        return self.known(answer.json()[0]["sandbox"], known)

    @precondition(lambda self: self.alive and self.crashes < MOST_CRASHES)
    @rule()
    def crash(self) -> None:
        self.crashes += 1
        self.server.restart()
        for known in self.all:
            known.box.wire = self.wire
            known.paused = True
            known.pids.clear()

    def forget(self, known: Known) -> None:
        if known in self.alive:
            self.alive.remove(known)

    @invariant()
    def the_list_is_the_models(self) -> None:
        for state in ("running", "paused"):
            listed = {entry["sandboxID"] for entry in self.wire.get(f"/v2/sandboxes?state={state}").json()}
            assert listed == {known.box.id for known in self.alive if known.paused == (state == "paused")}

    def teardown(self) -> None:
        for entry in self.wire.get("/v2/sandboxes?state=running,paused").json():
            self.wire.delete(f"/sandboxes/{entry['sandboxID']}")
        for entry in self.wire.get("/snapshots").json():
            self.wire.delete(f"/templates/{entry['snapshotID']}")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="machine-"))
    EngineMachine.server = Server(folder)
    with EngineMachine.server.stack:
        yield EngineMachine.server
    left = left_since(EngineMachine.server.census, EngineMachine.server.data_dir)
    shutil.rmtree(folder)
    assert left == {}


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=10, stateful_step_count=25, suppress_health_check=list(HealthCheck))
