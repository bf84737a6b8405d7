"""Servers whose answers are damaged in any way: each is understood, or an exception of ours says what it was about."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from grotte import AsyncSandbox, GrotteException
from grotte._proto.connect import FLAG_END_STREAM, pack
from tests._async.sdk.scripted import CREATED, DETAIL, ID, LIST, START, STAT, connected, text
from tests.support.mutation import mutate
from tests.support.stub_service import Answer, StubService, as_json

Call = Callable[[AsyncSandbox], Any]

ROUNDS = 25
ENTRY = {"name": "a", "type": "FILE_TYPE_FILE", "path": "/a", "size": "1", "modifiedTime": "2026-01-02T03:04:05Z"}
EVENTS = (
    {"start": {"pid": 7}},
    {"data": {"stdout": text(b"hello")}},
    {"end": {"exited": True, "status": "exit status 0"}},
)
#: The true answer to each call, which lies are made of.
TRUTHS: dict[str, tuple[Call, object]] = {
    f"GET /sandboxes/{ID}": (lambda s: s.get_info(), DETAIL),
    f"POST /sandboxes/{ID}/connect": (lambda s: s.connect(), CREATED),
    f"POST /sandboxes/{ID}/snapshots": (lambda s: s.create_snapshot(), {"snapshotID": "s", "names": ["n"]}),
    STAT: (lambda s: s.files.get_info("/a"), {"entry": ENTRY}),
    "POST /filesystem.Filesystem/ListDir": (lambda s: s.files.list("/"), {"entries": [ENTRY, ENTRY]}),
    "POST /files": (lambda s: s.files.write("/a", "x"), [{"name": "a", "type": "file", "path": "/a", "entry": ENTRY}]),
    LIST: (lambda s: s.commands.list(), {"processes": [{"pid": 1, "config": {"cmd": "x", "args": ["y"]}}]}),
}


async def judge(sandbox: AsyncSandbox, call: Call) -> bool:
    """Whether the answer was understood; if not, that it was said properly."""
    try:
        repr(await call(sandbox))
    except GrotteException as error:
        failure = error
    else:
        return True
    assert failure.sandbox_id == ID
    assert failure.request
    assert len(str(failure)) < 1000
    assert "grt_key" not in str(failure)
    return False


@pytest.mark.parametrize("route", TRUTHS)
async def test_answers_that_are_damaged(stub: StubService, route: str) -> None:
    call, truth = TRUTHS[route]
    sandbox = await connected(stub)
    stub.answers[STAT] = as_json({"entry": ENTRY})
    stub.answers["GET /health"] = Answer(204)
    rng = random.Random(route)
    stub.answers[route] = as_json(truth)
    assert await judge(sandbox, call)
    understood = 0
    for _ in range(ROUNDS):
        stub.answers[route] = Answer(200, mutate(rng, [json.dumps(truth).encode()]))
        understood += await judge(sandbox, call)
    assert understood < ROUNDS


async def test_a_number_that_is_none(stub: StubService) -> None:
    sandbox = await connected(stub)
    wrong: list[object] = ["x", "", "1e5", "2026-01-02", None, 1.5, {}]
    for size in wrong:
        stub.answers[STAT] = as_json({"entry": {**ENTRY, "size": size}})
        with pytest.raises(GrotteException, match="not understood"):
            await sandbox.files.get_info("/a")


async def test_streams_that_are_damaged(stub: StubService) -> None:
    sandbox = await connected(stub)
    stub.answers["GET /health"] = Answer(204)
    rng = random.Random(6)
    understood = 0
    for _ in range(ROUNDS):
        envelopes = [pack(mutate(rng, [json.dumps({"event": event}).encode()])) for event in EVENTS]
        stub.answers[START] = Answer(200, chunks=[*envelopes, pack(b"{}", FLAG_END_STREAM)])
        understood += await judge(sandbox, lambda s: s.commands.run("true", check=False, timeout=2))
    assert understood < ROUNDS
