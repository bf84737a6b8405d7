"""What the benchmark tells a client's process to do, and what that process answers: one JSON line each way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

#: The last four are jobs for SDKs, of which `sdk_child` does one each in a process of its own.
Kind = Literal[
    "get", "post", "hosts", "download", "upload", "held", "beside", "calls", "sync_calls", "sandboxes", "sdk_download"
]
#: "sync" stands for threads; the others are event loops.
Loop = Literal["asyncio", "uvloop", "trio", "sync"]

MIB = 1 << 20
BODY_SIZE = 64 * MIB
#: The domain of the hosts: its names resolve to loopback for the clients' processes only.
DOMAIN = "bench.test"


class Scenario(msgspec.Struct, frozen=True):
    """One thing to measure.

    Attributes:
        name: As it is called in tables.
        kind: What each call does.
        amount: Requests in flight, hosts, streams or threads.
        delay_ms: What the link adds to a round trip, in milliseconds.
        once: Long enough to be measured once only.
    """

    name: str
    kind: Kind
    amount: int
    delay_ms: int = 0
    once: bool = False


class Client(msgspec.Struct, frozen=True):
    """One library on one event loop (or on threads)."""

    library: str
    loop: Loop

    @property
    def name(self) -> str:
        """As it is called in tables."""
        return f"{self.library}, {self.loop}"


class Job(msgspec.Struct, frozen=True):
    """A client, what it is to do, and where the server is.

    Attributes:
        port: Of the server's TLS listener on 127.0.0.1.
        ca: The certificate to trust, PEM.
        seconds: How long to measure, where a time is what bounds it.
        count: How many requests at most.
    """

    client: Client
    scenario: Scenario
    port: int
    ca: str
    seconds: float
    count: int

    @property
    def base(self) -> str:
        """The server's URL, without a path."""
        return f"https://127.0.0.1:{self.port}"

    def host_base(self, index: int) -> str:
        """The URL of one of many hosts."""
        return f"https://h{index}.{DOMAIN}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, as a path."""
        return Path(self.ca)


class Outcome(msgspec.Struct):
    """What was measured. Times in seconds; None where it has no meaning.

    Attributes:
        requests: Answered completely.
        failed: Not answered, or wrongly.
        error: One of the reasons.
        wall: From the first request to the last answer.
        cpu: User and system time of the process meanwhile, all threads.
        p50: Median time of a request.
        p99: What 99 % of the requests did not exceed.
        idle_p50: The same median without the held streams beside it.
        connections: Accepted by the server; filled in by the benchmark.
    """

    requests: int = 0
    failed: int = 0
    error: str | None = None
    wall: float = 0.0
    cpu: float = 0.0
    p50: float | None = None
    p99: float | None = None
    idle_p50: float | None = None
    connections: int | None = None
