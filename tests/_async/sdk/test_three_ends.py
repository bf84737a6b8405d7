"""A killed sandbox, a killed engine and a cut network are three things, and each has its exception and its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from grotte import (
    ApiParams,
    ApiUnreachableException,
    AsyncGrotte,
    AsyncSandbox,
    GrotteException,
    SandboxHostUnreachableException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    TimeoutException,
)
from grotte._core import _aio, process_stream
from grotte._proto.options import TransportOptions
from tests.servers.fault_proxy import FaultProxy
from tests.support.engine import Engine, running_engine

#: How long each call may take to find out, in seconds: far less than the command would run.
LIMIT = 25.0
IMPATIENT = TransportOptions(ping_after=1, ping_timeout=1, connect_timeout=2, probe_timeout=1)


async def outcomes(sandbox: AsyncSandbox, disturb: Callable[[], Awaitable[None]]) -> dict[str, GrotteException]:
    """How calls end that are under way when something happens, and one that comes later."""
    found: dict[str, GrotteException] = {}

    async def wait_for(name: str, call: Callable[[], Awaitable[object]]) -> None:
        began = _aio.clock()
        try:
            await call()
        except GrotteException as error:
            found[name] = error
        assert _aio.clock() - began < LIMIT

    handle = await sandbox.commands.run("sleep 300", background=True, timeout=0)
    pty = await sandbox.pty.create(timeout=0)
    async with _aio.open_nursery() as nursery:
        nursery.start_soon(wait_for, "background", handle.wait)
        nursery.start_soon(wait_for, "foreground", lambda: sandbox.commands.run("sleep 301", timeout=0))
        nursery.start_soon(wait_for, "terminal", pty.wait)
        while len(await sandbox.commands.list()) < 3:
            await _aio.sleep(0.02)
        await disturb()
    await wait_for("later", lambda: sandbox.commands.run("true", request_timeout=2))
    return found


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_stream, "WINDOW_SECONDS", 2.0)
    monkeypatch.setattr(process_stream, "REFUSED_SECONDS", 1.0)
    monkeypatch.setattr(process_stream, "ATTEMPT_SECONDS", 2.0)


async def test_a_killed_sandbox(engine: Engine, hurry: None) -> None:
    sandbox = await AsyncSandbox.create(**engine.options)

    async def kill() -> None:
        await AsyncSandbox.kill(sandbox.sandbox_id, **engine.options)

    found = await outcomes(sandbox, kill)
    assert {name: type(error) for name, error in found.items()} == dict.fromkeys(found, SandboxNotRunningException)
    assert len(found) == 4
    with pytest.raises(SandboxNotFoundException):
        await sandbox.get_info()


async def test_a_killed_engine(tmp_path: Path, hurry: None) -> None:
    with running_engine(tmp_path / "data") as own:
        sandbox = await AsyncSandbox.create(**own.options)

        async def kill() -> None:
            own.process.kill()

        found = await outcomes(sandbox, kill)
        kinds = {name: type(error) for name, error in found.items()}
        assert kinds == dict.fromkeys(found, SandboxHostUnreachableException)
        assert len(found) == 4
        assert all("connect" in str(error) for error in found.values()), found
        with pytest.raises(ApiUnreachableException):
            await sandbox.get_info()


async def test_a_cut_network(engine: Engine, hurry: None) -> None:
    port = urlsplit(engine.url).port
    assert port is not None
    with FaultProxy(port) as proxy:
        options: ApiParams = {**engine.options, "sandbox_url": proxy.url}
        async with AsyncGrotte(transport=IMPATIENT, **options) as client:
            sandbox = await client.Sandbox.create()

            async def cut() -> None:
                proxy.swallow()

            found = await outcomes(sandbox, cut)
            kinds = {name: type(error) for name, error in found.items()}
            # its own time limit came first for the call that set one; it had not been told that the network is gone
            assert kinds.pop("later") in (TimeoutException, SandboxUnreachableException)
            assert kinds == dict.fromkeys(("background", "foreground", "terminal"), SandboxUnreachableException)
            assert await sandbox.kill(), "the control plane is reached another way: the sandbox lived on"
