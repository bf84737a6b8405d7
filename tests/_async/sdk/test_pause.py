"""Pausing and resuming a sandbox, on a real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from grotte import AsyncSandbox, NotFoundException
from grotte.errors import GrotteException
from tests.support.engine import Engine


@pytest.fixture
async def sandbox(engine: Engine) -> AsyncIterator[AsyncSandbox]:
    made = await AsyncSandbox.create(**engine.options)
    yield made
    await made.kill()


async def test_a_process_goes_on_after_a_pause(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
    assert await sandbox.pause() is True
    assert await sandbox.pause() is False
    assert await sandbox.is_running() is False
    await sandbox.resume()
    assert await sandbox.is_running() is True
    await sandbox.commands.send_stdin(handle.pid, "hello\n")
    assert (await handle.wait()).stdout == "got hello\n"


async def test_a_paused_sandbox_is_found_by_its_state(sandbox: AsyncSandbox, engine: Engine) -> None:
    await sandbox.files.write("kept", "text")
    await sandbox.pause()
    assert (await sandbox.get_info()).state == "paused"
    with pytest.raises(GrotteException):
        await sandbox.files.read("kept")
    again = await AsyncSandbox.connect(sandbox.sandbox_id, **engine.options)
    assert await again.files.read("kept") == "text"
    assert (await again.get_info()).state == "running"


async def test_a_killed_sandbox_cannot_be_paused(sandbox: AsyncSandbox) -> None:
    await sandbox.pause()
    assert await sandbox.kill() is True
    with pytest.raises(NotFoundException):
        await sandbox.pause()
