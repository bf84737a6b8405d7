"""What the tests of the wire script: ids, answers, and a sandbox of a service that is none."""

from __future__ import annotations

import base64
import json

from grotte import ApiParams, AsyncSandbox
from grotte._proto.connect import FLAG_END_STREAM, pack
from tests.support.stub_service import Answer, StubService, as_json

ID = "iabcdefghij0123456789"
START = "POST /process.Process/Start"
STAT = "POST /filesystem.Filesystem/Stat"
LIST = "POST /process.Process/List"
SANDBOXES = "GET /v2/sandboxes"
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
