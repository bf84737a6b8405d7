"""The transport's knobs and counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grotte.errors import InvalidArgumentException

if TYPE_CHECKING:
    import ssl

#: In seconds: what clocks and system calls can wait for.
_MOMENT, _YEAR = 1e-6, 366 * 86_400.0
_LARGEST_WINDOW = 2**31 - 1
#: Names of options, and the least and most that they may be.
_BOUNDS: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("connect_timeout", "pool_timeout", "write_timeout", "idle_timeout"), _MOMENT, _YEAR),
    (("ping_after", "ping_timeout", "probe_timeout", "http1_memory"), _MOMENT, _YEAR),
    (("max_connections", "max_connections_total", "http1_connections"), 1, 1 << 20),
    (("reserve",), 0, 1),
    (("stream_window", "bulk_window"), 0, _LARGEST_WINDOW // 2),
    (("connection_window", "max_header_list"), 1, _LARGEST_WINDOW),
)

#: What is called for each event: its name and its details.
Trace = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True, frozen=True, kw_only=True)
class TransportOptions:
    """How the transport behaves. Times in seconds, sizes in bytes.

    Attributes:
        ssl_context: Whom to trust, and client certificates; None: the system's store, or what ``SSL_CERT_FILE`` and
            ``SSL_CERT_DIR`` name. A context given here is altered to offer h2 and http/1.1.
        ca_file: Trust the certificates of this PEM file instead; not together with `ssl_context`.
        cert_file: A client certificate, PEM, with its key unless that is in `key_file`; as `ca_file`.
        key_file: The client certificate's key, PEM.
        proxy: The URL of the proxy for all requests: http, https or socks5; None: what ``HTTP(S)_PROXY``,
            ``ALL_PROXY`` and ``NO_PROXY`` say, and none for this machine. One with TLS is trusted as servers are.
        connect_timeout: For name, TCP, TLS and, where HTTP/2 is not yet known to be spoken, its first answer.
        pool_timeout: How long a request waits for a free slot.
        write_timeout: How long an upload may make no progress.
        ping_after: Silence, while somebody waits for an answer, after which the server is asked whether it lives.
        ping_timeout: How long it may take to answer that.
        probe_timeout: How long a server without TLS has to speak HTTP/2 before it is taken for HTTP/1.1.
        max_connections: Per group of hosts that share connections, and lane. One is filled before the next is opened.
        max_connections_total: All together, but for those to HTTP/1.1-only origins. A connection that nobody uses is
            closed when another place needs one more; whoever needs one while all are used waits, in order.
        idle_timeout: A connection unused for longer is not used again: servers close theirs after 60 s.
        reserve: The part of each connection's slots that only short calls may take.
        stream_window: What a stream that nobody reads may buffer.
        connection_window: The same for a whole connection.
        bulk_window: What is added to `stream_window` on the lane "bulk".
        max_header_list: The largest response header list.
        http1_memory: How long an origin that was silent counts as HTTP/1.1-only at most (at first only for moments),
            and how long a domain, by what was learnt, as served well on shared connections, or not.
        http1_connections: Connections to HTTP/1.1-only origins, all together.
        codec: "native" or "h2"; None: what the environment says.
        trace: Called with the name of each event below and its details, at once and perhaps with a lock held: it must
            neither wait nor use the transport. ``connect.started`` (origin, proxy), ``connect.complete`` (origin,
            address), ``connect.failed`` (origin, error), ``http2.request_sent`` (stream), ``http2.response_started``
            (stream, status), ``http2.stream_ended`` (stream), ``http2.stream_reset`` (stream, error_code, remote),
            ``http2.goaway`` (last_stream, error_code), ``http2.closed`` (reason, streams), and ``transport.retry``
            (attempt, delay, error). Paths, headers and bodies are never among the details.
    """

    ssl_context: ssl.SSLContext | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    connect_timeout: float = 10.0
    pool_timeout: float = 60.0
    write_timeout: float = 60.0
    ping_after: float = 20.0
    ping_timeout: float = 10.0
    probe_timeout: float = 2.0
    max_connections: int = 32
    max_connections_total: int = 256
    idle_timeout: float = 50.0
    reserve: float = 0.15
    stream_window: int = 1 << 20
    connection_window: int = 64 << 20
    bulk_window: int = 15 << 20
    max_header_list: int = 64 << 10
    http1_memory: float = 600.0
    http1_connections: int = 256
    codec: str | None = None
    trace: Trace | None = None

    def __post_init__(self) -> None:
        """Refuse what could not work.

        Raises:
            InvalidArgumentException: a number is out of bounds, or there is no such codec.
        """
        for names, least, most in _BOUNDS:
            for name in names:
                value = getattr(self, name)
                if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                    raise InvalidArgumentException(f"{name} must be from {least:g} to {most:g}, not {value!r}")
        if self.codec not in (None, "native", "h2"):
            raise InvalidArgumentException(f'codec must be "native" or "h2", not {self.codec!r}')

    def tell(self, event: str, **details: object) -> None:
        """Report an event to whoever traces; where it is frequent, ask for `trace` first."""
        if self.trace is not None:
            self.trace(event, details)

    def make_context(self) -> ssl.SSLContext:
        """The trust settings as a context.

        Raises:
            InvalidArgumentException: a file cannot be read, or settings exclude each other.
        """
        import ssl  # here: it takes more memory than all of ours, and plain HTTP needs none of it

        files = self.ca_file, self.cert_file, self.key_file
        if self.ssl_context is not None:
            if any(files):
                raise InvalidArgumentException("give either ssl_context or files, not both")
            return self.ssl_context
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            named = ", ".join(name for name in files if name)
            raise InvalidArgumentException(f"cannot use {named or 'the system certificates'}: {error}") from None
        return context


@dataclass(slots=True, frozen=True, kw_only=True)
class Counters:
    """What a transport has done so far, at one moment. HTTP/1.1 is not in it, but for `retries`.

    Attributes:
        connections_opened: Connections that were ever made.
        connections_open: Those that there are now.
        streams_opened: Requests that were ever sent, again or not.
        streams_open: Those that go on now.
        frames_sent: HTTP/2 frames that were handed to the socket, or wait for it.
        frames_received: HTTP/2 frames that have come, whole.
        bytes_sent: What left, TLS included, handshakes not.
        bytes_received: What came, likewise.
        retries: How often a request was sent again without being asked.
        waiting: Requests that wait for a free slot now, or for a connection.
    """

    connections_opened: int = 0
    connections_open: int = 0
    streams_opened: int = 0
    streams_open: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retries: int = 0
    waiting: int = 0


class Tally:
    """The counters of some connections as they grow."""

    __slots__ = (
        *("connections_opened", "connections_open", "streams_opened", "streams_open"),
        *("frames_sent", "frames_received", "bytes_sent", "bytes_received"),
    )

    def __init__(self) -> None:
        self.connections_opened = self.connections_open = 0
        self.streams_opened = self.streams_open = 0
        self.frames_sent = self.frames_received = 0
        self.bytes_sent = self.bytes_received = 0

    def add(self, other: Tally) -> None:
        """Add another's numbers to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def snapshot(self, *, retries: int, waiting: int) -> Counters:
        """The numbers as they are now."""
        return Counters(**{name: getattr(self, name) for name in self.__slots__}, retries=retries, waiting=waiting)


def earliest(*deadlines: float | None) -> float | None:
    """The first of some deadlines; None stands for never."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
