"""The life of sandboxes, on the real engine."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest

from grotte import (
    AsyncSandbox,
    AuthenticationException,
    GrotteException,
    InvalidArgumentException,
    SandboxException,
    SandboxMetrics,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
    TemplateException,
)
from grotte._core import _aio
from grotte._core.transport import default_transport
from tests.support.engine import Engine

UNKNOWN = "i" + "0" * 20


async def test_a_block_ends_with_a_kill(engine: Engine) -> None:
    async with await AsyncSandbox.create(**engine.options) as sandbox:
        assert await sandbox.is_running()
    assert not await sandbox.is_running()
    with pytest.raises(SandboxNotFoundException):
        await sandbox.get_info()


async def test_a_block_that_fails_ends_with_a_kill_too(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await AsyncSandbox.create(**engine.options) as sandbox:
            raise ZeroDivisionError
    assert not await sandbox.is_running()


async def test_what_it_was_created_with(engine: Engine) -> None:
    sandbox = await AsyncSandbox.create(
        "base", timeout=120, metadata={"k&": "v 1", "ü": "=%"}, envs={"MODE": "test"}, **engine.options
    )
    async with sandbox:
        info = await sandbox.get_info()
        assert info.sandbox_id == sandbox.sandbox_id
        assert info.metadata == {"k&": "v 1", "ü": "=%"}
        assert info.state is SandboxState.RUNNING
        assert 100 < (info.end_at - info.started_at).total_seconds() <= 121
        assert info.name == "base"
        assert info.envd_version == sandbox.envd_version
        assert (await sandbox.commands.run("echo $MODE")).stdout == "test\n"


async def test_kill_says_whether_it_was_there(engine: Engine) -> None:
    sandbox = await AsyncSandbox.create(**engine.options)
    assert await sandbox.kill() is True
    assert await sandbox.kill() is False
    other = await AsyncSandbox.create(**engine.options)
    assert await AsyncSandbox.kill(other.sandbox_id, **engine.options) is True
    assert await AsyncSandbox.kill(sandbox_id=other.sandbox_id, **engine.options) is False


async def test_connect_finds_it_again(engine: Engine, sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/mark", "here")
    again = await AsyncSandbox.connect(sandbox.sandbox_id, **engine.options)
    assert again.sandbox_id == sandbox.sandbox_id
    assert await again.files.read("/tmp/mark") == "here"
    assert await sandbox.connect(timeout=600) is sandbox
    info = await sandbox.get_info()
    assert (info.end_at - info.started_at).total_seconds() > 500
    resumed = await AsyncSandbox.resume(sandbox.sandbox_id, **engine.options)
    assert resumed.sandbox_id == sandbox.sandbox_id


async def test_set_timeout_sets_and_shortens(engine: Engine, sandbox: AsyncSandbox) -> None:
    before = await sandbox.get_info()
    await sandbox.set_timeout(1000)
    longer = await AsyncSandbox.get_info(sandbox.sandbox_id, **engine.options)
    assert (longer.end_at - before.end_at).total_seconds() > 600
    await AsyncSandbox.set_timeout(sandbox.sandbox_id, 30, **engine.options)
    assert (await sandbox.get_info()).end_at < before.end_at


async def test_refresh_ttl_only_extends(engine: Engine, sandbox: AsyncSandbox) -> None:
    before = await sandbox.get_info()
    await sandbox.refresh_ttl(10)
    assert (await sandbox.get_info()).end_at == before.end_at
    await sandbox.refresh_ttl(duration=900)
    await AsyncSandbox.refresh_ttl(sandbox.sandbox_id, 901, **engine.options)
    assert ((await sandbox.get_info()).end_at - before.end_at).total_seconds() > 500


async def test_its_time_is_over(engine: Engine) -> None:
    sandbox = await AsyncSandbox.create(timeout=1, **engine.options)
    while await sandbox.is_running():
        await _aio.sleep(0.05)
    with pytest.raises(SandboxNotRunningException):
        await sandbox.commands.run("true")
    assert await sandbox.kill() is False


async def test_list_by_metadata(engine: Engine) -> None:
    mark = secrets.token_hex(8)
    odd = {"mark": mark, "k&=": "v 1+%/ü"}
    async with (
        await AsyncSandbox.create(metadata=odd, **engine.options) as first,
        await AsyncSandbox.create(metadata={"mark": mark}, **engine.options) as second,
    ):
        found = []
        async for info in AsyncSandbox.list(SandboxQuery(metadata={"mark": mark}), limit=1, **engine.options):
            found.append(info.sandbox_id)
        assert sorted(found) == sorted([first.sandbox_id, second.sandbox_id])
        paginator = AsyncSandbox.list(SandboxQuery(metadata=odd), **engine.options)
        assert paginator.has_next
        assert [info.sandbox_id for info in await paginator.next_items()] == [first.sandbox_id]
        assert not paginator.has_next
        assert paginator.next_token is None
        with pytest.raises(SandboxException, match="no more items"):
            await paginator.next_items()


async def test_pages_follow_each_other(engine: Engine) -> None:
    query = SandboxQuery(metadata={"pages": secrets.token_hex(8)}, state=[SandboxState.RUNNING, SandboxState.PAUSED])
    sandboxes = [await AsyncSandbox.create(metadata=query.metadata, **engine.options) for _ in range(3)]
    first = AsyncSandbox.list(query, limit=2, **engine.options)
    page = await first.next_items()
    assert len(page) == 2
    assert first.next_token
    rest = AsyncSandbox.list(query, limit=2, next_token=first.next_token, **engine.options)
    page += await rest.next_items()
    assert {info.sandbox_id for info in page} == {sandbox.sandbox_id for sandbox in sandboxes}
    for sandbox in sandboxes:
        await sandbox.kill()


async def test_hosts_and_urls(engine: Engine, sandbox: AsyncSandbox) -> None:
    port = engine.url.rsplit(":", 1)[1]
    assert sandbox.get_host(8000) == f"8000-{sandbox.sandbox_id}.{sandbox.sandbox_domain}"
    assert sandbox.sandbox_domain == f"localhost:{port}"
    assert sandbox.get_url(8000) == f"http://8000-{sandbox.sandbox_id}.localhost:{port}"
    for wrong in (0, 65536, "80"):
        with pytest.raises(InvalidArgumentException):
            sandbox.get_host(wrong)  # type: ignore[arg-type]  # that is the point


async def test_representations_hold_no_secret(engine: Engine, sandbox: AsyncSandbox) -> None:
    assert repr(sandbox) == AsyncSandbox.__name__ + f"(sandbox_id={sandbox.sandbox_id!r})"
    assert engine.api_key not in repr(sandbox.connection_config)
    with pytest.raises(AuthenticationException) as caught:
        await AsyncSandbox.create(api_url=engine.url, api_key="grt_wrong_key")
    assert "grt_wrong_key" not in str(caught.value)


async def test_a_sandbox_that_was_killed(engine: Engine) -> None:
    sandbox = await AsyncSandbox.create(**engine.options)
    handle = await sandbox.commands.run("sleep 60", background=True)
    await sandbox.kill()
    calls = [
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.commands.list(),
        lambda: sandbox.files.read("/etc/passwd"),
        lambda: sandbox.files.write("/tmp/x", "y"),
        lambda: sandbox.files.exists("/tmp"),
        lambda: handle.wait(),
    ]
    for call in calls:
        with pytest.raises(SandboxNotRunningException) as caught:
            await call()
        assert caught.value.sandbox_id == sandbox.sandbox_id
    with pytest.raises(SandboxNotFoundException):
        await sandbox.set_timeout(10)


async def test_a_handle_outlives_the_block_of_its_sandbox(engine: Engine) -> None:
    async with await AsyncSandbox.create(**engine.options) as sandbox:
        handle = await sandbox.commands.run("echo early; sleep 60", background=True)
        assert await anext(aiter(handle.stdout)) == "early\n"
    with pytest.raises(SandboxNotRunningException):
        await handle.wait()
    assert handle.stdout == "early\n"
    assert default_transport().counters.streams_open == 0


async def test_an_unknown_sandbox(engine: Engine) -> None:
    with pytest.raises(SandboxNotFoundException) as caught:
        await AsyncSandbox.connect(UNKNOWN, **engine.options)
    assert caught.value.sandbox_id == UNKNOWN
    assert caught.value.status_code == 404
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.get_info(UNKNOWN, **engine.options)
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.set_timeout(UNKNOWN, 10, **engine.options)
    assert await AsyncSandbox.kill(UNKNOWN, **engine.options) is False


async def test_an_unknown_template(engine: Engine) -> None:
    with pytest.raises(TemplateException) as caught:
        await AsyncSandbox.create("no-such-template", **engine.options)
    assert caught.value.request == "POST /sandboxes"
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    "arguments",
    [
        {"template": ""},
        {"template": "a b"},
        {"template": 3},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "60"},
        {"timeout": True},
        {"metadata": {"a": 1}},
        {"metadata": [("a", "b")]},
        {"envs": {"A=B": "c"}},
        {"secure": "yes"},
        {"allow_internet_access": None},
        {"lifecycle": {"on_timeout": "sleep"}},
        {"lifecycle": {"on_timeout": "kill", "auto_resume": True}},
        {"lifecycle": {"when": "now"}},
        {"network": {"allow": []}},
        {"network": {"allow_out": "1.1.1.1"}},
        {"network": {"dns_servers": [1]}},
        {"network": {"https_ports": 8443}},
        {"network": {"https_ports": [65536]}},
        {"volume_mounts": {"/data": 3}},
        {"request_timeout": -1},
        {"api_key": "line\nbreak"},
        {"api_key": "schlüssel"},
        {"api_key": ""},
        {"api_url": "ftp://host"},
        {"api_url": "http://"},
        {"api_url": "http://host:99999"},
        {"api_url": "http://host/\n"},
        {"api_url": "http://user:pass@host"},
        {"domain": "a b"},
        {"domain": "a..b"},
        {"domain": "https://grotte.dev"},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"Host": "other"}},
        {"proxy": "ftp://proxy"},
    ],
)
async def test_what_cannot_be_right_is_refused(arguments: dict[str, object]) -> None:
    options = {"api_url": "http://127.0.0.1:9", "api_key": "grt_x", **arguments}
    with pytest.raises(InvalidArgumentException):
        await AsyncSandbox.create(**options)  # type: ignore[arg-type]  # that is the point


async def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="api_kee"):
        await AsyncSandbox.create(api_kee="x")  # type: ignore[call-arg]  # that is the point


@pytest.mark.parametrize("sandbox_id", ["", "a b", "ü", "a\n", 3, None, "x" * 1000])
async def test_what_is_no_id_is_refused(engine: Engine, sandbox_id: str) -> None:
    for call in (AsyncSandbox.connect, AsyncSandbox.kill, AsyncSandbox.get_info, AsyncSandbox.pause):
        with pytest.raises(InvalidArgumentException):
            await call(sandbox_id, **engine.options)


@pytest.mark.parametrize("sandbox_id", ["../../sandboxes", "a/b", "a%2Fb", "?", "#"])
async def test_an_id_cannot_lead_elsewhere(engine: Engine, sandbox_id: str) -> None:
    with pytest.raises(GrotteException) as caught:
        await AsyncSandbox.get_info(sandbox_id, **engine.options)
    assert caught.value.status_code in (400, 404)


async def test_what_it_used(sandbox: AsyncSandbox, engine: Engine) -> None:
    samples: list[SandboxMetrics] = []
    while not samples:
        samples = await sandbox.get_metrics()
    info = await sandbox.get_info()
    for sample in samples:
        assert sample.cpu_count == info.cpu_count
        assert 0 < sample.mem_used < sample.mem_total <= info.memory_mb * 2**20
        assert 0 <= sample.disk_used < sample.disk_total
        assert sample.cpu_used_pct >= 0
        assert abs((sample.timestamp - info.started_at).total_seconds()) < 60
    by_id = await AsyncSandbox.get_metrics(sandbox.sandbox_id, start=info.started_at, **engine.options)
    assert by_id[0].timestamp == samples[0].timestamp
    tomorrow = info.started_at + timedelta(days=1)
    assert await sandbox.get_metrics(start=tomorrow) == []
    with pytest.raises(InvalidArgumentException):
        await sandbox.get_metrics(start=12)  # type: ignore[arg-type]  # that is the point


async def test_wrong_arguments_of_calls_on_a_sandbox(sandbox: AsyncSandbox) -> None:
    for seconds in (-1, float("nan"), "1", None):
        with pytest.raises(InvalidArgumentException):
            await sandbox.set_timeout(seconds)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(InvalidArgumentException):
            await sandbox.refresh_ttl(seconds)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgumentException):
        await sandbox.refresh_ttl(10, duration=10)
    with pytest.raises(InvalidArgumentException):
        await sandbox.set_network("on")  # type: ignore[arg-type]  # that is the point
    for query in (SandboxQuery(state=["gone"]), SandboxQuery(metadata={"a": 1})):  # type: ignore[list-item,dict-item]  # that is the point
        with pytest.raises(InvalidArgumentException):
            AsyncSandbox.list(query)
    for limit in (0, 101, "1"):
        with pytest.raises(InvalidArgumentException):
            AsyncSandbox.list(limit=limit)  # type: ignore[arg-type]  # that is the point
