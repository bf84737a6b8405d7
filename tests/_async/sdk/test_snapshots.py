"""Snapshots and forks, as they go over the wire."""

from __future__ import annotations

import pytest

from grotte import (
    ApiParams,
    AsyncSandbox,
    InvalidArgumentException,
    SandboxException,
    SandboxNotFoundException,
    SnapshotInfo,
)
from tests.support.stub_service import Answer, StubService, as_json

ID = "iabcdefghij0123456789"
FORK = f"POST /sandboxes/{ID}/fork"


def options(stub: StubService) -> ApiParams:
    return {"api_url": stub.url, "sandbox_url": stub.url, "api_key": "grt_key"}


def made(sandbox_id: str) -> dict[str, object]:
    return {"templateID": "base", "sandboxID": sandbox_id, "clientID": "c", "envdVersion": "0.5.7"}


async def connected(stub: StubService) -> AsyncSandbox:
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(made(ID))
    return await AsyncSandbox.connect(ID, **options(stub))


async def test_pages_of_snapshots(stub: StubService) -> None:
    sandbox = await connected(stub)
    one, two = {"snapshotID": "t:a", "names": ["x"]}, {"snapshotID": "t:b", "names": []}
    stub.answers["GET /snapshots"] = [as_json([one], X_Next_Token="more"), as_json([two])]
    assert [snapshot async for snapshot in sandbox.list_snapshots(limit=1)] == [
        SnapshotInfo("t:a", ["x"]),
        SnapshotInfo("t:b"),
    ]
    assert [seen.query for seen in stub.calls("GET /snapshots")] == [
        [("sandboxID", ID), ("limit", "1")],
        [("sandboxID", ID), ("limit", "1"), ("nextToken", "more")],
    ]
    paginator = AsyncSandbox.list_snapshots(**options(stub))
    assert [snapshot.snapshot_id for snapshot in await paginator.next_items()] == ["t:b"]
    assert stub.seen[-1].query == []
    assert stub.seen[-1].headers["x-api-key"] == "grt_key"
    assert not paginator.has_next
    with pytest.raises(SandboxException, match="no more"):
        await paginator.next_items()
    with pytest.raises(InvalidArgumentException):
        sandbox.list_snapshots(limit=101)


async def test_a_snapshot_is_deleted(stub: StubService) -> None:
    path = "/templates/team%2Fsnap%3Adefault"
    stub.answers[f"DELETE {path}"] = [Answer(204), as_json({"code": 404, "message": "gone"}, 404)]
    assert await AsyncSandbox.delete_snapshot("team/snap:default", **options(stub))
    assert not await AsyncSandbox.delete_snapshot("team/snap:default", **options(stub))
    with pytest.raises(InvalidArgumentException):
        await AsyncSandbox.delete_snapshot("", **options(stub))


async def test_forks(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[FORK] = as_json([{"sandbox": made("i1")}, {"sandbox": made("i2")}], 201)
    assert [fork.sandbox_id for fork in await sandbox.fork(2, timeout=59.5)] == ["i1", "i2"]
    assert stub.seen[-1].json == {"timeout": 60, "count": 2}
    stub.answers[FORK] = as_json([{"sandbox": made("i3")}], 201)
    (fork,) = await AsyncSandbox.fork(ID, **options(stub))
    assert fork.sandbox_id == "i3"
    assert stub.seen[-1].json == {"timeout": 300, "count": 1}
    stub.answers[FORK] = as_json({"code": 404, "message": "no such sandbox"}, 404)
    with pytest.raises(SandboxNotFoundException):
        await sandbox.fork()
    for count in (0, 21, True, 1.5):
        with pytest.raises(InvalidArgumentException):
            await sandbox.fork(count)  # type: ignore[arg-type]  # a float is one of them


async def test_a_fork_that_fails_takes_the_others_with_it(stub: StubService) -> None:
    sandbox = await connected(stub)
    error = {"code": 500, "message": "no memory left"}
    stub.answers[FORK] = as_json([{"sandbox": made("i1")}, {"error": error}], 201)
    stub.answers["DELETE /sandboxes/i1"] = Answer(204)
    with pytest.raises(SandboxException, match=r"1 of 2 .* no memory left"):
        await sandbox.fork(2)
    assert len(stub.calls("DELETE /sandboxes/i1")) == 1


async def test_fewer_forks_than_were_asked_for(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers[FORK] = as_json([], 201)
    with pytest.raises(SandboxException, match="0 of 1"):
        await sandbox.fork()
    assert len(stub.calls(FORK)) == 1
