"""How long a stream may be silent, and how long it may last: two limits, and neither stands for the other."""

from __future__ import annotations

import json

import pytest

from grotte import AsyncSandbox, SandboxUnreachableException, TimeoutException
from grotte._core import event_stream, process_stream
from grotte._proto.connect import FLAG_END_STREAM, pack
from tests.support.stub_service import Answer, StubService, as_json

ID = "iabcdefghij0123456789"
START = "POST /process.Process/Start"
CONNECT = "POST /process.Process/Connect"
KILL = "POST /process.Process/SendSignal"
BEGIN: dict[str, object] = {"start": {"pid": 7}}
ALIVE: dict[str, object] = {"keepalive": {}}
END: dict[str, object] = {"end": {"exited": True, "status": "exit status 0"}}


def slowly(pause: float, *events: dict[str, object], whole: bool = True) -> Answer:
    """A stream with a pause before each event but the first."""
    chunks = [pack(json.dumps({"event": event}).encode()) for event in events]
    if whole:
        chunks[-1] += pack(b"{}", FLAG_END_STREAM)
    headers = {"Content-Type": "application/connect+json", "Grotte-Output-From": "stdout=0"}
    return Answer(200, headers=headers, chunks=chunks, pause=pause)


@pytest.fixture
async def sandbox(stub: StubService, monkeypatch: pytest.MonkeyPatch) -> AsyncSandbox:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.8)
    monkeypatch.setattr(event_stream, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(process_stream, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(process_stream, "WINDOW_SECONDS", 0.5)
    created = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.5.7"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(created)
    stub.answers["GET /health"] = Answer(204)
    return await AsyncSandbox.connect(ID, api_url=stub.url, sandbox_url=stub.url, api_key="k")


async def test_signs_of_life_keep_a_silent_command(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = slowly(0.3, BEGIN, *[ALIVE] * 5, END)
    assert (await sandbox.commands.run("true", timeout=60, request_timeout=0.6)).exit_code == 0
    assert not stub.calls(CONNECT)


async def test_a_stream_without_any_is_left_for_another(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = slowly(2.5, BEGIN, ALIVE)
    stub.answers[CONNECT] = slowly(0, BEGIN, END)
    assert (await sandbox.commands.run("true", timeout=60)).exit_code == 0
    assert len(stub.calls(CONNECT)) == 1


async def test_and_when_the_others_are_silent_too_it_is_said(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = stub.answers[CONNECT] = slowly(2.5, BEGIN, ALIVE)
    with pytest.raises(SandboxUnreachableException, match="not even a sign of life"):
        await sandbox.commands.run("true", timeout=60)


async def test_signs_of_life_do_not_move_the_end(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = slowly(0.2, BEGIN, *[ALIVE] * 15, END)
    stub.answers[KILL] = as_json({})
    with pytest.raises(TimeoutException, match=r"'timeout' of the command is 0\.7 s") as caught:
        await sandbox.commands.run("true", timeout=0.7)
    assert type(caught.value) is TimeoutException
    assert len(stub.calls(KILL)) == 1, "a command that a server lets run on is ended"
    assert not stub.calls(CONNECT)


async def test_the_end_comes_while_nobody_can_be_reached(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = slowly(0, BEGIN, ALIVE, whole=False)
    stub.answers[CONNECT] = as_json({"code": 503}, 503)
    stub.answers[KILL] = as_json({})
    with pytest.raises(TimeoutException, match=r"'timeout' of the command is 0\.3 s") as caught:
        await sandbox.commands.run("true", timeout=0.3)
    assert type(caught.value) is TimeoutException


async def test_a_transfer_may_be_long_but_not_pause(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers["GET /files"] = Answer(200, chunks=[b"x"] * 6, pause=0.4)
    assert await sandbox.files.read("/x", request_timeout=1.8) == "xxxxxx"
    stub.answers["GET /files"] = Answer(200, chunks=[b"x"] * 2, pause=4)
    with pytest.raises(TimeoutException, match=r"'request_timeout' is 1\.8 s"):
        await sandbox.files.read("/x", request_timeout=1.8)
