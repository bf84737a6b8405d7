"""Uses an SDK against the benchmark's nginx and prints what it measured, as an outcome of `benchmarks.transport.job`.

Needs nothing but the SDK: `e2b` and `grotte` of any version have what is called here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

job = json.loads(sys.argv[1])


def use_system_names(name: str) -> None:
    """Have pyqwest, which `e2b` uses, ask the system for names: its own resolver takes seconds for a hosts file's."""
    pyqwest = importlib.import_module("pyqwest")
    setattr(pyqwest, name, functools.partial(getattr(pyqwest, name), use_system_dns=True))


if job["module"] == "e2b":
    use_system_names("HTTPTransport")
    use_system_names("SyncHTTPTransport")
module = importlib.import_module(job["module"])
WARM_UP_SECONDS = 0.3
CONNECTING = 20
times: list[float] = []


def take(numbers: itertools.count[int], count: int, until: float) -> bool:
    """Whether another call is to be made."""
    return next(numbers) < count and time.perf_counter() < until


async def drive(call: Callable[[int], Awaitable[object]], workers: int, count: int, seconds: float) -> None:
    """Make calls, `workers` at a time."""
    numbers, until = itertools.count(), time.perf_counter() + seconds

    async def work(number: int) -> None:
        while take(numbers, count, until):
            started = time.perf_counter()
            await call(number)
            times.append(time.perf_counter() - started)

    await asyncio.gather(*(work(number) for number in range(workers)))


def drive_threads(call: Callable[[], object], workers: int, count: int, seconds: float) -> None:
    """The same, with threads."""
    numbers, until = itertools.count(), time.perf_counter() + seconds

    def work() -> None:
        while take(numbers, count, until):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def connect(number: int) -> Any:  # of a class known at run time only
    """A sandbox; the server knows them all."""
    return await module.AsyncSandbox.connect(f"h{number}")


async def calls(clock: Clock) -> None:
    """Small calls to one sandbox, after a warm-up."""
    sandbox, workers = await connect(0), job["amount"]

    async def call(_: int) -> None:
        assert await sandbox.files.exists("/tmp")

    await call(0)
    with contextlib.suppress(Exception):  # what fails before it counts need not fail when it does
        await drive(call, workers, max(300, 3 * workers), WARM_UP_SECONDS)
    clock.start()
    await drive(call, workers, job["count"], job["seconds"])
    clock.stop()


def sync_calls(clock: Clock) -> None:
    """The same with threads."""
    sandbox, workers = module.Sandbox.connect("h0"), job["amount"]

    def call() -> None:
        assert sandbox.files.exists("/tmp")

    call()
    drive_threads(call, workers, max(300, 3 * workers), WARM_UP_SECONDS)
    clock.start()
    drive_threads(call, workers, job["count"], job["seconds"])
    clock.stop()


async def sandboxes(clock: Clock) -> None:
    """The first answer from each of many sandboxes, all asked at once."""
    amount = job["amount"]
    handles = [await connect(0)]
    for first in range(1, amount, CONNECTING):  # not measured; some fail when all are asked for at once
        numbers = range(first, min(first + CONNECTING, amount))
        handles += await asyncio.gather(*(connect(number) for number in numbers))

    async def call(number: int) -> None:
        assert await handles[number].files.exists("/tmp")

    clock.start()
    await drive(call, amount, amount, 60)
    clock.stop()


async def download(clock: Clock) -> None:
    """One large file."""
    sandbox = await connect(0)
    await sandbox.files.exists("/tmp")
    clock.start()
    times.append(0.0 if len(await sandbox.files.read("/large", format="bytes")) == job["size"] else -1.0)
    clock.stop()


class Clock:
    """Wall time and CPU time, from start to stop; the times of calls before the start do not count."""

    wall = cpu = 0.0

    def start(self) -> None:
        """Begin."""
        times.clear()
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


PARTS: dict[str, Callable[[Clock], Any]] = {
    "calls": calls,
    "sync_calls": sync_calls,
    "sandboxes": sandboxes,
    "sdk_download": download,
}


def measure() -> dict[str, object]:
    """Do the job."""
    clock = Clock()
    try:
        part = PARTS[job["kind"]](clock)
        if part is not None:
            asyncio.run(part)
    except Exception as error:  # noqa: BLE001 - whatever an SDK raises is its result
        return {"failed": 1, "error": f"{type(error).__name__}: {error}"[:300]}
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {
        "requests": len(ordered),
        "wall": clock.wall,
        "cpu": clock.cpu,
        "p50": ordered[len(ordered) // 2],
        "p99": p99,
        "failed": sum(elapsed < 0 for elapsed in ordered),
    }


print(json.dumps(measure()))
