"""The socket's side of a connection: bytes out and bytes in, never waiting, and not under the connection's lock.

System calls and TLS let other threads run. Done under the lock that guards the connection's state, they would have
all those threads queue for it, one switch of threads after another. So there are two: `lock` guards state and is held
for moments, `_io` is held by whoever is at the socket, to send or to read and take in what was read. Who finds `_io`
taken leaves: its bytes are in `codec.wire`, and whoever is at the socket looks there again after letting it go. That
sends what many threads have to say with one system call, too.

Order: `_io` before `lock`; with `lock` held, `_io` may only be tried.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

from grotte._core import _aio
from grotte._core.http2.baton import AsyncBaton
from grotte._core.http2.channel import NOTHING, Channel
from grotte._core.http2.stream import AsyncStream
from grotte._proto.http2.codec import Codec
from grotte._proto.http2.frames import count_frames
from grotte._proto.options import Tally

#: An upload pauses while more than this waits for the socket, and queues as much at a time. Where larger frames are
#: taken, which wake the server less often, and the socket takes all at once, it may be one frame, up to this much.
CONGESTED = 256 * 1024
BATCH = 1024 * 1024
#: Full reads, one after another, before others get their turn.
PIECES = 4


def never() -> bool:
    return False


class AsyncLink(AsyncBaton):
    """A codec on a socket; what the bytes mean is for the connection above to say."""

    def __init__(self, channel: Channel, codec: Codec, lock: _aio.Lock, counters: Tally) -> None:
        super().__init__(lock, _aio.socket_waiter(channel.socket))
        self._channel = channel
        self._codec = codec
        self._counters = counters
        self._io = _aio.Lock()
        #: Taken from `codec.wire`, and not yet by the socket.
        self._outbox = bytearray()
        #: Of all bytes that were ever queued: how many were taken from `codec.wire`, and how many may have left.
        self._taken = 0
        self._left = 0
        #: What the counters know of the channel's.
        self._received = self._counted_sent = 0
        self._frames = 0
        self._socket_closed = False

    @abstractmethod
    def _on_bytes(self, data: memoryview, failure: OSError | None, *, news: bool) -> None:
        """Bytes came, and then perhaps a failure. Lock held."""

    @abstractmethod
    def _on_room(self) -> None:
        """The socket took something. Lock held."""

    @property
    def position(self) -> int:
        """Where the next byte to be queued will be, of all that ever were. Lock held."""
        return self._taken + len(self._codec.wire)

    def has_left(self, stream: AsyncStream) -> bool:
        """Whether any byte of the request may have reached the peer."""
        return self._left > stream.start

    def congested(self) -> bool:
        return len(self._codec.wire) + len(self._outbox) > CONGESTED

    def batch(self) -> int:
        """How much of an upload to queue at a time, by what became of the last."""
        swift = self._all_sent and not self._codec.wire
        return max(CONGESTED, min(self._codec.max_frame_size, BATCH)) if swift else CONGESTED

    # ── at the socket (lock not held) ───────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Send what waits, unless somebody is at the socket, who will."""
        while (self._codec.wire or not self._all_sent) and not self.closed and self._io.acquire(blocking=False):
            try:
                self._send()
            finally:
                self._let_go()
            if not self._all_sent:
                return

    def _send(self) -> None:
        with self.lock:
            if self.closed:
                return
            self._take_wire()
        try:
            all_sent = self._channel.send(self._outbox)
        except OSError as error:
            # What the peer said before it closed decides what becomes of each stream.
            with self.lock:
                self._left = self._taken - len(self._outbox)
            self._take_in()
            with self.lock:
                self._digest(NOTHING, error)
            return
        with self.lock:
            self._note_sent(all_sent)

    def pump(self) -> None:
        """Take in what has arrived, then send what waits."""
        self._woken = False
        with self._io:
            self._take_in(self._is_awaited)
        self.flush()

    def top_up(self, stream: AsyncStream) -> bool:
        """For one who has taken all: take in more, if there is likely to be more and others had their turn lately."""
        more = self._channel.full and self._reader is None and stream.topped_up < PIECES
        stream.topped_up = stream.topped_up + 1 if more else 0
        if more:
            self.glance(enough=stream.has_data)
        return more

    def glance(self, enough: Callable[[], bool] = never) -> None:
        """Take in what has arrived, if nobody else does."""
        if self._reader is None and not self.closed and self._io.acquire(blocking=False):
            try:
                self._take_in(enough)
            finally:
                self._let_go()

    def _take_in(self, enough: Callable[[], bool] = never) -> None:
        """Hand on what there is; of much, no more than `enough`: fresh memory costs as much as decrypting into it,
        and whoever takes the first piece leaves its memory to the next."""
        for data, failure in self._pieces():
            with self.lock:
                self._digest(data, failure)
                if self._channel.full and enough():
                    return

    def _is_awaited(self) -> bool:
        return self._woken or (self._reader is not None and self._reader.ready())

    def _pieces(self) -> Iterator[tuple[memoryview, OSError | None]]:
        """What is there, but no more than is fair to others; each piece is valid until the next is asked for."""
        for _ in range(PIECES):
            try:
                yield self._channel.receive(), None
            except OSError as error:  # ssl.SSLError is one
                yield NOTHING, error
                return
            if not self._channel.more:
                return

    def _let_go(self) -> None:
        self._io.release()
        if self.closed:
            with self.lock:
                self._close_socket()

    # ── at the socket, briefly (lock held) ──────────────────────────────────────────────────────────────────────

    def pump_now(self) -> None:
        """As `pump`, for one who holds the lock; does nothing while somebody is at the socket."""
        if not self.closed and self._io.acquire(blocking=False):
            try:
                self._digest_all()
            finally:
                self._io.release()
                self._close_socket()
            self.flush_now()

    def flush_now(self) -> None:
        """As `flush`, for one who holds the lock."""
        waits = self._codec.wire or not self._all_sent
        if waits and not self.closed and self._io.acquire(blocking=False):
            try:
                self._take_wire()
                self._note_sent(self._channel.send(self._outbox))
            except OSError as error:
                self._digest_all()
                self._digest(NOTHING, error)
            finally:
                self._io.release()
                self._close_socket()

    def _take_wire(self) -> None:
        if not self._outbox:
            self._outbox, self._codec.wire = self._codec.wire, self._outbox
            self._taken += len(self._outbox)
            self._counters.frames_sent += count_frames(self._outbox)
        self._left = self._taken  # until it is known better

    def _note_sent(self, all_sent: bool) -> None:
        self._left = self._taken - len(self._outbox)
        self._all_sent = all_sent and not self._outbox
        self._counters.bytes_sent += self._channel.bytes_sent - self._counted_sent
        self._counted_sent = self._channel.bytes_sent
        if not self._all_sent and not self._watches_write:
            self.interrupt()
        self._on_room()

    def _digest_all(self) -> None:
        for data, failure in self._pieces():
            self._digest(data, failure)

    def _digest(self, data: memoryview, failure: OSError | None) -> None:
        received = self._channel.bytes_received - self._received
        self._received += received
        self._counters.bytes_received += received
        if not self.closed:
            self._on_bytes(data, failure, news=received > 0)
        self._counters.frames_received += self._codec.frames_received - self._frames
        self._frames = self._codec.frames_received

    def _close_socket(self) -> None:
        """Of a closed connection: close it now, or leave that to whoever reads or is at the socket. Lock held."""
        if self.closed and self._reader is None and not self._socket_closed and self._io.acquire(blocking=False):
            self._socket_closed = True  # and `_io` stays taken: nobody may touch the socket again
            self._waiter.close()
            self._channel.close()
