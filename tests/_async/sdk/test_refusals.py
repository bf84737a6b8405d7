"""What the SDK makes of answers that are no success, of those that make no sense, and of those that do not come."""

from __future__ import annotations

import time

import pytest

from grotte import (
    ApiParams,
    ApiUnreachableException,
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    GrotteException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)
from grotte._proto.connect import pack
from tests._async.sdk.scripted import (
    CREATED,
    DETAIL,
    ID,
    LIST,
    SANDBOXES,
    START,
    STAT,
    connected,
    events,
    options,
)
from tests.support.stub_service import Answer, Seen, StubService, as_json

#: What an empty list looks like in the two dialects.
NOTHING = {(LIST, b""), (SANDBOXES, b"[]")}


async def test_a_server_that_leaves_out_the_end_frame(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = events(
        {"start": {"pid": 1}}, {"end": {"exitCode": 2, "exited": True, "status": "exit status 2"}}
    )
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("false")
    assert caught.value.error == "exit status 2"


async def test_an_answer_that_does_not_begin(stub: StubService) -> None:
    sandbox = await connected(stub)

    def never(seen: Seen) -> Answer:
        time.sleep(0.6)
        return events({"start": {"pid": 1}}, {"end": {"exited": True}}, end={})

    stub.answers[START] = stub.answers[LIST] = never
    for call in (lambda: sandbox.commands.run("x", request_timeout=0.2), lambda: sandbox.commands.list(0.2)):
        with pytest.raises(TimeoutException, match="'request_timeout' is 0"):
            await call()
    assert len(stub.calls(START)) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (events(), SandboxException),
        (events(end={}), SandboxException),
        (events({"data": {"stdout": "aGk="}}, end={}), SandboxException),
        (events({"start": {"pid": 1}}, end={}), SandboxException),
        (events({"start": {"pid": 1}}, {"data": {"stdout": "%"}}, end={}), SandboxException),
        (Answer(200, chunks=[b"\0\0\0\0\2no"]), SandboxException),
        (Answer(200, chunks=[b"\1\0\0\0\2{}"]), SandboxException),
        (Answer(200, chunks=[b"\0\xff\xff\xff\xff{}"]), SandboxException),
        (events(end={"error": {"code": "invalid_argument", "message": "cwd"}}), InvalidArgumentException),
        (events(end={"error": {"code": "unauthenticated", "message": "user"}}), AuthenticationException),
        (events({"start": {"pid": 1}}, end={"error": {"code": "deadline_exceeded"}}), TimeoutException),
        (events({"start": {"pid": 1}}, end={"error": {"code": "canceled", "message": "c"}}), TimeoutException),
        (events({"start": {"pid": 1}}, end={"error": {"code": "internal", "message": "oops"}}), SandboxException),
        (
            events(end={"error": {"code": "unavailable", "message": "The sandbox was not found"}}),
            SandboxNotRunningException,
        ),
        (as_json({"code": 401, "message": "token"}, 401), AuthenticationException),
        (as_json({"code": "resource_exhausted", "message": "slow down"}, 429), RateLimitException),
        (
            as_json({"sandboxId": ID, "message": "The sandbox was not found", "code": 502}, 502),
            SandboxNotRunningException,
        ),
        (Answer(502, b"<html>bad gateway</html>"), SandboxUnreachableException),
        (Answer(500, b"[1,2"), SandboxException),
        (Answer(404, b"[]"), GrotteException),
        (Answer(200, chunks=[pack(b'{"event":{"start":{"pid":1}}}')], hang_up=True), SandboxUnreachableException),
    ],
)
async def test_how_a_command_can_fail(stub: StubService, answer: Answer, kind: type[GrotteException]) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = answer
    stub.answers["GET /health"] = Answer(204)
    with pytest.raises(kind) as caught:
        await sandbox.commands.run("true")
    assert not isinstance(caught.value, CommandExitException)
    assert caught.value.sandbox_id == ID
    assert len(stub.calls(START)) == 1, "a command is never sent twice"


async def test_a_broken_connection_is_told_from_a_dead_sandbox(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = Answer(200, chunks=[pack(b'{"event":{"start":{"pid":1}}}')], hang_up=True)
    stub.answers["GET /health"] = as_json({"message": "The sandbox was not found", "code": 502}, 502)
    with pytest.raises(SandboxNotRunningException):
        await sandbox.commands.run("true")
    stub.answers[START] = as_json({"message": "The sandbox is running but port is not open", "code": 502}, 502)
    with pytest.raises(SandboxUnreachableException, match="port is not open"):
        await sandbox.commands.run("true")
    stub.answers[START] = as_json({"code": "unavailable", "message": "try later"}, 503)
    with pytest.raises(SandboxNotRunningException):
        await sandbox.commands.run("true")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"code":400,"message":"it is a directory"}', InvalidArgumentException),
        (401, b'{"code":401,"message":"signature"}', AuthenticationException),
        (404, b'{"code":404,"message":"no such file"}', FileNotFoundException),
        (429, b"", RateLimitException),
        (502, b'{"message":"The sandbox was not found","code":502}', SandboxNotRunningException),
        (502, b"not JSON", SandboxUnreachableException),
        (507, b'{"code":507,"message":"full"}', NotEnoughSpaceException),
        (500, b'{"code":500', SandboxException),
        (418, b"[]", SandboxException),
    ],
)
async def test_how_files_can_fail(stub: StubService, status: int, body: bytes, kind: type[GrotteException]) -> None:
    sandbox = await connected(stub)
    stub.answers["GET /files"] = stub.answers["POST /files"] = Answer(status, body)
    stub.answers["GET /health"] = Answer(204)
    with pytest.raises(kind) as caught:
        await sandbox.files.read("/x")
    assert caught.value.status_code == status
    with pytest.raises(kind):
        await sandbox.files.write("/x", "y")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("invalid_argument", 400, InvalidArgumentException),
        ("unauthenticated", 401, AuthenticationException),
        ("permission_denied", 403, SandboxException),
        ("not_found", 404, FileNotFoundException),
        ("already_exists", 409, SandboxException),
        ("failed_precondition", 400, SandboxException),
        ("resource_exhausted", 429, RateLimitException),
        ("canceled", 499, TimeoutException),
        ("unknown", 500, SandboxException),
        ("internal", 500, SandboxException),
        ("unimplemented", 501, SandboxException),
        ("unavailable", 503, SandboxUnreachableException),
        ("deadline_exceeded", 504, TimeoutException),
        (404, 404, FileNotFoundException),
        (502, 502, SandboxUnreachableException),
        (None, 500, SandboxException),
    ],
)
async def test_how_calls_can_fail(
    stub: StubService, code: str | int | None, status: int, kind: type[GrotteException]
) -> None:
    sandbox = await connected(stub)
    stub.answers[STAT] = as_json({"code": code, "message": "so it is"}, status)
    stub.answers["GET /health"] = Answer(204)
    with pytest.raises(kind, match="so it is") as caught:
        await sandbox.files.get_info("/x")
    assert caught.value.request == STAT
    assert caught.value.server_message == "so it is"


@pytest.mark.parametrize("status", [200, 404])
async def test_answers_that_make_no_sense(stub: StubService, status: int) -> None:
    sandbox = await connected(stub)
    for body in (b"", b"null", b"[]", b"{", b"\xff", b'{"processes": 3}', b'"text"'):
        stub.answers[LIST] = stub.answers[SANDBOXES] = Answer(status, body)
        calls = {LIST: sandbox.commands.list, SANDBOXES: AsyncSandbox.list(**options(stub)).next_items}
        for route, call in calls.items():
            if status == 200 and (route, body) in NOTHING:
                assert await call() == []
            else:
                with pytest.raises(GrotteException):
                    await call()


def busy_then(final: Answer, status: int, **headers: str) -> list[Answer]:
    return [as_json({"code": status, "message": "busy"}, status, **headers), final]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_be_repeated_is_repeated_when_the_server_is_busy(stub: StubService, status: int) -> None:
    stub.answers[f"GET /sandboxes/{ID}"] = busy_then(as_json(DETAIL), status)
    assert (await AsyncSandbox.get_info(ID, **options(stub))).sandbox_id == ID
    assert len(stub.seen) == 2


async def test_what_the_server_forbids_to_repeat_is_not_repeated(stub: StubService) -> None:
    stub.answers[f"GET /sandboxes/{ID}"] = busy_then(as_json(DETAIL), 503, Should_Retry="false")
    with pytest.raises(ServiceBusyException, match="busy"):
        await AsyncSandbox.get_info(ID, **options(stub))
    assert len(stub.seen) == 1


async def test_create_is_repeated_only_if_the_server_asks_for_it(stub: StubService) -> None:
    stub.answers["POST /sandboxes"] = busy_then(as_json(CREATED, 201), 429)
    with pytest.raises(RateLimitException):
        await AsyncSandbox.create(**options(stub))
    stub.answers["POST /sandboxes"] = busy_then(as_json(CREATED, 201), 503, Should_Retry="true", Retry_After="0")
    await AsyncSandbox.create(**options(stub))
    first, second, third = stub.calls("POST /sandboxes")
    assert second.headers["idempotency-key"] == third.headers["idempotency-key"] != first.headers["idempotency-key"]


async def test_a_wait_beyond_the_limit_is_not_waited(stub: StubService) -> None:
    stub.answers[f"GET /sandboxes/{ID}"] = busy_then(as_json(DETAIL), 429, Retry_After="30")
    with pytest.raises(RateLimitException):
        await AsyncSandbox.get_info(ID, request_timeout=5, **options(stub))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"code":401,"message":"m"}', AuthenticationException),
        (403, b'{"code":403,"message":"m"}', SandboxException),
        (404, b"plain text", SandboxNotFoundException),
        (409, b"[]", SandboxException),
        (500, b'{"message":3}', SandboxException),
        (500, b"\xff" * 5000, SandboxException),
        (409, b'{"code":409,"message":"m","error_code":"sandbox_snapshot_guest_agent_unresponsive"}', SandboxException),
    ],
)
async def test_how_the_control_plane_can_fail(
    stub: StubService, status: int, body: bytes, kind: type[GrotteException]
) -> None:
    stub.answers[f"GET /sandboxes/{ID}"] = Answer(status, body)
    with pytest.raises(kind) as caught:
        await AsyncSandbox.get_info(ID, **options(stub))
    assert caught.value.status_code == status
    assert caught.value.sandbox_id == ID
    assert len(str(caught.value)) < 1000


async def test_a_service_that_is_not_there(stub: StubService) -> None:
    nowhere: ApiParams = {"api_url": "http://127.0.0.1:9", "api_key": "grt_key"}
    with pytest.raises(ApiUnreachableException):
        await AsyncSandbox.create(**nowhere)
    with pytest.raises(ApiUnreachableException):
        await AsyncSandbox.create(api_url="http://no-such-host.invalid", api_key="grt_key")
    sandbox = await connected(stub)
    sandbox = await AsyncSandbox.connect(ID, **{**options(stub), "sandbox_url": "http://127.0.0.1:9"})
    for call in (sandbox.is_running, sandbox.commands.list, lambda: sandbox.commands.run("true")):
        with pytest.raises(SandboxUnreachableException):
            await call()
