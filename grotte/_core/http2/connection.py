"""One HTTP/2 connection that many tasks or threads share; `baton.py` says who reads it.

**Cancellation is safe anywhere**, without shields, because nothing between two awaits is left half done: frames are
queued whole into `codec.wire`, under the lock, and bytes leave from its front as the socket takes them; whoever
pumps next goes on at the right byte. The pumps never wait. A reader whose bytes did not all leave waits until the
socket is readable *or* writable, never for writability alone: two peers that only wrote would wait for each other.

**A cancelled stream keeps its slot until a PING that follows its RST_STREAM has been answered**: until then the
server may count it, and would refuse, or punish, the stream that took its place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from grotte._core import _aio
from grotte._core.http2.channel import Channel
from grotte._core.http2.link import AsyncLink
from grotte._core.http2.stream import AsyncStream
from grotte._proto.http2.codec import (
    Codec,
    DataReceived,
    ErrorCode,
    Event,
    GoAway,
    Header,
    NotHttp2,
    PingAcknowledged,
    ProtocolError,
    ResponseHeaders,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from grotte._proto.options import Tally, TransportOptions
from grotte._proto.transport_errors import ConnectionLost, ProtocolViolation, StreamResetError, TransportError

logger = logging.getLogger("grotte.http2")

#: Streams that one connection serves before another takes over; ids end at 2**31.
LAST_ID = 2**31 - 2**16
RELEASE = b"release?"
ALIVE = b"alive??\x00"


class Owner(Protocol):
    """Who gave the connection its lock, and wants to know of changes. Called with that lock held."""

    def changed(self) -> None:
        """Slots are free, SETTINGS arrived, or the connection takes no more streams."""

    def freed(self, connection: AsyncConnection) -> None:
        """The connection has a slot free."""

    def lost(self) -> None:
        """The connection has closed."""

    def calm(self, cap: int) -> None:
        """The peer found it all too much: the next connection begins with a smaller cap."""

    def baton_free(self) -> None:
        """Nobody reads this connection any more, and nobody is parked on it."""


class AsyncConnection(AsyncLink):
    """The streams of one connection, its slots and its reader.

    Methods that say so must be called with `lock` held; the others take it.
    """

    def __init__(
        self,
        channel: Channel,
        codec: Codec,
        lock: _aio.Lock,
        owner: Owner,
        options: TransportOptions,
        counters: Tally,
    ) -> None:
        super().__init__(channel, codec, lock, counters)
        self._owner = owner
        self._options = options
        self._streams: dict[int, AsyncStream] = {}
        self._uploads: dict[AsyncStream, None] = {}
        #: Slots that wait for the answer to a PING under way, and those that wait for the next PING.
        self._releasing = 0
        self._unreleased = 0
        #: Slots that the pool has promised.
        self.reserved = 0
        #: What REFUSED_STREAM taught, and the answers since.
        self._learned_cap: int | None = None
        self._answers = 0
        self._last_heard = _aio.clock()
        self._ping_deadline: float | None = None
        self.settled = False
        self.draining = False
        peer = channel.socket.getpeername()
        #: Whom it is connected to.
        self.address = str(peer[0]) if isinstance(peer, tuple) else str(peer)
        self.failure: TransportError | None = None
        self.not_http2 = False
        counters.connections_opened += 1
        counters.connections_open += 1

    # ── slots (lock held) ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def cap(self) -> int:
        """Streams that the peer serves at once."""
        allowed = self._codec.max_concurrent_streams
        return allowed if self._learned_cap is None else min(allowed, self._learned_cap)

    @property
    def live(self) -> int:
        """Slots taken by streams that go on, or promised."""
        return len(self._streams) + self.reserved

    @property
    def active(self) -> int:
        """All slots that are not free."""
        return len(self._streams) + self.reserved + self._releasing + self._unreleased

    @property
    def usable(self) -> bool:
        """Whether it takes new streams at all."""
        return not (self.closed or self.draining)

    @property
    def silent(self) -> bool:
        """Nothing ever came, or nothing of HTTP/2."""
        return self.not_http2 or not self._channel.bytes_received

    def limit(self, cap: int) -> None:
        """Begin with a smaller cap than the peer's; it grows with the answers."""
        self._learned_cap = cap

    def serves(self, host: str) -> bool:
        """Whether the peer has proved, where proof is asked for, that it speaks for `host`."""
        return self._channel.tls is None or self._channel.tls.covers(host)

    def refresh(self) -> bool:
        """Before reuse: see a GOAWAY or an end that has arrived since anybody read; False: somebody does. Lock held."""
        unread = self._reader is None and self._heir is None and not self.closed
        if unread:
            self.rest()
            self.pump_now()
        return unread

    def rest(self) -> None:
        """Close it if it has been idle for too long. Lock held."""
        idle = self._reader is None and not self.active
        if idle and _aio.clock() - self._last_heard > self._options.idle_timeout:
            self.retire()

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    def open_stream(
        self, headers: Sequence[Header], body: bytes | None, *, eager: bool, extra_window: int
    ) -> AsyncStream:
        """Use a promised slot: queue a request's HEADERS and, as far as the windows permit, its body.

        Args:
            headers: Of the request.
            body: All of it, if it is small; None: it follows.
            eager: The caller wants the whole answer.
            extra_window: Added to the stream's receive window.
        """
        stream = AsyncStream(self, eager=eager)
        with self.lock:
            self.reserved -= 1
            # the promise may be older than the peer's newest SETTINGS
            if not self.usable or self.active - self.reserved >= self.cap:
                raise self._unsent()
            if not self.active:
                self._last_heard = _aio.clock()
            stream.start = self.position
            stream.sent_end = body == b""
            stream.id = self._codec.open_stream(headers, end_stream=stream.sent_end, extra_window=extra_window)
            self._streams[stream.id] = stream
            if body:
                stream.sent = self._codec.send_data(stream.id, memoryview(body), end_stream=True)
                stream.sent_end = stream.sent == len(body)
            self._counters.streams_opened += 1
            self._counters.streams_open += 1
            if stream.id > LAST_ID:
                self.draining = True
        if self._options.trace is not None:
            self._options.tell("http2.request_sent", stream=stream.id)
        if stream.sent_end:
            self._flush_soon()
        return stream

    def _unsent(self) -> TransportError:
        return ConnectionLost("the connection closed, or has less room, before the request was sent", processed=False)

    def send_data(self, stream: AsyncStream, data: memoryview, *, end: bool) -> int:
        """Queue what the windows and the backlog permit, and return how much that was."""
        self.glance()
        with self.lock:
            if stream.upload_is_over():
                return 0
            taken = self._codec.send_data(stream.id, data, end_stream=end) if data or end else 0
            stream.window_blocked = taken < len(data)
            if end and not stream.window_blocked:
                stream.sent_end = True
                self._uploads.pop(stream, None)
                self._settle(stream)
            else:
                self._uploads[stream] = None
        self._flush_soon() if stream.sent_end else self.flush()
        return taken

    def take(self, stream: AsyncStream) -> bytes | None:
        """The next piece of the body that has arrived; None when there is none now."""
        with self.lock:
            if not stream.chunks:
                return None
            data, owed = stream.chunks.popleft()
            if stream.open and not self.closed:
                self._codec.consumed(stream.id, owed)
        if self._codec.wire:
            self._flush_soon()
        return data

    def release(self, stream: AsyncStream, error_code: int = ErrorCode.CANCEL) -> None:
        """The caller is done with the stream: give it up if it still goes on."""
        if stream.eager and stream.ended and not stream.open:
            return
        with self.lock:
            stream.chunks.clear()
            if stream.open and not self.closed:
                logger.debug("cancel stream=%d", stream.id)
                self._options.tell("http2.stream_reset", stream=stream.id, error_code=error_code, remote=False)
                self._codec.reset_stream(stream.id, error_code)
                self._unreleased += 1
                self._forget(stream)
                self._send_release_ping()
            if stream.error is None and not stream.ended:
                # somebody else may be waiting for the stream that is given up
                stream.error = StreamResetError("the request was given up", error_code=error_code, processed=True)
                self._wake_if_ready(stream)
        self._flush_soon()

    # ── what the baton asks (lock held) ─────────────────────────────────────────────────────────────────────────

    def _alarm(self) -> float:
        return self._ping_deadline or self._last_heard + self._options.ping_after

    def _raise_alarm(self) -> None:
        """Silence for too long: ask whether the peer lives, or give it up if it has been asked."""
        now = _aio.clock()
        if self._ping_deadline is not None and now >= self._ping_deadline:
            self._fail("the server went silent")
        elif self._ping_deadline is None and now - self._last_heard >= self._options.ping_after:
            self._ping_deadline = now + self._options.ping_timeout
            self._codec.ping(ALIVE)

    def _nobody_left(self) -> None:
        if self.closed:
            self._close_socket()
        else:
            self._owner.baton_free()

    # ── what the link asks (lock held, but for the first) ───────────────────────────────────────────────────────

    def _on_bytes(self, data: memoryview, failure: OSError | None, *, news: bool) -> None:
        try:
            if data:
                for event in self._codec.receive(data):
                    self._HANDLERS[type(event)](self, event)
        except ProtocolError as error:
            self.not_http2 = isinstance(error, NotHttp2)
            self._outbox += self._codec.wire
            with contextlib.suppress(OSError):
                self._channel.send(self._outbox)  # the GOAWAY that says why
            kind = ConnectionLost if self.not_http2 else ProtocolViolation
            self._fail(f"the server broke HTTP/2: {error}", kind)
        if news:
            self._last_heard = _aio.clock()
            self._ping_deadline = None
        if failure is not None:
            self._fail(f"the connection broke: {reason(failure)}")
        elif self._channel.ended:
            self._fail("the server closed the connection")
        elif self.draining and not self.active:
            self._fail("the server is shutting down")

    def _on_room(self) -> None:
        if self._uploads and not self.congested():
            for stream in list(self._uploads):
                self._wake_if_ready(stream)

    def _wake_if_ready(self, stream: AsyncStream) -> None:
        if (stream.event is not None or stream.reading is not None) and stream.ready():
            self._parked.pop(stream, None)
            self._woken = True
            stream.wake()

    # ── what arrives (lock held) ────────────────────────────────────────────────────────────────────────────────

    def _on_headers(self, event: ResponseHeaders) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.status, stream.headers = event.status, event.headers
            if self._options.trace is not None:
                self._options.tell("http2.response_started", stream=stream.id, status=event.status)
            if event.end_stream or not (stream.eager and stream.sent_end):  # those wait for the end alone
                self._advance(stream, ended=event.end_stream)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if event.data or not stream.eager:
            stream.chunks.append((event.data, event.flow_length))
        if event.end_stream or not stream.eager:
            self._advance(stream, ended=event.end_stream)
        else:
            self._codec.consumed(event.stream_id, event.flow_length)

    def _on_trailers(self, event: TrailersReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            self._advance(stream, ended=True)

    def _advance(self, stream: AsyncStream, *, ended: bool) -> None:
        if ended:
            stream.ended = True
            if self._options.trace is not None:
                self._options.tell("http2.stream_ended", stream=stream.id)
            self._settle(stream)
        self._wake_if_ready(stream)

    def _settle(self, stream: AsyncStream) -> None:
        """Free the slot of a stream on which both sides have said all."""
        if not (stream.ended and stream.sent_end and stream.open):
            return
        self._forget(stream)
        if self._learned_cap is not None:
            self._answers += 1
            if self._answers >= self._learned_cap:
                self._answers = 0
                self._learned_cap += 1
        if self.usable:
            self._owner.freed(self)

    def _forget(self, stream: AsyncStream) -> None:
        stream.open = False
        self._streams.pop(stream.id, None)
        self._uploads.pop(stream, None)
        self._counters.streams_open -= 1

    def _end(self, stream: AsyncStream, error: TransportError) -> None:
        """The stream is over without an answer."""
        self._forget(stream)
        stream.error = error
        self._wake_if_ready(stream)

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        code = event.error_code
        self._options.tell("http2.stream_reset", stream=stream.id, error_code=code, remote=event.remote)
        if not event.remote:
            self._unreleased += 1
            self._send_release_ping()
        if code == ErrorCode.REFUSED_STREAM:
            self._learned_cap = max(1, min(self.cap, len(self._streams) - 1))
        elif code == ErrorCode.ENHANCE_YOUR_CALM and event.remote:
            self._learned_cap = max(1, self.cap // 2)
        if stream.ended:  # nginx says NO_ERROR after its answer when it does not want the rest of the request
            self._forget(stream)
        else:
            self._end(stream, reset_error(event))
        self._owner.changed()

    def _on_window(self, event: WindowOpened) -> None:
        for stream in list(self._uploads):
            if event.stream_id in (0, stream.id):
                stream.window_blocked = False
                self._wake_if_ready(stream)

    def _on_settings(self, event: SettingsReceived) -> None:
        self.settled = True
        for stream in list(self._uploads):  # the initial window may have grown
            stream.window_blocked = False
            self._wake_if_ready(stream)
        self._owner.changed()

    def _on_ping_answer(self, event: PingAcknowledged) -> None:
        if event.payload == RELEASE and self._releasing:
            self._releasing = 0
            self._send_release_ping()
            self._owner.changed()

    def _send_release_ping(self) -> None:
        if self._unreleased and not self._releasing:
            self._releasing, self._unreleased = self._unreleased, 0
            self._codec.ping(RELEASE)

    def _on_goaway(self, event: GoAway) -> None:
        logger.debug("goaway last=%d error=%d streams=%d", event.last_stream_id, event.error_code, len(self._streams))
        self._options.tell("http2.goaway", last_stream=event.last_stream_id, error_code=event.error_code)
        self.draining = True
        if event.error_code == ErrorCode.ENHANCE_YOUR_CALM:
            self._owner.calm(max(1, self.cap // 2))
        why = f"the server is shutting down (GOAWAY, error {event.error_code})"
        for stream in [stream for stream in self._streams.values() if stream.id > event.last_stream_id]:
            self._end(stream, ConnectionLost(why, processed=False))
        self._owner.changed()

    _HANDLERS: ClassVar[dict[type[Event], Callable[..., None]]] = {
        ResponseHeaders: _on_headers,
        DataReceived: _on_data,
        TrailersReceived: _on_trailers,
        StreamReset: _on_reset,
        WindowOpened: _on_window,
        SettingsReceived: _on_settings,
        PingAcknowledged: _on_ping_answer,
        GoAway: _on_goaway,
    }

    # ── the end (lock held) ─────────────────────────────────────────────────────────────────────────────────────

    def retire(self) -> None:
        """Say goodbye and close."""
        if not self.closed:
            self._codec.goodbye()
            self.flush_now()
            self._fail("the connection was closed by this program")

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket without a word to the peer."""
        self.closed = self._socket_closed = True
        why = "the connection belongs to the process that this one was forked from"
        self.failure = ConnectionLost(why, processed=False)
        for stream in self._streams.values():  # whoever waits in the child waits for ever otherwise
            stream.open = False
            stream.error = ConnectionLost(why, processed=True)
        self._channel.close()

    def _fail(self, why: str, kind: type[TransportError] = ConnectionLost) -> None:
        if self.closed:
            return
        logger.debug("close streams=%d: %s", len(self._streams), why)
        self._options.tell("http2.closed", reason=why, streams=len(self._streams))
        self.closed = True
        self.failure = kind(why, processed=False)
        self._counters.connections_open -= 1
        for stream in list(self._streams.values()):
            self._end(stream, kind(why, processed=self.has_left(stream) and not self.not_http2))
        self._releasing = self._unreleased = 0
        self._close_socket()
        self.interrupt()
        self._owner.lost()


def reason(error: OSError) -> str:
    """An operating system's or TLS library's error in words."""
    return error.strerror or str(error) or type(error).__name__


def reset_error(event: StreamReset) -> TransportError:
    """What a reset means to the request."""
    unprocessed = event.remote and event.error_code in (ErrorCode.REFUSED_STREAM, ErrorCode.HTTP_1_1_REQUIRED)
    who = "the server" if event.remote else "this client"
    text = f"{who} reset the stream (error {event.error_code}){': ' if event.message else ''}{event.message}"
    return StreamResetError(text, error_code=event.error_code, processed=not unprocessed)
