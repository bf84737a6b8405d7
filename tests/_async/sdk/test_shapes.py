"""What goes over the wire, seen by a service of the standard library, and what the SDK makes of its answers."""

from __future__ import annotations

import base64
import json
import time

import pytest

from grotte import (
    ApiParams,
    ApiUnreachableException,
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    FileType,
    GrotteException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)
from grotte._proto.connect import FLAG_END_STREAM, pack
from tests.support.stub_service import Answer, Seen, StubService, as_json

ID = "iabcdefghij0123456789"
START = "POST /process.Process/Start"
STAT = "POST /filesystem.Filesystem/Stat"
LIST = "POST /process.Process/List"
SANDBOXES = "GET /v2/sandboxes"
#: What an empty list looks like in the two dialects.
NOTHING = {(LIST, b""), (SANDBOXES, b"[]")}
CREATED = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.5.7", "envdAccessToken": "tok"}
DETAIL = {
    **CREATED,
    "startedAt": "2026-01-02T03:04:05.123456789Z",
    "endAt": "2026-01-02T03:09:05Z",
    "state": "running",
    "cpuCount": 2,
    "memoryMB": 512,
    "diskSizeMB": 1024,
    "alias": "base",
    "domain": None,
    "somethingNew": {"x": 1},
}


def options(stub: StubService) -> ApiParams:
    return {"api_url": stub.url, "sandbox_url": stub.url, "api_key": "grt_key"}


def events(*found: dict[str, object], end: dict[str, object] | None = None) -> Answer:
    chunks = [pack(json.dumps({"event": event}).encode()) for event in found]
    if end is not None:
        chunks.append(pack(json.dumps(end).encode(), FLAG_END_STREAM))
    return Answer(200, headers={"Content-Type": "application/connect+json"}, chunks=chunks)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def connected(stub: StubService, **changes: object) -> AsyncSandbox:
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json({**CREATED, **changes})
    return await AsyncSandbox.connect(ID, **options(stub))


async def test_a_minimal_create(stub: StubService) -> None:
    stub.answers["POST /sandboxes"] = as_json(CREATED, 201)
    sandbox = await AsyncSandbox.create(**options(stub))
    assert sandbox.sandbox_id == ID
    (seen,) = stub.calls("POST /sandboxes")
    assert seen.json == {
        "templateID": "base",
        "allow_internet_access": True,
        "autoPause": False,
        "envVars": {},
        "metadata": {},
        "secure": True,
        "timeout": 300,
    }
    assert seen.headers["x-api-key"] == "grt_key"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"].startswith("grotte-python-sdk/")
    assert len(seen.headers["idempotency-key"]) >= 16


async def test_a_full_create(stub: StubService) -> None:
    stub.answers["POST /sandboxes"] = as_json(CREATED, 201)
    await AsyncSandbox.create(
        "team/tmpl:v2",
        timeout=59.5,
        metadata={"a": "b"},
        envs={"C": "d"},
        secure=False,
        allow_internet_access=False,
        network={"allow_out": ["1.1.1.1"], "mask_request_host": "x"},
        lifecycle={"on_timeout": "pause", "auto_resume": True},
        volume_mounts={"/data": "vol"},
        headers={"X-Mine": "yes"},
        **options(stub),
    )
    (seen,) = stub.calls("POST /sandboxes")
    assert seen.headers["x-mine"] == "yes"
    assert seen.json == {
        "templateID": "team/tmpl:v2",
        "timeout": 60,
        "autoPause": True,
        "autoResume": {"enabled": True},
        "secure": False,
        "allow_internet_access": False,
        "metadata": {"a": "b"},
        "envVars": {"C": "d"},
        "network": {"allowOut": ["1.1.1.1"], "allowPublicTraffic": True, "maskRequestHost": "x"},
        "volumeMounts": [{"name": "vol", "path": "/data"}],
    }


async def test_calls_on_the_control_plane(stub: StubService) -> None:
    sandbox = await connected(stub)
    base = f"/sandboxes/{ID}"
    assert stub.seen[-1].json == {"timeout": 300}
    for route in (f"DELETE {base}", f"POST {base}/timeout", f"POST {base}/refreshes", f"PUT {base}/network"):
        stub.answers[route] = Answer(204)
    stub.answers[f"POST {base}/pause"] = [Answer(204), as_json({"code": 409, "message": "paused"}, 409)]
    stub.answers[f"POST {base}/snapshots"] = as_json({"snapshotID": "t:s", "names": ["n"]}, 201)
    stub.answers[f"GET {base}"] = as_json(DETAIL)
    metric = {"timestamp": "2026-01-02T03:04:05Z", "timestampUnix": 1, "cpuCount": 2, "cpuUsedPct": 1.5}
    metric |= {"memUsed": 1, "memTotal": 2, "diskUsed": 3, "diskTotal": 4}
    stub.answers[f"GET {base}/metrics"] = as_json([metric])

    await sandbox.connect(timeout=77)
    assert stub.seen[-1].json == {"timeout": 77}
    await sandbox.set_timeout(0)
    assert stub.seen[-1].json == {"timeout": 0}
    await sandbox.refresh_ttl(duration=60)
    assert stub.seen[-1].json == {"duration": 60}
    await sandbox.set_network(internet_access=False)
    assert stub.seen[-1].json == {"allow_internet_access": False}
    assert await sandbox.pause() is True
    assert stub.seen[-1].body == b""
    assert stub.seen[-1].headers["content-length"] == "0"
    assert await sandbox.pause() is False
    assert (await sandbox.create_snapshot()).snapshot_id == "t:s"
    assert stub.seen[-1].json == {}
    assert (await sandbox.get_metrics())[0].disk_total == 4
    info = await sandbox.get_info()
    assert (info.started_at.microsecond, info.memory_mb, info.name) == (123457, 512, "base")
    assert await sandbox.kill() is True


async def test_the_query_of_a_list(stub: StubService) -> None:
    stub.answers["GET /v2/sandboxes"] = [as_json([DETAIL], X_Next_Token="t2"), as_json([])]
    query = SandboxQuery(metadata={"k&": "v 1"}, state=[SandboxState.RUNNING, SandboxState.PAUSED])
    assert [info.sandbox_id async for info in AsyncSandbox.list(query, limit=7, **options(stub))] == [ID]
    first, second = stub.seen
    assert "metadata=k%252526%3Dv%2525201" in first.raw_query
    assert "state=running%2Cpaused" in first.raw_query
    assert ("limit", "7") in first.query
    assert ("nextToken", "t2") in second.query
    stub.answers["GET /v2/sandboxes"] = as_json([], X_Next_Token="")
    paginator = AsyncSandbox.list(**options(stub))
    await paginator.next_items()
    assert stub.seen[-1].raw_query == "state=running"
    assert not paginator.has_next


async def test_both_families_of_routing_headers(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers["GET /health"] = Answer(204)
    assert await sandbox.is_running()
    headers = stub.seen[-1].headers
    for family in ("grotte", "e2b"):
        assert headers[f"{family}-sandbox-id"] == ID
        assert headers[f"{family}-sandbox-port"] == "49983"
    assert headers["x-access-token"] == "tok"
    assert "x-api-key" not in headers


async def test_a_command(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = events(
        {"start": {"pid": 42}},
        {"data": {"stdout": text(b"hi\n")}},
        {"keepalive": {}},
        {"data": {"stderr": text(b"ho\n")}},
        {"somethingNew": {}},
        {"end": {"exited": True, "status": "exit status 0"}},
        end={},
    )
    result = await sandbox.commands.run("echo hi", envs={"A": "b"}, cwd="/tmp", user="root", timeout=5)
    assert (result.stdout, result.stderr, result.exit_code, result.error) == ("hi\n", "ho\n", 0, None)
    seen = stub.seen[-1]
    assert seen.headers["content-type"] == "application/connect+json"
    assert seen.headers["connect-protocol-version"] == "1"
    assert seen.headers["connect-timeout-ms"] == "5000"
    assert seen.headers["keepalive-ping-interval"] == "50"
    assert seen.headers["authorization"] == "Basic " + text(b"root:")
    assert seen.body[:1] == b"\0"
    assert int.from_bytes(seen.body[1:5], "big") == len(seen.body) - 5
    assert json.loads(seen.body[5:]) == {
        "process": {"cmd": "/bin/bash", "args": ["-l", "-c", "echo hi"], "envs": {"A": "b"}, "cwd": "/tmp"},
        "stdin": False,
    }
    await sandbox.commands.run("x", timeout=0)
    assert "connect-timeout-ms" not in stub.seen[-1].headers
    assert "authorization" not in stub.seen[-1].headers


async def test_a_server_that_leaves_out_the_end_frame(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = events(
        {"start": {"pid": 1}}, {"end": {"exitCode": 2, "exited": True, "status": "exit status 2"}}
    )
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("false")
    assert caught.value.error == "exit status 2"


async def test_a_command_may_be_silent_for_longer_than_one_request_may_take(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = events({"start": {"pid": 1}}, {"end": {"exited": True}}, end={})
    stub.answers[START].pause = 0.5
    assert (await sandbox.commands.run("sleep 0.5", request_timeout=0.2)).exit_code == 0


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


async def test_uploads(stub: StubService) -> None:
    entry = {
        "name": "x",
        "type": "FILE_TYPE_FILE",
        "path": "/tmp/x",
        "size": "3",
        "mode": 420,
        "permissions": "-rw-r--r--",
    }
    stub.answers["POST /files"] = as_json([{"path": "/tmp/x", "name": "x", "type": "file"}])
    stub.answers[STAT] = as_json({"entry": entry | {"modifiedTime": "2026-01-02T03:04:05.123456789Z", "owner": "user"}})
    sandbox = await connected(stub)
    written = await sandbox.files.write("/tmp/x", "abc", user="root")
    assert (written.size, written.mode, written.type, written.owner) == (3, 0o644, FileType.FILE, "user")
    (seen,) = stub.calls("POST /files")
    assert seen.query == [("path", "/tmp/x"), ("username", "root")]
    assert seen.headers["content-type"] == "application/octet-stream"
    assert seen.body == b"abc"
    assert stub.calls(STAT)[0].json == {"path": "/tmp/x"}
    assert stub.calls(STAT)[0].headers["authorization"] == "Basic " + text(b"root:")


async def test_a_server_that_sends_whole_entries_is_not_asked_again(stub: StubService) -> None:
    entry = {"name": "x", "type": "FILE_TYPE_FILE", "path": "/tmp/x", "size": "3"}
    stub.answers["POST /files"] = as_json([{"path": "/tmp/x", "name": "x", "type": "file", "entry": entry}])
    sandbox = await connected(stub)
    assert (await sandbox.files.write("/tmp/x", "abc")).size == 3
    assert stub.seen[-1].headers["grotte-entry-info"] == "1"
    assert stub.calls(STAT) == []


async def test_an_old_agent_gets_a_form(stub: StubService) -> None:
    stub.answers["POST /files"] = as_json([{"path": "/tmp/x", "name": "x", "type": "file"}])
    stub.answers[STAT] = as_json({"entry": {"name": "x", "type": 1, "path": "/tmp/x", "size": 3}})
    stub.answers[START] = events({"start": {"pid": 1}}, {"end": {"exited": True}}, end={})
    sandbox = await connected(stub, envdVersion="0.2.9")
    assert (await sandbox.files.write("/tmp/x", "abc")).type is FileType.FILE
    (seen,) = stub.calls("POST /files")
    assert seen.query == [("path", "/tmp/x"), ("username", "user")]
    boundary = seen.headers["content-type"].removeprefix("multipart/form-data; boundary=").encode()
    assert seen.body.startswith(b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"; filename=')
    assert seen.body.endswith(b"\r\n\r\nabc\r\n--" + boundary + b"--\r\n")
    await sandbox.commands.run("true")
    assert "stdin" not in json.loads(stub.seen[-1].body[5:])
    assert stub.seen[-1].headers["authorization"] == "Basic " + text(b"user:")


async def test_several_files_travel_in_one_request(stub: StubService) -> None:
    stub.answers["POST /files"] = as_json([{"path": "/a"}, {"path": "/b/ü"}])
    stub.answers[STAT] = lambda seen: as_json({"entry": {"name": "x", "path": json.loads(seen.body)["path"]}})
    sandbox = await connected(stub)
    entries = await sandbox.files.write_files([{"path": "/a", "data": "1"}, {"path": "/b/ü", "data": b"2"}])
    assert [entry.path for entry in entries] == ["/a", "/b/ü"]
    (seen,) = stub.calls("POST /files")
    assert seen.query == []
    assert 'name="file"; filename="/b/ü"\r\n'.encode() in seen.body


async def test_stdin_and_signals(stub: StubService) -> None:
    sandbox = await connected(stub)
    for method in ("SendInput", "SendSignal", "CloseStdin"):
        stub.answers[f"POST /process.Process/{method}"] = as_json({})
    await sandbox.commands.send_stdin(7, b"\xff\x00")
    assert stub.seen[-1].json == {"process": {"pid": 7}, "input": {"stdin": "/wA="}}
    assert await sandbox.commands.kill(7)
    assert stub.seen[-1].json == {"process": {"pid": 7}, "signal": "SIGNAL_SIGKILL"}
    assert stub.seen[-1].headers["connect-timeout-ms"] == "60000"
    await sandbox.commands.close_stdin(7)
    assert stub.seen[-1].json == {"process": {"pid": 7}}


async def test_is_running(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers["GET /health"] = [Answer(204), Answer(502, b'{"message":"The sandbox was not found"}'), Answer(500)]
    assert await sandbox.is_running() is True
    assert await sandbox.is_running() is False
    with pytest.raises(SandboxException):
        await sandbox.is_running()


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
