"""Uses an SDK against an engine and prints what it measured. Needs nothing but the SDK: `e2b` and `grotte` of any
version have what is called here. The job, JSON in the first argument, says which module and which part."""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import sys
import time
from typing import Any

job = json.loads(sys.argv[1])
Answer = dict[str, float | str | None]

AsyncSandbox = importlib.import_module(job["module"]).AsyncSandbox
LIFE = 600
OUTPUT_MIB = 32


async def first_answer() -> tuple[Any, float, float]:  # the sandbox is of a class known at run time only
    """A new sandbox that has answered its first command, and how long creating and answering took."""
    started = time.perf_counter()
    sandbox = await AsyncSandbox.create("base", timeout=LIFE)
    created = time.perf_counter()
    await sandbox.commands.run("true")
    return sandbox, created - started, time.perf_counter() - created


async def sequential() -> Answer:
    """One sandbox after another."""
    creates, firsts = [], []
    for _ in range(job["count"] + 1):
        sandbox, create, first = await first_answer()
        creates.append(create)
        firsts.append(create + first)
        await sandbox.kill()
    # The first opened the connection, and is not counted.
    return {"create": statistics.median(creates[1:]), "first_command": statistics.median(firsts[1:])}


async def at_once() -> Answer:
    """Many sandboxes at once, each until its first command was answered."""
    warm, _, _ = await first_answer()
    await warm.kill()
    cpu, started = time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(first_answer() for _ in range(job["count"])), return_exceptions=True)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    bad = [answer for answer in answers if isinstance(answer, BaseException)]
    await asyncio.gather(*(sandbox.kill() for sandbox, _, _ in good), return_exceptions=True)
    return {
        "all": elapsed,
        "cpu": cpu,
        "answered": len(good),
        "failed": len(bad),
        "error": f"{type(bad[0]).__name__}: {bad[0]}"[:200] if bad else None,
    }


async def run() -> Answer:
    """A command that does nothing, again and again."""
    sandbox = await AsyncSandbox.create("base", timeout=LIFE)
    times = []
    for _ in range(job["count"] + 10):
        started = time.perf_counter()
        await sandbox.commands.run("true")
        times.append(time.perf_counter() - started)
    await sandbox.kill()
    times = sorted(times[10:])
    return {"p50": statistics.median(times), "p99": times[int(0.99 * len(times))]}


async def unary() -> Answer:
    """Small calls, many at a time: what the SDK itself costs."""
    sandbox = await AsyncSandbox.create("base", timeout=LIFE)
    left, until = [job["count"]], [0.0]

    async def work() -> None:
        while left[0] > 0 and time.perf_counter() < until[0]:
            left[0] -= 1
            await sandbox.files.exists("/tmp")

    async def round_of(count: int, seconds: float) -> tuple[float, float]:
        left[0], until[0] = count, time.perf_counter() + seconds
        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(job["in_flight"])))
        done = count - left[0]
        return (time.perf_counter() - started) / done, (time.process_time() - cpu) / done

    await sandbox.files.exists("/tmp")
    await round_of(2 * job["in_flight"], 5)
    wall, cpu = await round_of(job["count"], job["seconds"])
    await sandbox.kill()
    return {"per_second": 1 / wall, "cpu_each": cpu}


async def output() -> Answer:
    """Much output of one command, collected."""
    sandbox = await AsyncSandbox.create("base", timeout=LIFE)
    await sandbox.commands.run("true")
    command = f"head -c {OUTPUT_MIB << 20} /dev/zero | tr '\\0' x"
    cpu, started = time.process_time(), time.perf_counter()
    result = await sandbox.commands.run(command, timeout=120)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    complete = len(result.stdout) == OUTPUT_MIB << 20
    await sandbox.kill()
    return {"mib_per_second": OUTPUT_MIB / elapsed if complete else None, "cpu": cpu}


async def hold() -> Answer:
    """Sandboxes that live and do nothing, until stdin says that they were looked at; then many commands at once."""
    sandboxes = [(await first_answer())[0] for _ in range(job["count"])]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    started = time.perf_counter()
    results = await asyncio.gather(
        *(sandboxes[n % len(sandboxes)].commands.run("true") for n in range(job["commands"]))
    )
    elapsed = time.perf_counter() - started
    await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes))
    return {"succeeded": sum(result.exit_code == 0 for result in results), "seconds": elapsed}


PARTS = {"sequential": sequential, "at_once": at_once, "run": run, "unary": unary, "output": output, "hold": hold}
answer: Answer | str
try:
    answer = asyncio.run(PARTS[job["part"]]())
except Exception as error:  # noqa: BLE001 - whatever an SDK raises is its result
    answer = f"{type(error).__name__}: {error}"[:300]
print(json.dumps(answer))
