"""What agents do all day, by many at once: every worker makes a sandbox, works in it, and throws it away."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import anyio

from grotte import AsyncSandbox, GrotteException

TTL = 600
FILE = bytes(range(256)) * 4096


async def run_commands(sandbox: AsyncSandbox) -> None:
    for number in range(5):
        result = await sandbox.commands.run(f"echo {number}; echo oops >&2", timeout=60)
        assert (result.stdout, result.stderr) == (f"{number}\n", "oops\n")


async def move_files(sandbox: AsyncSandbox) -> None:
    await sandbox.filesystem.write("/home/user/big", FILE)
    assert await sandbox.filesystem.read("/home/user/big", format="bytes") == FILE
    await sandbox.filesystem.remove("/home/user/big")


async def hold_a_process(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("cat", background=True, stdin=True)
    await handle.send_stdin("hello\n")
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "hello\n"


async def print_much(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("head -c 2000000 /dev/zero | tr '\\0' x", timeout=60)
    assert len(result.stdout) == 2_000_000


async def leave_a_process(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 1000", background=True)
    await handle.disconnect()


async def cancel_a_command(sandbox: AsyncSandbox) -> None:
    with anyio.move_on_after(0.05):
        await sandbox.commands.run("sleep 1000", timeout=60)


async def pause_and_resume(sandbox: AsyncSandbox) -> None:
    await sandbox.pause()
    await sandbox.resume(timeout=TTL)


async def copy(sandbox: AsyncSandbox) -> None:
    snapshot = await sandbox.create_snapshot()
    await AsyncSandbox.delete_snapshot(snapshot.snapshot_id)


WORK: tuple[Callable[[AsyncSandbox], Awaitable[None]], ...] = (
    run_commands,
    run_commands,
    move_files,
    hold_a_process,
    print_much,
    leave_a_process,
    cancel_a_command,
    pause_and_resume,
    copy,
)


async def work(until: float, done: Counter[str], seed: int) -> None:
    """One worker, until the time is over; failures are counted by their class."""
    rng = random.Random(seed)
    while time.monotonic() < until:
        try:
            async with await AsyncSandbox.create("base", timeout=TTL) as sandbox:
                for _ in range(rng.randrange(1, 6)):
                    job = rng.choice(WORK)
                    await job(sandbox)
                    done[job.__name__] += 1
            done["sandboxes"] += 1
        except GrotteException as error:
            done[f"failed: {type(error).__name__}: {error}"[:200]] += 1


async def use_once() -> None:
    """One sandbox, in which everything is done once."""
    async with await AsyncSandbox.create("base", timeout=TTL) as sandbox:
        for job in dict.fromkeys(WORK):
            await job(sandbox)


async def run_load(seconds: float, workers: int) -> Counter[str]:
    """Let the workers work; return how often what was done."""
    done: Counter[str] = Counter()
    until = time.monotonic() + seconds
    async with anyio.create_task_group() as tasks:
        for seed in range(workers):
            tasks.start_soon(work, until, done, seed)
    return done
