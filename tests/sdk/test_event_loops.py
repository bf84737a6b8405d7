"""One sandbox in several event loops, one after the other and at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest
import trio

from grotte import (
    AsyncCommandHandle,
    AsyncFileStreamReader,
    AsyncPtyHandle,
    AsyncSandbox,
    AsyncWatchHandle,
    SandboxException,
)
from tests._async.sdk.scripted import CREATED, ID, START, events
from tests.support.engine import Engine, environment
from tests.support.stub_service import as_json, running_stub

T = TypeVar("T")
#: Programs that end while a command of theirs goes on, over HTTP/2 and over HTTP/1.1.
FORGETFUL = """
import asyncio, sys, trio
from grotte import AsyncSandbox

async def main():
    if len(sys.argv) > 1:
        where = {{"api_url": sys.argv[1], "sandbox_url": sys.argv[1], "api_key": "grt_key"}}
        sandbox = await AsyncSandbox.connect("iabcdefghij0123456789", **where)
        return sandbox, await sandbox.commands.run("exec sleep 100", background=True)
    sandbox = await AsyncSandbox.create("base", timeout=30)
    handle = await sandbox.commands.run("exec sleep 100", background=True)
    watch = await sandbox.files.watch_dir("/tmp")
    print(sandbox.sandbox_id)
    return sandbox, handle, watch

{run}
print("end")
"""


@dataclass
class Made:
    """What was made in one event loop."""

    sandbox: AsyncSandbox
    command: AsyncCommandHandle
    pty: AsyncPtyHandle
    watch: AsyncWatchHandle


async def make(engine: Engine) -> Made:
    sandbox = await AsyncSandbox.create("base", timeout=120, **engine.options)
    command = await sandbox.commands.run("echo one; read line; echo $line", background=True, stdin=True)
    return Made(sandbox, command, await sandbox.pty.create(), await sandbox.files.watch_dir("/tmp"))


async def end(made: Made) -> None:
    async with made.sandbox:
        assert await made.sandbox.is_running()


@contextmanager
def loop_on_a_thread() -> Iterator[Callable[[Awaitable[T]], T]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def awaited(what: Awaitable[T]) -> T:
        return await what

    try:
        yield lambda what: asyncio.run_coroutine_threadsafe(awaited(what), loop).result(60)
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_what_was_made_goes_on_in_the_next_run(engine: Engine) -> None:
    made = asyncio.run(make(engine))

    async def go_on() -> None:
        assert (await made.sandbox.commands.run("echo hello")).stdout == "hello\n"
        await made.command.send_stdin("two\n")
        assert (await made.command.wait()).stdout == "one\ntwo\n"
        await made.pty.send_stdin("echo $((6 * 7))\n")
        seen = b""
        while b"42" not in seen:
            seen += await made.pty.read(timeout=10)
        assert await made.pty.kill()
        for _ in range(2):  # what happened meanwhile, nobody has seen
            with pytest.raises(SandboxException, match=f"ended with the event loop.*{made.sandbox.sandbox_id}"):
                await made.watch.get_new_events()
        await made.watch.stop()

    asyncio.run(go_on())
    asyncio.run(end(made))


def test_a_file_goes_on_in_its_own_loop_alone(engine: Engine) -> None:
    async def begin() -> tuple[AsyncSandbox, AsyncFileStreamReader]:
        sandbox = await AsyncSandbox.create("base", timeout=120, **engine.options)
        await sandbox.files.write("/tmp/x", b"x" * 5_000_000)
        return sandbox, await sandbox.files.read("/tmp/x", "stream")

    async def refused(reader: AsyncFileStreamReader) -> None:
        with pytest.raises(SandboxException, match=r"another event loop.*GET /files"):
            async with reader:
                await anext(reader)

    sandbox, reader = asyncio.run(begin())
    asyncio.run(refused(reader))
    with loop_on_a_thread() as there:
        other, reader = there(begin())
        asyncio.run(refused(reader))
    for left in (sandbox, other):
        asyncio.run(AsyncSandbox.kill(left.sandbox_id, **engine.options))


def test_an_iteration_goes_on_in_the_next_run(engine: Engine) -> None:
    made = asyncio.run(make(engine))

    async def collect() -> list[str]:
        await made.command.send_stdin("two\n")
        return [text async for text in made.command.stdout]

    assert "".join(asyncio.run(collect())) == "one\ntwo\n"
    asyncio.run(end(made))


async def refused_here(made: Made) -> None:
    """Whatever reads or closes a stream says where it belongs; all else works."""
    calls: list[Callable[[], Awaitable[object]]] = [
        made.command.wait,
        made.command.disconnect,
        lambda: anext(aiter(made.command)),
        lambda: anext(aiter(made.command.stdout)),
        made.pty.read,
        made.pty.wait,
        made.pty.kill,
        made.watch.get_new_events,
        made.watch.wait,
        made.watch.stop,
    ]
    for call in calls:
        with pytest.raises(SandboxException, match="another event loop"):
            await call()
    assert (await made.sandbox.commands.run("echo hello")).stdout == "hello\n"
    again = await made.sandbox.commands.connect(made.command.pid)
    await made.command.send_stdin("two\n")
    assert (await again.wait()).stdout == "two\n"
    await made.pty.resize(rows=10, cols=20)


@pytest.mark.parametrize("run", [lambda call, made: asyncio.run(call(made)), trio.run], ids=["asyncio", "trio"])
def test_two_loops_at_once(engine: Engine, run: Callable[..., object]) -> None:
    with loop_on_a_thread() as there:
        made = there(make(engine))
        run(refused_here, made)
        assert there(made.command.wait()).stdout == "one\ntwo\n"
        run(end, made)
        with pytest.raises(SandboxException):
            there(made.watch.wait())


def test_deadlines_of_trio_mean_nothing_in_another_run(engine: Engine) -> None:
    made = trio.run(make, engine)
    trio.run(refused_here, made)
    asyncio.run(refused_here_again(made))


async def refused_here_again(made: Made) -> None:
    with pytest.raises(SandboxException, match="another event loop"):
        await made.command.wait()
    assert await made.sandbox.kill()


RUNS = ["kept = asyncio.run(main())", "asyncio.run(main())", "kept = trio.run(main)"]


def forget(run: str, variables: dict[str, str], *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", FORGETFUL.format(run=run), *arguments]
    done = subprocess.run(
        command, env=environment() | variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("run", RUNS)
def test_a_program_that_leaves_a_command_behind_ends_without_a_word(engine: Engine, run: str) -> None:
    sandbox_id, last = forget(run, {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key})
    assert last == "end"
    asyncio.run(AsyncSandbox.kill(sandbox_id, **engine.options))


@pytest.mark.parametrize("run", RUNS)
def test_the_same_over_http1(run: str) -> None:
    with running_stub() as stub:
        stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(CREATED)
        started = stub.answers[START] = events({"start": {"pid": 1}}, {"end": {"exited": True}}, end={})
        started.pause = 1
        assert forget(run, {}, stub.url) == ["end"]
