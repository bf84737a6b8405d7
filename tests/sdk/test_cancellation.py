"""A call may be cancelled at any await: the sandbox and the connection stay usable, and nothing is left behind."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import anyio
import pytest

from grotte import AsyncSandbox
from grotte._core.transport import default_transport
from tests._async.sdk.scripted import START, connected, events
from tests.support.engine import Engine
from tests.support.stub_service import Answer, Seen, as_json, running_stub

ROUNDS = 40
KILL = "POST /process.Process/SendSignal"


@pytest.fixture
async def sandbox(engine: Engine) -> AsyncIterator[AsyncSandbox]:
    async with await AsyncSandbox.create("base", **engine.options) as made:
        yield made


def calls_on(sandbox: AsyncSandbox) -> dict[str, Callable[[], Awaitable[object]]]:
    files, commands = sandbox.files, sandbox.commands
    return {
        "run": lambda: commands.run("echo x; sleep 0.005; echo y"),
        "list": commands.list,
        "write": lambda: files.write("/tmp/x", b"x" * 400_000),
        "write_files": lambda: files.write_files([{"path": "/tmp/a", "data": "1"}, {"path": "/tmp/b", "data": "2"}]),
        "read": lambda: files.read("/usr/bin/bash", "bytes"),
        "exists": lambda: files.exists("/tmp/x"),
        "is_running": sandbox.is_running,
        "get_info": sandbox.get_info,
        "set_timeout": lambda: sandbox.set_timeout(300),
        "connect": sandbox.connect,
    }


async def test_any_call_at_random_moments(sandbox: AsyncSandbox) -> None:
    rng = random.Random(1)
    calls = calls_on(sandbox)
    cancelled = 0
    for name, call in calls.items():
        for _ in range(ROUNDS):
            with anyio.move_on_after(rng.uniform(0, 0.012)) as scope:
                await call()
            cancelled += scope.cancelled_caught
        assert (await sandbox.commands.run(f"echo {name}")).stdout == f"{name}\n"
    assert cancelled > ROUNDS, "most rounds ended before they were cancelled: shorten them"
    for call in calls.values():
        await call()
    assert default_transport().counters.streams_open == 0


async def test_many_at_once(sandbox: AsyncSandbox) -> None:
    rng = random.Random(2)
    calls = list(calls_on(sandbox).values())

    async def work() -> None:
        with anyio.move_on_after(rng.uniform(0, 0.1)):
            while True:
                await rng.choice(calls)()

    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(work)
    assert (await sandbox.commands.run("echo fine")).stdout == "fine\n"
    assert default_transport().counters.streams_open == 0


async def test_leaving_a_block_by_cancellation_kills(engine: Engine) -> None:
    with anyio.CancelScope() as scope:
        async with await AsyncSandbox.create(**engine.options) as sandbox:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not await sandbox.is_running()


async def test_a_cancelled_run_ends_its_command(sandbox: AsyncSandbox) -> None:
    with anyio.move_on_after(0.3) as scope:
        await sandbox.commands.run("exec sleep 47")
    assert scope.cancelled_caught
    while any("exec sleep 47" in process.args for process in await sandbox.commands.list()):
        await anyio.sleep(0.02)


async def start_something(sandbox: AsyncSandbox, which: int) -> None:
    if which == 0:
        await sandbox.commands.run("exec sleep 300")
    elif which == 1:
        await sandbox.commands.run("exec sleep 300", stdin=b"x" * 100_000)
    else:
        room = sandbox.pty.create if which == 2 else partial(sandbox.commands.run, "exec sleep 300", background=True)
        handle = await room()
        await handle.kill()


async def test_a_start_that_is_cancelled_leaves_no_process(sandbox: AsyncSandbox) -> None:
    rng = random.Random(5)
    cancelled = 0

    async def start() -> None:
        nonlocal cancelled
        with anyio.move_on_after(rng.uniform(0, 0.015)) as scope:
            await start_something(sandbox, rng.randrange(3))
        cancelled += scope.cancelled_caught

    for _ in range(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(start)
    assert cancelled > 20, "most were killed before they were cancelled: shorten the time"
    while await sandbox.commands.list():
        await anyio.sleep(0.02)
    assert default_transport().counters.streams_open == 0


async def test_the_same_over_http1() -> None:
    def start(_: Seen) -> Answer:
        time.sleep(0.3)
        return events({"start": {"pid": 7}})

    with running_stub() as stub:
        sandbox = await connected(stub)
        stub.answers[START] = start
        stub.answers[KILL] = as_json({})
        with anyio.move_on_after(0.15) as scope:
            await sandbox.commands.run("sleep 300")
        assert scope.cancelled_caught
        assert [call.json for call in stub.calls(KILL)] == [{"process": {"pid": 7}, "signal": "SIGNAL_SIGKILL"}]


async def test_a_cancelled_wait_can_be_repeated(sandbox: AsyncSandbox) -> None:
    seen: list[str] = []
    handle = await sandbox.commands.run(
        "for i in $(seq 50); do echo $i; sleep 0.01; done", background=True, on_stdout=seen.append
    )
    rng = random.Random(4)
    while True:
        with anyio.move_on_after(rng.uniform(0, 0.05)) as scope:
            result = await handle.wait()
        if not scope.cancelled_caught:
            break
    assert result.stdout == "".join(seen) == "".join(f"{number}\n" for number in range(1, 51))


async def test_the_reader_may_be_cancelled_while_others_wait(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 0.3; echo done", background=True)
    texts: list[str] = []

    async def wait() -> None:
        texts.append((await handle.wait()).stdout)

    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(0.1):
            async with anyio.create_task_group() as inner:
                inner.start_soon(handle.wait)
                await anyio.sleep(0.02)
                tasks.start_soon(wait)
                tasks.start_soon(wait)
                await anyio.sleep_forever()
    assert texts == ["done\n", "done\n"]


async def test_an_upload_that_is_cancelled_writes_nothing(sandbox: AsyncSandbox) -> None:
    started = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            started.set()
            await anyio.sleep(0.001)

    pieces = endless()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.files.write, "/tmp/half", pieces)
        await started.wait()
        tasks.cancel_scope.cancel()
    await pieces.aclose()
    assert not await sandbox.files.exists("/tmp/half")
