"""The transport's knobs and counters."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class TransportOptions:
    """How the transport behaves. Times in seconds, sizes in bytes.

    Attributes:
        ssl_context: Whom to trust, and client certificates; None: the system's store. A context given here is
            altered to offer h2 and http/1.1.
        connect_timeout: For name, TCP, TLS and, where HTTP/2 is not yet known to be spoken, its first answer.
        pool_timeout: How long a request waits for a free slot.
        write_timeout: How long an upload may make no progress.
        ping_after: Silence, while somebody waits for an answer, after which the server is asked whether it lives.
        ping_timeout: How long it may take to answer that.
        probe_timeout: How long a server without TLS has to speak HTTP/2 before it is taken for HTTP/1.1.
        max_connections: Per group of hosts that share connections, and lane.
        idle_timeout: A connection unused for longer is not used again: servers close theirs after 60 s.
        reserve: The part of each connection's slots that only short calls may take.
        stream_window: What a stream that nobody reads may buffer.
        connection_window: The same for a whole connection.
        bulk_window: What is added to `stream_window` on the lane "bulk".
        max_header_list: The largest response header list.
        http1_memory: How long an origin counts as HTTP/1.1-only, and a domain as not to be coalesced.
        http1_connections: Connections to HTTP/1.1-only origins, all together.
        codec: "native" or "h2"; None: what the environment says.
    """

    ssl_context: ssl.SSLContext | None = None
    connect_timeout: float = 10.0
    pool_timeout: float = 60.0
    write_timeout: float = 60.0
    ping_after: float = 20.0
    ping_timeout: float = 10.0
    probe_timeout: float = 2.0
    max_connections: int = 8
    idle_timeout: float = 50.0
    reserve: float = 0.15
    stream_window: int = 1 << 20
    connection_window: int = 64 << 20
    bulk_window: int = 15 << 20
    max_header_list: int = 64 << 10
    http1_memory: float = 600.0
    http1_connections: int = 256
    codec: str | None = None


@dataclass(slots=True)
class Counters:
    """What a transport has done so far; `connections_open` and `streams_open` are of this moment."""

    connections_opened: int = 0
    connections_open: int = 0
    streams_opened: int = 0
    streams_open: int = 0
    events_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retries: int = 0

    def add(self, other: Counters) -> None:
        """Add another's numbers to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def earliest(*deadlines: float | None) -> float | None:
    """The first of some deadlines; None stands for never."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
