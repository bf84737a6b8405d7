"""Which calls into a sandbox are repeated when its server asks for patience, and which are not."""

from __future__ import annotations

import pytest

from grotte import AsyncSandbox, GrotteException, RateLimitException, SandboxException
from grotte._core import _aio
from tests.support.stub_service import Answer, StubService, as_json

ID = "iabcdefghij0123456789"
LIST = "POST /process.Process/List"
MOVE = "POST /filesystem.Filesystem/Move"
BUSY = {"code": "resource_exhausted", "message": "slow down"}


@pytest.fixture
async def sandbox(stub: StubService) -> AsyncSandbox:
    created = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.5.7"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(created)
    stub.answers["GET /health"] = Answer(204)
    return await AsyncSandbox.connect(ID, api_url=stub.url, sandbox_url=stub.url, api_key="k")


async def test_a_call_that_may_be_repeated_waits_as_long_as_it_is_told(
    stub: StubService, sandbox: AsyncSandbox
) -> None:
    stub.answers[LIST] = [as_json(BUSY, 429, Retry_After="1"), as_json(BUSY, 503, Should_Retry="true"), as_json({})]
    started = _aio.clock()
    assert await sandbox.commands.list() == []
    assert _aio.clock() - started >= 1
    assert len(stub.calls(LIST)) == 3


@pytest.mark.parametrize(
    "headers", [{}, {"Retry_After": "0", "Should_Retry": "false"}, {"Retry_After": "9999"}, {"Retry_After": "30"}]
)
async def test_nobody_waits_unasked_or_beyond_the_limit(
    stub: StubService, sandbox: AsyncSandbox, headers: dict[str, str]
) -> None:
    stub.answers[LIST] = as_json(BUSY, 429, **headers)
    with pytest.raises(RateLimitException, match="slow down"):
        await sandbox.commands.list(request_timeout=5)
    assert len(stub.calls(LIST)) == 1


@pytest.mark.parametrize(("headers", "times"), [({"Retry_After": "0"}, 1), ({"Should_Retry": "true"}, 2)])
async def test_a_call_that_may_not_be_repeated_is_so_only_if_the_server_did_nothing(
    stub: StubService, sandbox: AsyncSandbox, headers: dict[str, str], times: int
) -> None:
    refused = as_json({"code": "not_found", "message": "no such file"}, 404)
    stub.answers[MOVE] = [as_json(BUSY, 503, **headers), refused]
    with pytest.raises(GrotteException) as caught:
        await sandbox.files.rename("a", "b")
    assert len(stub.calls(MOVE)) == times
    assert isinstance(caught.value, SandboxException)


async def test_patience_has_an_end(stub: StubService, sandbox: AsyncSandbox) -> None:
    stub.answers[LIST] = as_json(BUSY, 429, Retry_After="0")
    with pytest.raises(RateLimitException):
        await sandbox.commands.list()
    assert 2 <= len(stub.calls(LIST)) <= 5
