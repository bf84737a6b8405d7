"""The first example, three times: as sync code, as asyncio code and as trio code.

Each step creates a sandbox, runs a command in it, and throws it away. Run it with ``nox -s quickstart``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import trio

from grotte import AsyncSandbox, Sandbox


class Stopwatch:
    """Prints each step with the time since the one before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def step(self, text: str) -> None:
        now = time.perf_counter()
        print(f"  {(now - self._last) * 1000:8.1f} ms  {text}")
        self._last = time.perf_counter()


def with_sync() -> None:
    watch = Stopwatch()
    with Sandbox.create("base") as sandbox:
        watch.step(f"created {sandbox.sandbox_id}")
        result = sandbox.commands.run('echo "Hello"')
        watch.step(f"stdout: {result.stdout!r}")
    watch.step("killed")


async def with_async() -> None:
    watch = Stopwatch()
    async with await AsyncSandbox.create("base") as sandbox:
        watch.step(f"created {sandbox.sandbox_id}")
        result = await sandbox.commands.run('echo "Hello"')
        watch.step(f"stdout: {result.stdout!r}")
    watch.step("killed")


def main() -> None:
    programs: dict[str, Callable[[], None]] = {
        "sync": with_sync,
        "asyncio": lambda: asyncio.run(with_async()),
        "trio": lambda: trio.run(with_async),
    }
    for name, program in programs.items():
        print(name)
        program()


if __name__ == "__main__":
    main()
