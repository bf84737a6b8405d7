"""What both codecs do alike: which streams exist, and the frames that need neither windows nor header compression."""

from __future__ import annotations

from abc import abstractmethod

from grotte._proto.http2 import frames
from grotte._proto.http2.codec import (
    ASSUMED_MAX_CONCURRENT_STREAMS,
    ErrorCode,
    Event,
    GoAway,
    PingAcknowledged,
    ProtocolError,
    StreamReset,
    WindowOpened,
)
from grotte._proto.http2.fields import FieldRules
from grotte._proto.http2.reader import FrameReader
from grotte._proto.http2.streams import EndedStreams, Stream

#: Ids that are left when the connection starts to drain for want of more.
_ID_MARGIN = 2**17
_LAST_COMFORTABLE_ID = frames.MAX_STREAM_ID - _ID_MARGIN
_NO_IDS_LEFT = b"stream identifiers are used up"

#: Frames that one header block may come in.
_MAX_BLOCK_FRAMES = 64


class ControlFrames(FrameReader):
    """The registry of streams; PING, GOAWAY, PRIORITY, PUSH_PROMISE and RST_STREAM; limits on header blocks."""

    def __init__(self, *, stream_window: int, connection_window: int, max_header_list: int) -> None:
        super().__init__()
        self.max_concurrent_streams = ASSUMED_MAX_CONCURRENT_STREAMS
        self.max_frame_size = frames.DEFAULT_MAX_FRAME_SIZE
        self._stream_window = stream_window
        #: The specification's default is a lower bound: a window can only be opened.
        self._connection_window = max(connection_window, frames.DEFAULT_WINDOW)
        self._max_header_list = max_header_list
        self._streams: dict[int, Stream] = {}
        self._ended = EndedStreams()
        self._next_id = 1
        self._last_served = frames.MAX_STREAM_ID
        self._rules = FieldRules()
        #: The unfinished header block's stream, how many frames and bytes it has so far.
        self._block_stream = 0
        self._block_frames = 0
        self._block_size = 0

    def ping(self, payload: bytes) -> None:
        """See `Codec.ping`."""
        self.wire += frames.frame(frames.PING, 0, 0, payload)

    def goodbye(self) -> None:
        """See `Codec.goodbye`."""
        self.wire += frames.goaway(ErrorCode.NO_ERROR)

    def _take_id(self) -> int:
        stream_id = self._next_id
        if stream_id > _LAST_COMFORTABLE_ID:
            if stream_id > frames.MAX_STREAM_ID:
                raise ProtocolError(ErrorCode.NO_ERROR, _NO_IDS_LEFT.decode())
            if not self._queued:
                self._queued.append(GoAway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, _NO_IDS_LEFT))
        self._next_id = stream_id + 2
        self._ended.opened(stream_id)
        return stream_id

    def _finish(self, stream_id: int, stream: Stream) -> None:
        """Forget the stream if both sides have ended it."""
        if stream.local_ended and stream.remote_ended:
            del self._streams[stream_id]
            self._ended.ended(stream_id)

    def _late(self, stream_id: int, what: str, *, cost: int = 1) -> None:
        """Judge a frame for a stream that is not live: in flight when the stream was reset, or an error."""
        if not stream_id & 1 or stream_id >= self._next_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which we did not open")
        if stream_id in self._ended:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, f"{what} on stream {stream_id} after its end")
        self._spend(cost)

    def _stream_error(self, stream_id: int, error_code: int, message: str, events: list[Event]) -> None:
        """Reset a stream for what the peer did on it."""
        self.reset_stream(stream_id, error_code)
        events.append(StreamReset(stream_id, error_code, remote=False, message=message))

    @abstractmethod
    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `Codec.reset_stream`."""

    def _reset_by_peer(self, stream_id: int, error_code: int) -> None:
        """RST_STREAM arrived for a live stream."""
        del self._streams[stream_id]

    def _count_block(self, stream_id: int, length: int, *, whole: bool) -> None:
        """Note that a header block goes on, within limits, or ends."""
        self._block_frames += 1
        self._block_size += length
        if self._block_frames > _MAX_BLOCK_FRAMES or self._block_size > self._max_header_list:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "a header block is larger than we allow")
        if whole:
            self._block_stream = self._block_frames = self._block_size = 0
            self._handlers = self._ordinary
        else:
            self._block_stream = stream_id
            self._handlers = self._mid_block

    def _check_continuation(self, stream_id: int) -> None:
        if not self._block_stream or stream_id != self._block_stream:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without its HEADERS")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != frames.UINT32.size:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} bytes")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._ignore_closed(stream_id, "RST_STREAM")
            return
        error_code: int = frames.UINT32.unpack(payload)[0]
        self._reset_by_peer(stream_id, error_code)
        if stream.remote_ended and error_code == ErrorCode.NO_ERROR:
            # The response is complete, and the server wants no more of the request: wake whoever waits to send it.
            events.append(WindowOpened(stream_id))
        else:
            events.append(StreamReset(stream_id, error_code, remote=True))

    def _ignore_closed(self, stream_id: int, what: str) -> None:
        """A frame that may come after a stream's end; on one that never began it is an error."""
        if stream_id not in self._ended:
            self._late(stream_id, what)
        self._spend()

    def _on_priority(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5 and stream_id in self._streams:
            self._stream_error(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of the wrong size", events)
        self._spend()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which our SETTINGS forbid")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if len(payload) != 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        self._spend()
        if flags & frames.ACK:
            events.append(PingAcknowledged(payload))
        else:
            self._acknowledge(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        if len(payload) < frames.TWO_UINT32.size:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._spend()
        last, error_code = frames.TWO_UINT32.unpack_from(payload)
        # The id may fall from one GOAWAY to the next; a peer that raises it breaks a promise we may have acted on.
        self._last_served = min(self._last_served, last & frames.MAX_STREAM_ID)
        events.append(GoAway(self._last_served, error_code, payload[frames.TWO_UINT32.size :]))
