"""A client's own process: do one job, print its outcome. Run as ``python -m benchmarks.transport.child JOB``."""

from __future__ import annotations

import gc
import importlib
import resource
import statistics
import sys
import time
from types import ModuleType

import anyio
import msgspec

from benchmarks.transport.clients.protocol import AsyncClient, SyncClient
from benchmarks.transport.job import BODY_SIZE, MIB, Job, Outcome
from benchmarks.transport.loads import Clock, describe, drive, drive_threads
from benchmarks.transport.nginx import SMALL

WARM_UP_SECONDS = 0.3
#: Measured before and while streams are held, one after another.
UNARY_CALLS = 3000
HELD_SECONDS = 4
#: How long opening all held streams may take, and how long they would last.
OPEN_SECONDS = 8.0
HELD_LONG = 120


class UnexpectedAnswer(Exception):
    """The answer arrived but is not what the server sent."""


def check(body: bytes) -> None:
    """Refuse an answer that is not the small file."""
    if len(body) != len(SMALL):
        raise UnexpectedAnswer(f"{len(body)} bytes instead of {len(SMALL)}")


async def small(client: AsyncClient, job: Job) -> Outcome:
    """Small requests, GET or POST, after a warm-up."""
    get, post = f"{job.base}/small", f"{job.base}/post"

    async def call(_: int) -> None:
        check(await client.get(get) if job.scenario.kind == "get" else await client.post(post, SMALL))

    workers = job.scenario.amount
    await call(0)  # alone: a client that can share a connection shall know that before many requests start
    await drive(call, workers=workers, count=max(300, 3 * workers), seconds=WARM_UP_SECONDS)
    gc.collect()
    return await drive(call, workers=workers, count=job.count, seconds=job.seconds)


async def hosts(client: AsyncClient, job: Job) -> Outcome:
    """The first answer from each of many hosts, all asked at once by a client that knows none of them."""
    urls = [f"{job.host_base(index)}/small" for index in range(job.scenario.amount)]

    async def call(number: int) -> None:
        check(await client.get(urls[number]))

    return await drive(call, workers=len(urls), count=len(urls), seconds=30)


async def body(client: AsyncClient, job: Job) -> Outcome:
    """One large body, on a connection that may be open already."""
    check(await client.get(f"{job.base}/small"))

    async def call(_: int) -> None:
        if job.scenario.kind == "upload":
            await client.upload(f"{job.base}/post", b"\0" * MIB, BODY_SIZE // MIB)
        elif (size := await client.download(f"{job.base}/large")) != BODY_SIZE:
            raise UnexpectedAnswer(f"{size} bytes instead of {BODY_SIZE}")

    return await drive(call, workers=1, count=1, seconds=60)


async def held(client: AsyncClient, job: Job) -> Outcome:
    """Answers that take seconds, more of them than one connection carries."""

    async def call(_: int) -> None:
        if len(await client.get(f"{job.base}/held/{HELD_SECONDS}")) != 2:
            raise UnexpectedAnswer("a held answer was cut off")

    amount = job.scenario.amount
    check(await client.get(f"{job.base}/small"))
    return await drive(call, workers=amount, count=amount, seconds=60)


async def unary(client: AsyncClient, url: str) -> list[float]:
    """The times of calls made one after another."""
    times = []
    for _ in range(UNARY_CALLS):
        started = time.perf_counter()
        check(await client.get(url))
        times.append(time.perf_counter() - started)
    return times


async def beside(client: AsyncClient, job: Job) -> Outcome:
    """Small calls, one after another, while very many streams are held open by the same client."""
    url, clock = f"{job.base}/small", Clock()
    await unary(client, url)
    idle = statistics.median(await unary(client, url))
    streams = HeldStreams(client, f"{job.base}/held/{HELD_LONG}", job.scenario.amount)
    async with anyio.create_task_group() as tasks:
        with clock.running():
            for _ in range(job.scenario.amount):
                tasks.start_soon(streams.hold)
            with anyio.move_on_after(OPEN_SECONDS):
                await streams.settled.wait()
        outcome = streams.outcome()
        outcome.wall, outcome.cpu, outcome.idle_p50 = clock.wall, clock.cpu, idle
        with anyio.move_on_after(OPEN_SECONDS) as patience:
            outcome.p50 = statistics.median(await unary(client, url))
        if patience.cancelled_caught:
            outcome.error = f"{outcome.error or ''} no call beside the held streams was answered".strip()
        tasks.cancel_scope.cancel()
    return outcome


class HeldStreams:
    """Streams that are opened together and stay open.

    Attributes:
        settled: Set when each of them is open or has failed.
    """

    def __init__(self, client: AsyncClient, url: str, amount: int) -> None:
        self.settled = anyio.Event()
        self._client, self._url, self._amount = client, url, amount
        self._opened, self._failed = 0, 0
        self._error: str | None = None

    async def hold(self) -> None:
        """Open one, and keep it until cancelled."""
        try:
            async with self._client.hold(self._url):
                self._opened += 1
                self._settle()
                await anyio.sleep_forever()
        except Exception as error:  # noqa: BLE001 - whatever a client raises is its failure, to be reported
            self._failed += 1
            self._error = describe(error)
            self._settle()

    def _settle(self) -> None:
        if self._opened + self._failed == self._amount:
            self.settled.set()

    def outcome(self) -> Outcome:
        """How many are open now; the others failed, or wait."""
        waiting = f"{self._amount - self._opened - self._failed} still waited after {OPEN_SECONDS:.0f} s"
        error = self._error if self.settled.is_set() else self._error or waiting
        return Outcome(requests=self._opened, failed=self._amount - self._opened, error=error)


LOADS = {"get": small, "post": small, "hosts": hosts, "download": body, "upload": body, "held": held, "beside": beside}


async def run_async(job: Job, library: ModuleType) -> Outcome:
    """Do a job on the running event loop."""
    async with library.open_async(job) as client:
        outcome: Outcome = await LOADS[job.scenario.kind](client, job)
    return outcome


def run_sync(job: Job, library: ModuleType) -> Outcome:
    """Do a job on threads: small GETs."""
    url = f"{job.base}/small"
    with library.open_sync(job) as opened:
        client: SyncClient = opened

        def call(_: int) -> None:
            check(client.get(url))

        workers = job.scenario.amount
        drive_threads(call, workers=workers, count=max(300, 3 * workers), seconds=WARM_UP_SECONDS)
        gc.collect()
        return drive_threads(call, workers=workers, count=job.count, seconds=job.seconds)


def do(job: Job) -> Outcome:
    """Do a job on the loop that it names."""
    library = importlib.import_module(f"benchmarks.transport.clients.{job.client.library}_client")
    if job.client.loop == "sync":
        return run_sync(job, library)
    backend = "trio" if job.client.loop == "trio" else "asyncio"
    options = {"use_uvloop": True} if job.client.loop == "uvloop" else {}
    return anyio.run(run_async, job, library, backend=backend, backend_options=options)


def main() -> None:
    """Read the job, do it, print what came of it; a failure is an outcome too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    job = msgspec.json.decode(sys.argv[1], type=Job)
    try:
        outcome = do(job)
    except Exception as error:  # noqa: BLE001 - reported as the client's result, never dropped
        outcome = Outcome(failed=1, error=describe(error))
    print(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main()
