"""A build that its caller cancels: nothing of it goes on here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from grotte import AsyncTemplate, LogEntry, LogEntryEnd
from tests.support.stub_service import Answer, as_json, running_stub

STATUS = "GET /templates/t1/builds/b1/status"
ENOUGH = 3


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_nothing_goes_on() -> None:
    entries: list[LogEntry] = []
    told = anyio.Event()
    with running_stub() as stub:
        waiting = {"templateID": "t1", "buildID": "b1", "status": "building", "logs": []}
        line = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "message": "still busy"}
        stub.answers["POST /v3/templates"] = as_json({"templateID": "t1", "buildID": "b1", "tags": []}, 202)
        stub.answers["POST /v2/templates/t1/builds/b1"] = Answer(202)
        stub.answers[STATUS] = [*[as_json(waiting | {"logEntries": [line]})] * ENOUGH, as_json(waiting)]

        async def listen(entry: LogEntry) -> None:
            await anyio.sleep(0)  # where a cancellation would strike
            entries.append(entry)
            if [kept.message for kept in entries].count("still busy") == ENOUGH:
                told.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(build, stub.url, listen)
            await told.wait()
            tasks.cancel_scope.cancel()
        assert isinstance(entries[-1], LogEntryEnd)
        seen = len(stub.seen)
        await anyio.sleep(0.5)
        assert len(stub.seen) == seen


async def build(url: str, listen: Callable[[LogEntry], Awaitable[None]]) -> None:
    await AsyncTemplate.build(AsyncTemplate(), "n", on_build_logs=listen, api_url=url, api_key="grt_key")
