"""What `create`, `connect`, `pause`, `list` and snapshots can be told besides, on the wire and on the real engine."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from grotte import (
    AsyncSandbox,
    InvalidArgumentException,
    SandboxException,
    SandboxInfo,
    SandboxQuery,
    SandboxState,
)
from tests.support.engine import Engine
from tests.support.stub_service import Answer, StubService, as_json

ID = "iabcdefghij0123456789"
CREATED = {"templateID": "base", "sandboxID": ID, "envdVersion": "0.5.7"}
BOTH = [SandboxState.RUNNING, SandboxState.PAUSED]


async def test_what_goes_over_the_wire(stub: StubService) -> None:
    options = {"api_url": stub.url, "api_key": "grt_key"}
    base = f"/sandboxes/{ID}"
    stub.answers["POST /sandboxes"] = as_json(CREATED, 201)
    stub.answers[f"POST {base}/connect"] = stub.answers[f"POST /v2{base}/connect"] = as_json(CREATED)
    stub.answers[f"POST {base}/pause"] = stub.answers[f"PUT {base}/network"] = Answer(204)
    stub.answers[f"POST {base}/snapshots"] = as_json({"snapshotID": "s", "names": []}, 201)
    stub.answers["GET /v2/sandboxes"] = stub.answers["GET /snapshots"] = as_json([])

    sandbox = await AsyncSandbox.create(idempotency_key="same-key-1", **options)
    assert stub.seen[-1].headers["idempotency-key"] == "same-key-1"
    await sandbox.connect(timeout=5, on_resume="reboot")
    assert (stub.seen[-1].path, stub.seen[-1].json) == (f"/v2{base}/connect", {"timeout": 5, "memory": False})
    await sandbox.pause()
    assert stub.seen[-1].body == b""
    await sandbox.pause(keep_memory=False)
    assert stub.seen[-1].json == {"memory": False}
    await AsyncSandbox.pause(ID, mode="full", strict=True, **options)
    assert stub.seen[-1].json == {"memory": True, "requireHealthyGuest": True}
    await sandbox.create_snapshot("nightly", mode="filesystem")
    assert stub.seen[-1].json == {"name": "nightly", "memory": False}
    await sandbox.update_network({"allow_out": ["a.b"], "dns_servers": [], "allow_internet_access": False})
    assert stub.seen[-1].json == {"allowOut": ["a.b"], "dnsServers": [], "allow_internet_access": False}
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    query = SandboxQuery(template="base", started_after=start)
    await AsyncSandbox.list(query, order="asc", **options).next_items()
    assert dict(stub.seen[-1].query) == {
        "state": "running",
        "template": "base",
        "order": "asc",
        "startedAfter": "2026-01-02T03:04:05+00:00",
    }
    await sandbox.list_snapshots(name="nightly").next_items()
    assert dict(stub.seen[-1].query) == {"sandboxID": ID, "name": "nightly"}


async def test_wrong_values_are_refused_before_a_byte_is_sent(stub: StubService) -> None:
    options = {"api_url": stub.url, "api_key": "grt_key"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(CREATED)
    sandbox = await AsyncSandbox.connect(ID, **options)
    calls = [
        lambda: AsyncSandbox.create(idempotency_key="Not This", **options),
        lambda: AsyncSandbox.create(volume_mounts={"relative": "v"}, **options),
        lambda: AsyncSandbox.create(volume_mounts={"/data": 3}, **options),  # type: ignore[dict-item]
        lambda: sandbox.connect(on_resume="restart"),  # type: ignore[arg-type]
        lambda: sandbox.pause(keep_memory=1),  # type: ignore[arg-type]
        lambda: sandbox.pause(keep_memory=True, mode="full"),
        lambda: sandbox.pause(mode="partly"),  # type: ignore[arg-type]
        lambda: sandbox.create_snapshot("two words"),
        lambda: sandbox.update_network({"allow_out": "1.1.1.1"}),  # type: ignore[typeddict-item]
        lambda: sandbox.update_network({"deny": []}),  # type: ignore[typeddict-unknown-key]
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentException):
            await call()
    with pytest.raises(InvalidArgumentException):
        AsyncSandbox.list(order="newest", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentException):
        AsyncSandbox.list(SandboxQuery(started_after="today"), **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentException, match="SandboxQuery"):
        AsyncSandbox.list({"metadata": {"a": "b"}}, **options)  # type: ignore[arg-type]
    assert len(stub.seen) == 1


async def listed(query: SandboxQuery, order: str | None, engine: Engine) -> list[str]:
    paginator = AsyncSandbox.list(query, limit=1, order=order, **engine.options)  # type: ignore[arg-type]
    found: list[SandboxInfo] = []
    while paginator.has_next:
        found += await paginator.next_items()
    return [info.sandbox_id for info in found]


async def test_lists_in_both_orders_and_by_what_they_are(engine: Engine) -> None:
    group = {"group": secrets.token_hex(4)}
    before = datetime.now(UTC) - timedelta(seconds=1)
    first = await AsyncSandbox.create(metadata=group, **engine.options)
    second = await AsyncSandbox.create(metadata=group, **engine.options)
    async with first, second:
        ids = [first.sandbox_id, second.sandbox_id]
        assert await listed(SandboxQuery(metadata=group), "asc", engine) == ids
        assert await listed(SandboxQuery(metadata=group), "desc", engine) == ids[::-1]
        assert await listed(SandboxQuery(metadata=group, started_after=before), "asc", engine) == ids
        assert await listed(SandboxQuery(metadata=group, started_after=datetime.now(UTC)), None, engine) == []
        assert await listed(SandboxQuery(metadata=group, template="base"), "asc", engine) == ids
        assert await listed(SandboxQuery(metadata=group, template="another"), None, engine) == []
        await second.pause()
        assert await listed(SandboxQuery(metadata=group), None, engine) == ids[:1]
        assert await listed(SandboxQuery(metadata=group, state=BOTH), "asc", engine) == ids


async def test_pause_and_resume_without_memory(engine: Engine) -> None:
    async with await AsyncSandbox.create(**engine.options) as sandbox:
        await sandbox.commands.run("sleep 600", background=True)
        await sandbox.files.write("kept", "text")
        assert await sandbox.pause(keep_memory=False)
        await sandbox.resume()
        assert await sandbox.files.read("kept") == "text"
        assert [process for process in await sandbox.commands.list() if "sleep 600" in process.args] == []
        await sandbox.commands.run("sleep 600", background=True)
        await sandbox.pause()
        again = await AsyncSandbox.connect(sandbox.sandbox_id, on_resume="reboot", **engine.options)
        assert [process for process in await again.commands.list() if "sleep 600" in process.args] == []


async def test_the_same_key_makes_the_same_sandbox(engine: Engine) -> None:
    key = secrets.token_hex(8)
    async with await AsyncSandbox.create(idempotency_key=key, **engine.options) as sandbox:
        again = await AsyncSandbox.create(idempotency_key=key, **engine.options)
        assert again.sandbox_id == sandbox.sandbox_id


async def test_a_snapshot_by_its_name(engine: Engine) -> None:
    name = f"nightly-{secrets.token_hex(4)}"
    async with await AsyncSandbox.create(**engine.options) as sandbox:
        await sandbox.files.write("kept", "text")
        snapshot = await sandbox.create_snapshot(name)
        assert any(name in one for one in snapshot.names)
        assert [one.snapshot_id async for one in sandbox.list_snapshots(name=name)] == [snapshot.snapshot_id]
        async with await AsyncSandbox.create(name, **engine.options) as copy:
            assert await copy.files.read("kept") == "text"
        assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id, **engine.options)


async def test_a_class_with_other_defaults(engine: Engine) -> None:
    class Short(AsyncSandbox):
        default_sandbox_timeout = 77

    class Unknown(AsyncSandbox):
        default_template = "no-such-template"

    async with await Short.create(**engine.options) as sandbox:
        assert isinstance(sandbox, Short)
        info = await sandbox.get_info()
        assert 70 < (info.end_at - info.started_at).total_seconds() <= 78
    with pytest.raises(SandboxException):
        await Unknown.create(**engine.options)


async def test_the_names_that_came_before(engine: Engine) -> None:
    async with await AsyncSandbox.beta_create("base", auto_pause=True, **engine.options) as sandbox:
        info = await sandbox.get_info()
        assert info.lifecycle == {"on_timeout": "pause", "auto_resume": False}
        assert await sandbox.beta_pause() is True
        assert await AsyncSandbox.beta_pause(sandbox.sandbox_id, **engine.options) is False
