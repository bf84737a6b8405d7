"""What is measured, and who takes part."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from benchmarks.transport.job import Client, Loop, Scenario

OURS = "grotte"
HOSTS = 300
#: Library → the loops that it runs on, and the packages whose versions explain its numbers.
LIBRARIES: dict[str, tuple[tuple[Loop, ...], tuple[str, ...]]] = {
    "grotte": (("asyncio", "uvloop", "trio", "sync"), ("grotte",)),
    "httpx": (("asyncio", "trio", "sync"), ("httpx", "httpcore", "h2")),
    "aiohttp": (("asyncio", "uvloop"), ("aiohttp",)),
    "pyqwest": (("asyncio", "uvloop", "trio", "sync"), ("pyqwest",)),
    "niquests": (("asyncio", "sync"), ("niquests", "urllib3-future", "jh2")),
}
ASYNC: tuple[Loop, ...] = ("asyncio", "uvloop", "trio")
THREADS: tuple[Loop, ...] = ("sync",)
ASYNCIO: tuple[Loop, ...] = ("asyncio",)


@dataclass(slots=True, frozen=True)
class Group:
    """Scenarios that share a table.

    Attributes:
        title: Of the table.
        loops: Which clients take part.
        sdks: These take part instead of the HTTP clients.
    """

    title: str
    scenarios: tuple[Scenario, ...]
    loops: tuple[Loop, ...]
    sdks: tuple[str, ...] = ()

    def clients(self, libraries: Collection[str]) -> list[Client]:
        """These libraries on those loops, ours first."""
        if self.sdks:
            return [Client(name, loop) for name in self.sdks for loop in self.loops]
        known = [(name, runs) for name, (runs, _) in LIBRARIES.items() if name in libraries]
        return [Client(name, loop) for name, runs in known for loop in self.loops if loop in runs]


GET = {amount: Scenario(f"GET, {amount} in flight", "get", amount) for amount in (1, 50, 500)}
POST = {amount: Scenario(f"POST, {amount} in flight", "post", amount) for amount in (1, 50, 500)}
SYNC = {amount: Scenario(f"GET, {amount} thread{'s' * (amount > 1)}", "get", amount) for amount in (1, 50)}
NEAR = Scenario(f"{HOSTS} hosts", "hosts", HOSTS)
FAR = Scenario(f"{HOSTS} hosts, +20 ms round trip", "hosts", HOSTS, delay_ms=20)
DOWN = Scenario("64 MiB down", "download", 1)
UP = Scenario("64 MiB up", "upload", 1)
HELD = Scenario("400 streams held for 4 s", "held", 400, once=True)
CALLS = {amount: Scenario(f"files.exists, {amount} in flight", "calls", amount) for amount in (1, 50, 500)}
SYNC_CALLS = {
    amount: Scenario(f"files.exists, {amount} thread{'s' * (amount > 1)}", "sync_calls", amount) for amount in (1, 50)
}
SANDBOXES = Scenario(f"{HOSTS} sandboxes, +20 ms round trip", "sandboxes", HOSTS, delay_ms=20)
READ = Scenario("files.read of 64 MiB", "sdk_download", 1)
BESIDE = Scenario("calls beside 2,000 held streams", "beside", 2000, once=True)

GROUPS = (
    Group("Small GET (282 bytes)", tuple(GET.values()), ASYNC),
    Group("Small POST (282 bytes each way)", tuple(POST.values()), ASYNCIO),
    Group("Small GET, sync", tuple(SYNC.values()), THREADS),
    Group(f"{HOSTS} hosts at once: first answer from all", (NEAR, FAR), ("asyncio", "trio")),
    Group("Large bodies", (DOWN, UP), ASYNC),
    Group("Held streams, 100 to a connection", (HELD, BESIDE), ASYNCIO),
)
#: `--quick` leaves out what the rest lets one guess.
QUICK = (
    Group(GROUPS[0].title, (GET[50], GET[500]), ASYNCIO),
    Group(GROUPS[2].title, tuple(SYNC.values()), THREADS),
    Group(GROUPS[3].title, (FAR,), ASYNCIO),
    Group(GROUPS[4].title, (DOWN, UP), ASYNCIO),
    GROUPS[5],
)


def sdk_groups(peers: Collection[str]) -> tuple[Group, ...]:
    """What the SDKs themselves do, ours and those of these names."""
    sdks = (OURS, *peers)
    return (
        Group("SDKs, against a server that answers at once", (*CALLS.values(), SANDBOXES, READ), ASYNCIO, sdks),
        Group("SDKs, sync", tuple(SYNC_CALLS.values()), THREADS, sdks),
    )
