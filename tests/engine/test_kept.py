"""What the engine keeps of requests, processes and sandboxes that are over: nothing, and without a garbage collector.

Cycles of objects would wait for the collector, which comes seldom, with megabytes of output in their hands; those that
lead through the server's own futures it would never find.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterator

import pytest

from grotte.engine.http import Event, Request
from tests.engine.background import Background
from tests.engine.test_lifecycle import KEY
from tests.engine.wire import Box, Wire, first_message
from tests.support.counting import ask, counted
from tests.support.engine import Engine, running_engine

ROUNDS = 50
SANDBOXES = 5
PATIENCE = 20.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("counted")
    arguments = ("--api-key", KEY, "--spares", "0")
    with running_engine(folder / "data", *arguments, become=counted(folder / "counts")) as running:
        yield running


@pytest.fixture(params=["http1", "http2"])
def wire(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Wire]:
    with Wire(engine.url, KEY, http2=request.param == "http2") as client:
        yield client


def now(engine: Engine) -> dict[str, int]:
    """What it holds while it answers nobody: a request is over a moment after its answer."""
    end = time.monotonic() + PATIENCE
    while (found := ask(engine.process, engine.data_dir.with_name("counts")))["Request"] and time.monotonic() < end:
        time.sleep(0.1)
    assert not found["Request"], found
    return found


def check_same(engine: Engine, before: dict[str, int]) -> None:
    """Everything is as before, soon: what a sandbox was made of goes a moment after it."""
    end = time.monotonic() + PATIENCE
    while (after := now(engine)) != before and time.monotonic() < end:
        time.sleep(0.1)
    assert after == before


def test_requests_are_not_kept(engine: Engine, wire: Wire) -> None:
    with wire.box() as box:
        assert box.fs("Stat", path="/tmp").status_code == 200
        before = now(engine)
        for _ in range(ROUNDS):
            answers = [box.fs("Stat", path="/tmp"), box.fs("Stat", path="/missing")]
            answers += [box.get_file("/missing"), wire.get(f"/sandboxes/i{'z' * 20}")]
            assert [answer.status_code for answer in answers] == [200, 404, 404, 404]
        check_same(engine, before)


def test_a_stream_whose_client_leaves_is_not_kept(engine: Engine, wire: Wire) -> None:
    with wire.box() as box:
        before = now(engine)
        for _ in range(5):
            with box.apart() as apart, apart.open("Start", sleeping()) as answer:
                first_message(answer)
        assert now(engine)["Process"] == before["Process"] + 5
        assert box.sh("kill $(pgrep sleep)").end["exited"]
    gone = dict.fromkeys(before, 0)
    check_same(engine, gone)


def test_sandboxes_are_not_kept_with_what_they_said(engine: Engine, wire: Wire) -> None:
    before = now(engine)
    for _ in range(SANDBOXES):
        use_and_kill(wire)
    check_same(engine, before)


def sleeping() -> dict[str, object]:
    return {"process": {"cmd": "/bin/sleep", "args": ["1000"]}}


def use_and_kill(wire: Wire) -> None:
    with wire.box() as box:
        assert len(box.sh("head -c 300000 /dev/zero; echo oops >&2").stdout) == 300_000
        say_much_and_stay(box)
        box.put_file("/tmp/x", bytes(100_000))
        wire.post(f"/sandboxes/{box.id}/pause")
        wire.post(f"/sandboxes/{box.id}/resume", json={})


def say_much_and_stay(box: Box) -> None:
    """A process that runs on when its sandbox ends, with all that it has said."""
    Background(box, "head -c 1000000 /dev/zero; exec sleep 1000")


class Server:
    """A server's side of one request, which hands out futures as the real one does: opaque to the collector."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Event]] = []

    def receive(self) -> asyncio.Future[Event]:
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def send(self, event: Event) -> None:
        """Nothing is answered here."""

    def request(self) -> Request:
        return Request({"path": "/", "query_string": b"", "headers": []}, self.receive, self.send)


END: Event = {"type": "http.request", "more_body": False}
GONE: Event = {"type": "http.disconnect"}
TURNS = 5


async def turns() -> None:
    """Let the loop do all that it has to do."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.mark.parametrize("last", [END, GONE, None])
def test_what_comes_when_nobody_watches_any_more_is_let_go(last: Event | None) -> None:
    async def watch() -> None:
        server = Server()
        request = server.request()
        kept = weakref.ref(request)
        told: list[str] = []
        with request.watched(lambda: told.append("gone")):
            await turns()
            server.futures[0].set_result(END)
            await turns()
            assert len(server.futures) == 2  # what comes after the body's end is waited for
            if last is not None:
                server.futures[1].set_result(last)  # told to the watch in the loop's next turn, after its end
        del request
        await turns()
        assert len(server.futures) == 2
        assert server.futures[1].done()
        assert kept() is None
        assert not told

    asyncio.run(watch())


def test_a_client_that_leaves_is_noticed_once() -> None:
    async def watch() -> None:
        server = Server()
        request = server.request()
        told: list[str] = []
        with request.watched(lambda: told.append("gone")):
            await turns()
            server.futures[0].set_result(GONE)
            await turns()
            assert told == ["gone"]
        with request.watched(lambda: told.append("gone, too")):
            assert told == ["gone", "gone, too"]
            await turns()
        assert len(server.futures) == 1

    asyncio.run(watch())
