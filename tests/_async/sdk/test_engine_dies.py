"""An engine that is killed in the middle of a call: a clear exception, and nothing hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from grotte import ApiUnreachableException, AsyncSandbox, GrotteException, SandboxHostUnreachableException
from grotte._core import _aio
from tests.support.engine import running_engine


async def test_calls_under_way_and_calls_afterwards(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data") as engine:
        sandbox = await AsyncSandbox.create(**engine.options)
        handle = await sandbox.commands.run("sleep 60", background=True)
        outcomes: dict[str, GrotteException] = {}

        async def waits() -> None:
            try:
                await handle.wait()
            except GrotteException as error:
                outcomes["handle"] = error

        async def runs() -> None:
            try:
                await sandbox.commands.run("sleep 50")
            except GrotteException as error:
                outcomes["run"] = error

        async with _aio.open_nursery() as nursery:
            nursery.start_soon(waits)
            nursery.start_soon(runs)
            while len(await sandbox.commands.list()) < 2:
                await _aio.sleep(0.02)
            engine.process.kill()

        assert {name: type(error) for name, error in outcomes.items()} == {
            "handle": SandboxHostUnreachableException,
            "run": SandboxHostUnreachableException,
        }
        for call in (sandbox.commands.list, sandbox.is_running, lambda: sandbox.files.read("/etc/passwd")):
            with pytest.raises(SandboxHostUnreachableException) as caught:
                await call()
            assert caught.value.sandbox_id == sandbox.sandbox_id
        for call in (sandbox.kill, sandbox.get_info):
            with pytest.raises(ApiUnreachableException):
                await call()
        with pytest.raises(ApiUnreachableException):
            await AsyncSandbox.create(**engine.options)
        with pytest.raises(ZeroDivisionError):
            async with sandbox:
                raise ZeroDivisionError  # what happened counts more than the kill that cannot succeed
