"""From bytes to frames: splitting, the first-frame check, and the limits that need no knowledge of streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from grotte._proto.http2 import frames
from grotte._proto.http2.codec import ErrorCode, Event, NotHttp2, ProtocolError

#: What handles one type of frame: (reader, flags, stream id, payload, events to add to).
Handler = Callable[..., None]

#: Frames that move nothing forward (PING, SETTINGS, WINDOW_UPDATE, empty DATA, anything late or unknown) that may
#: come before one that does. Each `receive` forgives a few: a server may ping an idle connection for ever.
MAX_IDLE_FRAMES = 10_000
_FORGIVEN_PER_RECEIVE = 8
#: A SETTINGS frame costs a pass over all streams.
SETTINGS_COST = 50
#: Acknowledgements that may wait behind a peer that does not read.
MAX_QUEUED_ACKS = 1_000

_METHODS = {
    frames.DATA: "_on_data",
    frames.HEADERS: "_on_headers",
    frames.PRIORITY: "_on_priority",
    frames.RST_STREAM: "_on_rst_stream",
    frames.SETTINGS: "_on_settings",
    frames.PUSH_PROMISE: "_on_push_promise",
    frames.PING: "_on_ping",
    frames.GOAWAY: "_on_goaway",
    frames.WINDOW_UPDATE: "_on_window_update",
    frames.CONTINUATION: "_on_continuation",
}


class FrameReader(ABC):
    """Splits what `receive` is given into frames and calls the method for each one's type."""

    #: Frame type → handler; and the same while a header block is unfinished, when only CONTINUATION may come.
    _ordinary: ClassVar[tuple[Handler, ...]]
    _mid_block: ClassVar[tuple[Handler, ...]]
    #: DATA frames larger than this are joined with those that follow them.
    _merges_above: ClassVar[int] = frames.DEFAULT_MAX_FRAME_SIZE

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._ordinary = tuple(getattr(cls, _METHODS.get(kind, "_on_unknown")) for kind in range(256))
        interrupted = [cls._on_interruption] * 256
        interrupted[frames.CONTINUATION] = cls._ordinary[frames.CONTINUATION]
        cls._mid_block = tuple(interrupted)

    def __init__(self) -> None:
        self.wire = bytearray()
        self._handlers = self._ordinary
        self._recognised = False
        self._partial = bytearray()
        #: Events that did not come from bytes, for the next `receive`.
        self._queued: list[Event] = []
        self._failure: ProtocolError | None = None
        self._idle_frames = 0
        self._acks = 0
        self.frames_received = 0

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """See `Codec.receive`."""
        if self._failure is not None:
            raise ProtocolError(self._failure.error_code, str(self._failure))
        if self._idle_frames:
            self._idle_frames = max(self._idle_frames - _FORGIVEN_PER_RECEIVE, 0)
        events = self._queued
        self._queued = []
        try:
            self._read(data, events)
        except ProtocolError as error:
            self._failure = error
            self.wire += frames.goaway(error.error_code, str(error).encode())
            raise
        return events

    def _read(self, data: bytes | memoryview, events: list[Event]) -> None:
        if not self._recognised:
            self._recognise(data)
        partial = self._partial
        position = 0
        while partial:
            missing = _missing(partial)
            if not missing:
                position = self._end_partial(data, position, events)
                break
            piece = data[position : position + missing]
            if not piece:
                return
            partial += piece
            position += len(piece)
        position = self._dispatch(data, position, events)
        if position < len(data):
            partial += data[position:]

    def _end_partial(self, data: bytes | memoryview, position: int, events: list[Event]) -> int:
        """Handle the frame that came in several pieces, and what follows it in `data`; return where the rest starts."""
        frame = memoryview(bytes(self._partial))
        self._partial.clear()
        _, length, kind, flags, stream_id = frames.HEADER.unpack_from(frame)
        if length <= self._merges_above or kind or flags:
            self._dispatch(frame, 0, events)
            return position
        payload, position = self._rest_of_run(data, position, stream_id, frame[frames.FRAME_HEADER_SIZE :])
        self._handlers[kind](self, flags, stream_id & frames.MAX_STREAM_ID, payload, events)
        return position

    def _dispatch(self, data: bytes | memoryview, position: int, events: list[Event]) -> int:
        """Handle the whole frames in `data` from `position` on; return where the first incomplete one starts."""
        unpack = frames.HEADER.unpack_from
        size = len(data)
        while size - position >= frames.FRAME_HEADER_SIZE:
            high, length, kind, flags, stream_id = unpack(data, position)
            if high or length > frames.DEFAULT_MAX_FRAME_SIZE:
                raise _oversized(length + (high << 16))
            start = position + frames.FRAME_HEADER_SIZE
            end = start + length
            if end > size:
                break
            if length > self._merges_above and not kind and not flags:  # DATA, and nothing but data
                payload, position = self._rest_of_run(data, end, stream_id, data[start:end])
            else:
                self.frames_received += 1
                payload, position = bytes(data[start:end]), end
            self._handlers[kind](self, flags, stream_id & frames.MAX_STREAM_ID, payload, events)
        return position

    def _rest_of_run(
        self, data: bytes | memoryview, position: int, stream_id: int, first: bytes | memoryview
    ) -> tuple[bytes, int]:
        """Join a DATA frame's payload with those of the frames of the same kind that follow it, as one of a stream."""
        unpack = frames.HEADER.unpack_from
        size = len(data)
        view = memoryview(data)
        pieces = [first]
        known: tuple[int, ...] = ()
        start = position + frames.FRAME_HEADER_SIZE
        while start <= size:
            header = unpack(data, position)
            if header != known:  # most are like the one before
                known, (high, length, kind, flags, other) = header, header
                if kind or flags or other != stream_id or not length or high or length > frames.DEFAULT_MAX_FRAME_SIZE:
                    break
            end = start + length
            if end > size:
                break
            pieces.append(view[start:end])
            position = end
            start = end + frames.FRAME_HEADER_SIZE
        self.frames_received += len(pieces)
        return (bytes(first) if len(pieces) == 1 else b"".join(pieces)), position

    def _recognise(self, data: bytes | memoryview) -> None:
        """Judge the first frame header as far as it is there: it must be that of SETTINGS, and no ACK."""
        head = bytes(self._partial) + bytes(data[: frames.FRAME_HEADER_SIZE])
        # What has not arrived yet is taken to be right: no payload, no flags, the connection's stream.
        size, kind, flags, stream = head[:1], head[3:4], head[4:5], head[5:9]
        right = size <= b"\0" and kind in (b"", b"\x04") and not int.from_bytes(flags) & frames.ACK
        if not right or int.from_bytes(stream.ljust(4, b"\0")) & frames.MAX_STREAM_ID:
            raise NotHttp2(ErrorCode.PROTOCOL_ERROR, "not HTTP/2: the peer's first bytes are no SETTINGS frame")
        self._recognised = len(head) >= frames.FRAME_HEADER_SIZE

    def _spend(self, cost: int = 1) -> None:
        """Count a frame that moves nothing forward."""
        self._idle_frames += cost
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the peer floods the connection with idle frames")

    def _acknowledge(self, frame: bytes) -> None:
        """Queue the answer to a PING or SETTINGS."""
        if not self.wire:
            self._acks = 0
        self._acks += 1
        if self._acks > MAX_QUEUED_ACKS:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the peer asks for answers and does not read them")
        self.wire += frame

    @abstractmethod
    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_priority(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_ping(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_goaway(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_window_update(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    @abstractmethod
    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None: ...

    def _on_interruption(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted by another frame")

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._spend()


def _missing(partial: bytearray) -> int:
    """How many bytes the frame that `partial` starts lacks, or its header if that is incomplete."""
    have = len(partial)
    if have < frames.FRAME_HEADER_SIZE:
        return frames.FRAME_HEADER_SIZE - have
    length = int.from_bytes(partial[:3])
    if length > frames.DEFAULT_MAX_FRAME_SIZE:
        raise _oversized(length)
    return frames.FRAME_HEADER_SIZE + length - have


def _oversized(length: int) -> ProtocolError:
    return ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes is larger than we allow")
