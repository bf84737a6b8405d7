"""Our own codec: a client's half of HTTP/2 without push, priorities and upgrade, written for speed.

Everything on the path of an ordinary exchange (HEADERS and DATA, both ways) is here and in `reader`; what is rare and
needs no windows is in `control`.
"""

from __future__ import annotations

from collections.abc import Sequence

from grotte._proto.http2 import frames, settings
from grotte._proto.http2.codec import (
    PREFACE,
    UNLIMITED_STREAMS,
    DataReceived,
    ErrorCode,
    Event,
    Header,
    ProtocolError,
    ResponseHeaders,
    SettingsReceived,
    TrailersReceived,
    WindowOpened,
)
from grotte._proto.http2.control import ControlFrames
from grotte._proto.http2.fields import Malformed
from grotte._proto.http2.hpack.decoder import Decoder
from grotte._proto.http2.hpack.encoder import Encoder
from grotte._proto.http2.hpack.static import MAX_TABLE_SIZE
from grotte._proto.http2.reader import SETTINGS_COST
from grotte._proto.http2.streams import Stream, new_stream

_SETTINGS_ACK = frames.frame(frames.SETTINGS, frames.ACK, 0)


class NativeCodec(ControlFrames):
    """A client's half of one connection."""

    #: What a large body costs is what each of its frames costs.
    _merges_above = 1024

    def __init__(self, *, stream_window: int, connection_window: int, max_header_list: int) -> None:
        super().__init__(
            stream_window=stream_window, connection_window=connection_window, max_header_list=max_header_list
        )
        self._encoder = Encoder()
        self._decoder = Decoder(max_header_list)
        self._block = bytearray()
        self._block_ends_stream = False
        self._settled = False
        #: What the peer permits.
        self._send_window = self._initial_window = frames.DEFAULT_WINDOW
        #: What we permit the peer on the connection.
        self._receive_window = self._connection_window
        self._queue_preface()

    def _queue_preface(self) -> None:
        ours = {
            settings.ENABLE_PUSH: 0,
            settings.INITIAL_WINDOW_SIZE: self._stream_window,
            settings.MAX_HEADER_LIST_SIZE: self._max_header_list,
        }
        self.wire += PREFACE + frames.settings(ours)
        if self._connection_window > frames.DEFAULT_WINDOW:
            self.wire += frames.window_update(0, self._connection_window - frames.DEFAULT_WINDOW)

    # Sending

    def open_stream(self, headers: Sequence[Header], *, end_stream: bool, extra_window: int = 0) -> int:
        """See `Codec.open_stream`."""
        stream_id = self._take_id()
        block = self._encoder.encode(headers)
        length = len(block)
        if length <= frames.DEFAULT_MAX_FRAME_SIZE:
            flags = frames.END_HEADERS | frames.END_STREAM if end_stream else frames.END_HEADERS
            self.wire += frames.HEADER.pack(0, length, frames.HEADERS, flags, stream_id) + block
        else:
            self._queue_long_block(stream_id, block, end_stream=end_stream)
        if extra_window:
            self.wire += frames.window_update(stream_id, extra_window)
        self._streams[stream_id] = new_stream(
            headers,
            end_stream=end_stream,
            send_window=self._initial_window,
            receive_window=self._stream_window + extra_window,
        )
        self._idle_frames = self._acks = 0
        return stream_id

    def _queue_long_block(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        kind = frames.HEADERS
        flags = frames.END_STREAM if end_stream else 0
        step = frames.DEFAULT_MAX_FRAME_SIZE
        for start in range(0, len(block), step):
            if start + step >= len(block):
                flags |= frames.END_HEADERS
            self.wire += frames.frame(kind, flags, stream_id, block[start : start + step])
            kind, flags = frames.CONTINUATION, 0

    def send_data(self, stream_id: int, data: memoryview, *, end_stream: bool) -> int:
        """See `Codec.send_data`."""
        stream = self._streams.get(stream_id)
        total = len(data)
        if stream is None or stream.local_ended:
            return total
        taken = min(total, self._send_window, stream.send_window)
        if taken <= 0 < total:
            return 0
        ends = end_stream and taken == total
        if taken:
            self._send_window -= taken
            stream.send_window -= taken
            self._idle_frames = self._acks = 0
        if taken or ends:
            self._queue_data(stream_id, data[:taken], end_stream=ends)
        if ends:
            stream.local_ended = True
            if stream.remote_ended:
                self._finish(stream_id, stream)
        return taken

    def _queue_data(self, stream_id: int, data: memoryview, *, end_stream: bool) -> None:
        wire = self.wire
        pack = frames.HEADER.pack
        step = self.max_frame_size
        total = len(data)
        start = 0
        while total - start > step:
            wire += pack(step >> 16, step & 0xFFFF, frames.DATA, 0, stream_id)
            wire += data[start : start + step]
            start += step
        length = total - start
        wire += pack(length >> 16, length & 0xFFFF, frames.DATA, end_stream, stream_id)
        wire += data[start:]

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `Codec.reset_stream`."""
        if self._streams.pop(stream_id, None) is not None:
            self.wire += frames.rst_stream(stream_id, error_code)

    def consumed(self, stream_id: int, length: int) -> None:
        """See `Codec.consumed`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            return
        stream.to_credit += length
        if stream.to_credit >= stream.credit_at:
            self.wire += frames.window_update(stream_id, stream.to_credit)
            stream.receive_window += stream.to_credit
            stream.to_credit = 0

    # Receiving

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        flow_length = len(payload)
        if flags & frames.PADDED:
            payload = frames.strip_padding(payload)
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self._on_unwanted_data(stream_id, flow_length, events)
            return
        self._charge(flow_length)
        stream.receive_window -= flow_length
        if stream.receive_window < 0:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"stream {stream_id} sends more than its window")
        ends = flags & frames.END_STREAM
        try:
            stream.take_body(len(payload))
            if ends:
                stream.end_body()
        except Malformed as error:
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, str(error), events)
            return
        if ends:
            self._end_remote(stream_id, stream)
        if payload:
            self._idle_frames = 0
            events.append(DataReceived(stream_id, payload, flow_length, ends != 0))
            return
        self._spend()
        if ends:
            events.append(DataReceived(stream_id, payload, flow_length, end_stream=True))
        else:
            self.consumed(stream_id, flow_length)

    def _on_unwanted_data(self, stream_id: int, flow_length: int, events: list[Event]) -> None:
        if stream_id not in self._streams:
            # A download that is given up leaves as much under way as its window is wide: that is no flood.
            self._late(stream_id, "DATA", cost=0 if flow_length else 1)
        else:
            self._stream_error(stream_id, ErrorCode.STREAM_CLOSED, "DATA after the response's end", events)
        self._charge(flow_length)

    def _charge(self, flow_length: int) -> None:
        """Take received bytes from the connection's window, and open it again once it is half closed."""
        self._receive_window -= flow_length
        window = self._receive_window
        if 2 * window > self._connection_window:
            return
        if window < 0:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the peer sends more than the connection's window")
        self.wire += frames.window_update(0, self._connection_window - window)
        self._receive_window = self._connection_window

    def _end_remote(self, stream_id: int, stream: Stream) -> None:
        stream.remote_ended = True
        if stream.local_ended:
            self._finish(stream_id, stream)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id not in self._streams:
            self._late(stream_id, "HEADERS")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = frames.header_fragment(flags, payload)
        ends = flags & frames.END_STREAM != 0
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, events, end_stream=ends)
            return
        self._count_block(stream_id, len(payload), whole=False)
        self._block += payload
        self._block_ends_stream = ends

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._check_continuation(stream_id)
        whole = flags & frames.END_HEADERS != 0
        self._count_block(stream_id, len(payload), whole=whole)
        self._block += payload
        if whole:
            block = bytes(self._block)
            self._block.clear()
            self._on_block(stream_id, block, events, end_stream=self._block_ends_stream)

    def _on_block(self, stream_id: int, block: bytes, events: list[Event], *, end_stream: bool) -> None:
        # Decoded even if nobody wants it, for its effect on the blocks that follow.
        headers = self._decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.remote_ended:
            self._stream_error(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after the response's end", events)
            return
        try:
            if stream.answered:
                self._on_trailers(stream_id, stream, headers, events, end_stream=end_stream)
            else:
                self._on_response(stream_id, stream, headers, events, end_stream=end_stream)
        except Malformed as error:
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, str(error), events)
            return
        if end_stream:
            self._end_remote(stream_id, stream)

    def _on_response(
        self, stream_id: int, stream: Stream, headers: list[Header], events: list[Event], *, end_stream: bool
    ) -> None:
        response = self._rules.response(headers)
        if response.status < 200:
            if end_stream:
                raise Malformed("an informational response ends the stream")
            self._spend()
            return
        stream.answer(response, end_stream=end_stream)
        self._idle_frames = 0
        events.append(ResponseHeaders(stream_id, response.status, headers, end_stream))

    def _on_trailers(
        self, stream_id: int, stream: Stream, headers: list[Header], events: list[Event], *, end_stream: bool
    ) -> None:
        if not end_stream:
            raise Malformed("a second header section does not end the stream")
        self._rules.trailers(headers)
        stream.end_body()
        events.append(TrailersReceived(stream_id, headers))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        values = settings.parse(flags, stream_id, payload)
        self._spend(SETTINGS_COST)
        if values is None:
            return
        self._acknowledge(_SETTINGS_ACK)
        self._encoder.limit_table(values.get(settings.HEADER_TABLE_SIZE, MAX_TABLE_SIZE))
        self.max_frame_size = values.get(settings.MAX_FRAME_SIZE, self.max_frame_size)
        unset = self.max_concurrent_streams if self._settled else UNLIMITED_STREAMS
        limit = values.get(settings.MAX_CONCURRENT_STREAMS, unset)
        self.max_concurrent_streams = min(limit, UNLIMITED_STREAMS)
        self._settled = True
        opened = self._change_initial_window(values.get(settings.INITIAL_WINDOW_SIZE, self._initial_window))
        events.append(SettingsReceived(self.max_concurrent_streams))
        if opened:
            events.append(WindowOpened(0))

    def _change_initial_window(self, size: int) -> bool:
        """Move every stream's send window by the difference, below zero if need be; tell whether it rose."""
        change = size - self._initial_window
        self._initial_window = size
        if change:
            for stream_id, stream in self._streams.items():
                stream.send_window += change
                if stream.send_window > frames.MAX_WINDOW:
                    raise _overflow(stream_id)
        return change > 0

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != frames.UINT32.size:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        self._spend()
        increment = frames.UINT32.unpack(payload)[0] & frames.MAX_WINDOW
        if not stream_id:
            self._open_connection(increment)
            events.append(WindowOpened(0))
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._ignore_closed(stream_id, "WINDOW_UPDATE")
        elif not increment:
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing", events)
        elif stream.send_window + increment > frames.MAX_WINDOW:
            message = "WINDOW_UPDATE opens the window too far"
            self._stream_error(stream_id, ErrorCode.FLOW_CONTROL_ERROR, message, events)
        else:
            stream.send_window += increment
            events.append(WindowOpened(stream_id))

    def _open_connection(self, increment: int) -> None:
        if not increment:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing on the connection")
        self._send_window += increment
        if self._send_window > frames.MAX_WINDOW:
            raise _overflow(0)


def _overflow(stream_id: int) -> ProtocolError:
    whose = f"the window of stream {stream_id}" if stream_id else "the connection's window"
    return ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"{whose} opens too far")
