"""Lists: page by page, and iterated over as often as one likes."""

from __future__ import annotations

import secrets

from grotte import AsyncSandbox, SandboxQuery
from tests.support.engine import Engine
from tests.support.stub_service import Answer, Seen, StubService, as_json


async def test_each_iteration_sees_what_is_there_then(engine: Engine) -> None:
    mark = {"mark": secrets.token_hex(8)}
    listed = AsyncSandbox.list(SandboxQuery(metadata=mark), limit=1, **engine.options)
    async with await AsyncSandbox.create(metadata=mark, **engine.options) as first:
        assert [info.sandbox_id async for info in listed] == [first.sandbox_id]
        assert [info.sandbox_id async for info in listed] == [first.sandbox_id]
        async with await AsyncSandbox.create(metadata=mark, **engine.options) as second:
            assert {info.sandbox_id async for info in listed} == {first.sandbox_id, second.sandbox_id}
        await AsyncSandbox.create_snapshot(first.sandbox_id, **engine.options)
        snapshots = first.list_snapshots(limit=1)
        ids = [snapshot.snapshot_id async for snapshot in snapshots]
        assert ids == [snapshot.snapshot_id async for snapshot in snapshots]
        assert len(ids) == 1
        await AsyncSandbox.delete_snapshot(ids[0], **engine.options)


def three_pages(seen: Seen) -> Answer:
    """Two snapshots a page, named after the page that was asked for."""
    page = int(dict(seen.query).get("nextToken", "0"))
    found = [{"snapshotID": f"{page}{letter}", "names": []} for letter in "ab"]
    return as_json(found, X_Next_Token=str(page + 1)) if page < 2 else as_json(found)


async def test_iterations_and_pages_do_not_disturb_each_other(stub: StubService) -> None:
    stub.answers["GET /snapshots"] = three_pages
    paginator = AsyncSandbox.list_snapshots(api_url=stub.url, api_key="grt_key")
    everything = ["0a", "0b", "1a", "1b", "2a", "2b"]
    async for snapshot in paginator:
        assert snapshot.snapshot_id == "0a"
        break
    # what an iteration left is not lost to the next one
    assert [snapshot.snapshot_id async for snapshot in paginator] == everything
    assert (paginator.has_next, paginator.next_token) == (True, None)
    assert [snapshot.snapshot_id for snapshot in await paginator.next_items()] == ["0a", "0b"]
    for _ in range(2):
        assert [snapshot.snapshot_id async for snapshot in paginator] == everything[2:]
    pages = []
    while paginator.has_next:
        pages += [snapshot.snapshot_id for snapshot in await paginator.next_items()]
    assert pages == everything[2:]
    assert [snapshot.snapshot_id async for snapshot in paginator] == []


async def test_two_iterations_side_by_side(stub: StubService) -> None:
    stub.answers["GET /snapshots"] = three_pages
    paginator = AsyncSandbox.list_snapshots(api_url=stub.url, api_key="grt_key")
    one, other = aiter(paginator), aiter(paginator)
    for _ in range(6):
        assert (await anext(one)).snapshot_id == (await anext(other)).snapshot_id
