"""A stream of events that breaks: what is asked of the server then, and what becomes of the command."""

from __future__ import annotations

import base64
import json

import pytest

from grotte import (
    AsyncSandbox,
    CommandExitException,
    GrotteException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    TimeoutException,
)
from grotte._core import process_stream
from grotte._proto.connect import FLAG_END_STREAM, pack
from tests.support.stub_service import Answer, StubService, as_json

Event = dict[str, object]

ID = "iabcdefghij0123456789"
START = "POST /process.Process/Start"
CONNECT = "POST /process.Process/Connect"
INPUT = "POST /process.Process/SendInput"
OFFSETS = "grotte-output-from"
END: Event = {"end": {"exited": True, "status": "exit status 0"}}
KILLED: Event = {"end": {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}}
GONE = as_json({"message": "The sandbox was not found", "code": 502}, 502)
NO_PROCESS = as_json({"code": "not_found", "message": "process with pid 7 not found"}, 404)


@pytest.fixture
async def sandbox(stub: StubService) -> AsyncSandbox:
    created = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.5.7"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(created)
    stub.answers["GET /health"] = Answer(204)
    return await AsyncSandbox.connect(ID, api_url=stub.url, sandbox_url=stub.url, api_key="k")


def events(*parts: str | bytes | Event, begins: str | None = None) -> Answer:
    """A stream: the start, stdout for a str, terminal output for bytes, other events; it breaks unless its last is the
    end of the process. `begins` are the offsets that the server claims."""
    found: list[Event] = [{"start": {"pid": 7}}]
    for part in parts:
        if isinstance(part, dict):
            found.append(part)
        else:
            data = part.encode("latin-1") if isinstance(part, str) else part
            name = "stdout" if isinstance(part, str) else "pty"
            found.append({"data": {name: base64.b64encode(data).decode()}})
    chunks = [b"".join(pack(json.dumps({"event": event}).encode()) for event in found)]
    whole = "end" in found[-1]
    if whole:
        chunks.append(pack(b"{}", FLAG_END_STREAM))
    headers = {"Content-Type": "application/connect+json"} | ({} if begins is None else {OFFSETS: begins})
    return Answer(200, headers=headers, chunks=chunks, hang_up=not whole)


def wishes(stub: StubService) -> list[str]:
    """The offsets that the requests for streams asked for, in order."""
    return [seen.headers[OFFSETS] for seen in stub.seen if seen.path.endswith(("/Start", "/Connect"))]


async def test_a_server_that_can_goes_on_where_the_stream_broke(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("ab", begins="stdout=0, stderr=0")
    stub.answers[CONNECT] = [
        events("c\xc3", begins="stdout=2, stderr=0"),
        events("\xa4d", END, begins="stdout=4, stderr=0"),
    ]
    seen: list[str] = []
    result = await sandbox.commands.run("true", on_stdout=seen.append)
    assert result.stdout == "".join(seen) == "abcäd"
    assert not result.output_missing
    assert wishes(stub) == [f"stdout={offset}, stderr=0, pty=0" for offset in (0, 2, 4)]
    assert len(stub.calls(START)) == 1


async def test_output_may_come_as_it_is(stub: StubService, sandbox: AsyncSandbox) -> None:
    whole = events(END, begins="stdout=0, stderr=0")
    assert whole.chunks is not None
    start, end = whole.chunks[0].split(b"}}}", 1)
    raw = pack(b"a\xc3", 0x10) + pack(b"err", 0x20) + pack(b"\xa4", 0x10)
    whole.chunks = [start + b"}}}" + raw, end + whole.chunks[1]]
    stub.answers[START] = whole
    result = await sandbox.commands.run("true")
    assert (result.stdout, result.stderr) == ("aä", "err")
    (seen,) = stub.calls(START)
    assert seen.headers["grotte-output-raw"] == "1"


@pytest.mark.parametrize("begins", [None, "stdout=9, stderr=0", "rubbish", "stdout=2, stderr=1"])
async def test_output_that_is_missing_is_said_to_be(
    stub: StubService, sandbox: AsyncSandbox, begins: str | None
) -> None:
    stub.answers[START] = events("a\xc3", begins="stdout=0")
    stub.answers[CONNECT] = events("\xa4z", {"end": {"exitCode": 3, "exited": True}}, begins=begins)
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("true")
    # half a character before the gap does not become one with what comes after it
    assert caught.value.stdout == "a" + 2 * "\N{REPLACEMENT CHARACTER}" + "z"
    assert caught.value.output_missing


async def test_after_a_gap_of_unknown_size_nothing_is_asked_for_again(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("a")
    stub.answers[CONNECT] = [events("b"), events("c", END)]
    result = await sandbox.commands.run("true")
    assert (result.stdout, result.output_missing) == ("abc", True)
    now = 10**18 - 1
    assert wishes(stub)[2] == f"stdout={now}, stderr={now}, pty={now}"


async def test_attached_from_the_present_and_then_from_where_it_broke(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[CONNECT] = [
        events("xy", begins="stdout=100, stderr=5"),
        events("z", END, begins="stdout=102, stderr=5"),
    ]
    handle = await sandbox.commands.connect(7)
    assert (await handle.wait()).stdout == "xyz"
    assert not handle.output_missing
    assert wishes(stub)[1] == "stdout=102, stderr=5, pty=0"


async def test_an_answer_that_only_looks_complete(stub: StubService, sandbox: AsyncSandbox) -> None:
    cut = events("a", begins="stdout=0")
    cut.hang_up = False
    stub.answers[START] = cut
    stub.answers[CONNECT] = events("b", END, begins="stdout=1")
    result = await sandbox.commands.run("true")
    assert (result.stdout, result.output_missing) == ("ab", False)


@pytest.mark.parametrize(
    ("answer", "health", "kind", "words"),
    [
        (NO_PROCESS, Answer(204), SandboxUnreachableException, "how it ended is not known"),
        (NO_PROCESS, GONE, SandboxNotRunningException, "was not found"),
        (events("b", END, begins="stdout=0"), Answer(204), SandboxUnreachableException, "another process"),
        (GONE, GONE, SandboxNotRunningException, "was not found"),
        (as_json({"code": 503}, 503), Answer(204), SandboxUnreachableException, "process 7 may go on"),
        (events(), Answer(204), SandboxUnreachableException, "process 7 may go on"),
        (as_json({"code": "internal", "message": "oops"}, 500), Answer(204), SandboxException, "oops"),
    ],
)
async def test_what_cannot_be_attached_to_again(
    stub: StubService,
    sandbox: AsyncSandbox,
    answer: Answer,
    health: Answer,
    kind: type[GrotteException],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_stream, "WINDOW_SECONDS", 0.5)
    stub.answers |= {START: events("a", begins="stdout=0"), CONNECT: answer, "GET /health": health}
    handle = await sandbox.commands.run("true", background=True)
    with pytest.raises(kind, match=words) as caught:
        await handle.wait()
    assert type(caught.value) is kind
    assert caught.value.sandbox_id == ID
    assert handle.stdout == "a"
    assert 1 <= len(stub.calls(CONNECT)) < 20
    assert len(stub.calls(START)) == 1


async def test_a_bad_moment_is_waited_out(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("a", begins="stdout=0")
    stub.answers[CONNECT] = [
        as_json({"code": "unavailable", "message": "try later"}, 503),
        as_json({"code": 429, "message": "slow down"}, 429),
        Answer(200, hang_up=True),
        events("b", END, begins="stdout=1"),
    ]
    assert (await sandbox.commands.run("true")).stdout == "ab"


@pytest.mark.parametrize("answer", [Answer(200, hang_up=True), Answer(200, chunks=[], hang_up=True)])
async def test_a_start_that_breaks_before_the_pid_is_not_repeated(
    stub: StubService, sandbox: AsyncSandbox, answer: Answer
) -> None:
    stub.answers[START] = answer
    with pytest.raises(SandboxUnreachableException, match="whether it was started is not known"):
        await sandbox.commands.run("true")
    assert len(stub.calls(START)) == 1
    assert not stub.calls(CONNECT)


async def test_killed_at_the_deadline_while_nobody_listened(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("a", begins="stdout=0")
    stub.answers[CONNECT] = events(KILLED, begins="stdout=1")
    with pytest.raises(TimeoutException, match=r"'timeout' of the command is 0\.3 s"):
        await sandbox.commands.run("true", timeout=0.3)
    stub.answers[START] = events("a", begins="stdout=0")
    assert (await sandbox.commands.run("true", timeout=60, check=False)).exit_code == -1


@pytest.mark.parametrize("how", ["wait", "read"])
async def test_a_terminal_goes_on_too(stub: StubService, sandbox: AsyncSandbox, how: str) -> None:
    stub.answers[START] = events(b"ab", begins="pty=0")
    stub.answers[CONNECT] = [events(b"c", begins="pty=2"), events(b"d", END, begins="pty=3")]
    seen: list[bytes] = []
    pty = await sandbox.pty.create(on_data=seen.append)
    if how == "wait":
        await pty.wait()
    else:
        while await pty.read(timeout=5):
            pass
    assert b"".join(seen) == b"abcd"
    assert not pty.output_missing
    assert wishes(stub)[-1] == "stdout=0, stderr=0, pty=3"


async def test_a_read_of_a_terminal_keeps_its_time_while_nobody_answers(
    stub: StubService, sandbox: AsyncSandbox
) -> None:
    stub.answers[START] = events(begins="pty=0")
    stub.answers[CONNECT] = as_json({"code": 503}, 503)
    pty = await sandbox.pty.create()
    with pytest.raises(TimeoutException, match="showed nothing"):
        await pty.read(timeout=0.3)
    stub.answers[CONNECT] = events(b"late", END, begins="pty=0")
    assert await pty.read(timeout=5) == b"late"


async def test_whoever_disconnects_is_not_connected_again(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("a", begins="stdout=0")
    handle = await sandbox.commands.run("true", background=True)
    await handle.disconnect()
    with pytest.raises(SandboxException, match="disconnected"):
        await handle.wait()
    assert not stub.calls(CONNECT)


async def test_input_is_not_sent_twice(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[START] = events("a", END)
    stub.answers[INPUT] = Answer(200, hang_up=True)
    handle = await sandbox.commands.run("true", background=True, stdin=True)
    with pytest.raises(SandboxUnreachableException):
        await handle.send_stdin("x")
    assert len(stub.calls(INPUT)) == 1


async def test_more_input_than_one_message_takes(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[INPUT] = as_json({})
    data = b"0123456789" * 1_000_000
    await sandbox.commands.send_stdin(7, data)
    await sandbox.commands.send_stdin(7, b"")
    sent = [json.loads(seen.body)["input"]["stdin"] for seen in stub.calls(INPUT)]
    assert len(sent) == 3
    assert b"".join(map(base64.b64decode, sent)) == data
    assert sent[2] == ""
