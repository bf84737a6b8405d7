"""What goes over the wire, seen by a service of the standard library, and what the SDK makes of its answers."""

from __future__ import annotations

import json

import pytest

from grotte import AsyncSandbox, FileType, SandboxException, SandboxQuery, SandboxState
from tests._async.sdk.scripted import CREATED, DETAIL, ID, START, STAT, connected, events, options, text
from tests.support.stub_service import Answer, StubService, as_json


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
        network={"allow_out": ["a.b"], "mask_request_host": "x", "dns_servers": ["1.1.1.1"], "https_ports": [8443]},
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
        "network": {
            "allowOut": ["a.b"],
            "allowPublicTraffic": True,
            "maskRequestHost": "x",
            "dnsServers": ["1.1.1.1"],
            "httpsPorts": [8443],
        },
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


async def test_a_command_may_be_silent_for_longer_than_one_request_may_take(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[START] = events({"start": {"pid": 1}}, {"end": {"exited": True}}, end={})
    stub.answers[START].pause = 1.5
    assert (await sandbox.commands.run("sleep 1.5", request_timeout=1)).exit_code == 0


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
