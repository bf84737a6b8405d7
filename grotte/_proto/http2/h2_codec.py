"""The `Codec` interface over the `h2` library: the oracle of the tests, and a way out should a peer disagree with ours.

`h2` is handed one frame at a time, because some must not reach it: GOAWAY, upon which it closes the connection while
the server still serves, and DATA for streams that are gone, which it answers with a RST_STREAM each. What it calls an
error of the connection and RFC 9113 an error of the stream is undone and made one.
"""

from __future__ import annotations

from collections.abc import Sequence

from h2 import events as h2_events
from h2 import exceptions as h2_errors
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hpack import Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple
from hyperframe.exceptions import HyperframeError

from grotte._proto.http2 import frames, settings
from grotte._proto.http2.codec import (
    SENSITIVE,
    UNLIMITED_STREAMS,
    DataReceived,
    ErrorCode,
    Event,
    Header,
    ProtocolError,
    ResponseHeaders,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from grotte._proto.http2.control import ControlFrames
from grotte._proto.http2.fields import Malformed
from grotte._proto.http2.reader import SETTINGS_COST
from grotte._proto.http2.streams import Stream, new_stream

#: Errors that concern the connection even if they come up on one stream's frame.
_CONNECTION_ERRORS = (
    h2_errors.DenialOfServiceError,
    h2_errors.FlowControlError,
    h2_errors.FrameDataMissingError,
    h2_errors.FrameTooLargeError,
)
_CONNECTION_CAUSES = (HPACKError, HyperframeError)


class H2Codec(ControlFrames):
    """A client's half of one connection, by `h2`."""

    def __init__(self, *, stream_window: int, connection_window: int, max_header_list: int) -> None:
        super().__init__(
            stream_window=stream_window, connection_window=connection_window, max_header_list=max_header_list
        )
        self._h2 = H2Connection(
            H2Configuration(
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
                SettingCodes.MAX_HEADER_LIST_SIZE: max_header_list,
            },
        )
        self._h2.decoder.max_header_list_size = max_header_list
        self._h2.encoder = _Encoder()
        self._h2.initiate_connection()
        if self._connection_window > frames.DEFAULT_WINDOW:
            self._h2.increment_flow_control_window(self._connection_window - frames.DEFAULT_WINDOW)
        self._to_credit = 0
        self._flush()

    def open_stream(self, headers: Sequence[Header], *, end_stream: bool, extra_window: int = 0) -> int:
        """See `Codec.open_stream`."""
        stream_id = self._take_id()
        self._h2.send_headers(stream_id, [_tuple(header) for header in headers], end_stream)
        if extra_window:
            self._h2.increment_flow_control_window(extra_window, stream_id)
        self._streams[stream_id] = new_stream(
            headers,
            end_stream=end_stream,
            send_window=0,
            receive_window=self._stream_window + extra_window,
        )
        self._idle_frames = self._acks = 0
        self._flush()
        return stream_id

    def send_data(self, stream_id: int, data: memoryview, *, end_stream: bool) -> int:
        """See `Codec.send_data`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended:
            return len(data)
        connection = self._h2
        total = len(data)
        taken = max(min(total, connection.local_flow_control_window(stream_id)), 0)
        ends = end_stream and taken == total
        step = connection.max_outbound_frame_size
        for start in range(0, taken, step):
            piece = data[start : min(start + step, taken)]
            connection.send_data(stream_id, piece, end_stream=ends and start + step >= taken)
        if ends:
            if not total:
                connection.end_stream(stream_id)
            stream.local_ended = True
            self._finish(stream_id, stream)
        if taken:
            self._idle_frames = self._acks = 0
        self._flush()
        return taken

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `Codec.reset_stream`."""
        if self._streams.pop(stream_id, None) is None:
            return
        try:
            self._h2.reset_stream(stream_id, error_code)
            self._flush()
        except h2_errors.StreamClosedError:
            # To h2 the stream ended with the frame for which it is reset.
            self._h2.clear_outbound_data_buffer()
            self.wire += frames.rst_stream(stream_id, error_code)

    def consumed(self, stream_id: int, length: int) -> None:
        """See `Codec.consumed`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            return
        stream.to_credit += length
        if stream.to_credit >= stream.credit_at:
            self._h2.increment_flow_control_window(stream.to_credit, stream_id)
            stream.to_credit = 0
            self._flush()

    def _flush(self) -> None:
        self.wire += self._h2.data_to_send()

    def _feed(self, kind: int, flags: int, stream_id: int, payload: bytes) -> list[h2_events.Event]:
        """Hand one frame to `h2`; what it holds to be the connection's end, the caller may hold to be less."""
        state = self._h2.state_machine.state
        try:
            events = self._h2.receive_data(frames.frame(kind, flags, stream_id, payload))
        except h2_errors.ProtocolError:
            self._h2.clear_outbound_data_buffer()
            self._h2.state_machine.state = state
            raise
        self._flush()
        return events

    def _feed_connection(self, kind: int, flags: int, stream_id: int, payload: bytes) -> list[h2_events.Event]:
        try:
            return self._feed(kind, flags, stream_id, payload)
        except h2_errors.ProtocolError as error:
            raise _connection_error(error) from error

    def _feed_stream(
        self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> list[h2_events.Event]:
        try:
            return self._feed(kind, flags, stream_id, payload)
        except h2_errors.ProtocolError as error:
            if _concerns_connection(error):
                raise _connection_error(error) from error
            self._stream_error(stream_id, int(error.error_code), str(error), events)
            return []

    def _credit(self, length: int) -> None:
        """Owe the connection's window what arrived, and pay at half the window."""
        self._to_credit += length
        if 2 * self._to_credit >= self._connection_window:
            self._h2.increment_flow_control_window(self._to_credit)
            self._to_credit = 0
            self._flush()

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self._on_unwanted_data(flags, stream_id, payload, events)
            return
        received = self._feed_stream(frames.DATA, flags, stream_id, payload, events)
        self._credit(len(payload))
        for event in received:
            if isinstance(event, h2_events.DataReceived):
                self._take_data(stream, event, len(payload), events)

    def _on_unwanted_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if flags & frames.PADDED:
            frames.strip_padding(payload)
        if stream_id not in self._streams:
            # A download that is given up leaves as much under way as its window is wide: that is no flood.
            self._late(stream_id, "DATA", cost=0 if payload else 1)
        else:
            self._stream_error(stream_id, ErrorCode.STREAM_CLOSED, "DATA after the response's end", events)
        try:
            # h2 would answer with a RST_STREAM and credit the connection by rules of its own.
            # A frame that it never sees counts against its window nowhere else.
            self._h2._inbound_flow_control_window_manager.window_consumed(len(payload))  # noqa: SLF001 - no other way
        except h2_errors.ProtocolError as error:
            raise _connection_error(error) from error
        self._credit(len(payload))

    def _take_data(self, stream: Stream, event: h2_events.DataReceived, flow_length: int, events: list[Event]) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        ends = event.stream_ended is not None
        try:
            stream.take_body(len(event.data))
            if ends:
                stream.end_body()
        except Malformed as error:
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, str(error), events)
            return
        stream.remote_ended = ends
        if event.data:
            self._idle_frames = 0
        else:
            self._spend()
        if event.data or ends:
            events.append(DataReceived(stream_id, event.data, flow_length, ends))
            self._finish(stream_id, stream)
        else:
            self.consumed(stream_id, flow_length)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id not in self._streams:
            self._late(stream_id, "HEADERS")
        if flags & frames.HAS_PRIORITY:
            # h2 still judges priorities, which are obsolete.
            payload = frames.header_fragment(flags, payload)
            flags &= ~(frames.HAS_PRIORITY | frames.PADDED)
        self._on_header_frame(frames.HEADERS, flags, stream_id, payload, events)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._check_continuation(stream_id)
        self._on_header_frame(frames.CONTINUATION, flags, stream_id, payload, events)

    def _on_header_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._count_block(stream_id, len(payload), whole=bool(flags & frames.END_HEADERS))
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self._feed_unwanted_headers(kind, flags, stream_id, payload, events)
            return
        for event in self._feed_stream(kind, flags, stream_id, payload, events):
            self._take_headers(stream_id, stream, event, events)

    def _feed_unwanted_headers(
        self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        """Have a header block decompressed, for its effect on the blocks that follow, and no more than that."""
        unsent = len(self.wire)
        try:
            self._feed(kind, flags, stream_id, payload)
        except h2_errors.ProtocolError as error:
            if _concerns_connection(error):
                raise _connection_error(error) from error
        # h2 answers with a RST_STREAM, or thinks that it has to go away.
        del self.wire[unsent:]
        if flags & frames.END_HEADERS and stream_id in self._streams:
            self._stream_error(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after the response's end", events)

    def _take_headers(self, stream_id: int, stream: Stream, event: h2_events.Event, events: list[Event]) -> None:
        try:
            if isinstance(event, h2_events.ResponseReceived):
                ends = event.stream_ended is not None
                headers = _untuple(event.headers)
                response = self._rules.response(headers)
                stream.answer(response, end_stream=ends)
                # h2 does not know that a 304 has a content-length and no content.
                self._h2.streams[stream_id]._expected_content_length = None  # noqa: SLF001 - no other way
                events.append(ResponseHeaders(stream_id, response.status, headers, ends))
            elif isinstance(event, h2_events.TrailersReceived):
                ends = True
                headers = _untuple(event.headers)
                self._rules.trailers(headers)
                stream.end_body()
                events.append(TrailersReceived(stream_id, headers))
            else:
                if isinstance(event, h2_events.InformationalResponseReceived):
                    self._rules.response(_untuple(event.headers))
                    self._spend()
                return
        except Malformed as error:
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, str(error), events)
            return
        self._idle_frames = 0
        if ends:
            stream.remote_ended = True
            self._finish(stream_id, stream)

    def _reset_by_peer(self, stream_id: int, error_code: int) -> None:
        super()._reset_by_peer(stream_id, error_code)
        self._feed_connection(frames.RST_STREAM, 0, stream_id, frames.UINT32.pack(error_code))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        values = settings.parse(flags, stream_id, payload)
        self._spend(SETTINGS_COST)
        before = self._h2.remote_settings.initial_window_size
        unsent = len(self.wire)
        self._feed_connection(frames.SETTINGS, flags, stream_id, payload)
        if values is None:
            return
        ack = bytes(self.wire[unsent:])
        del self.wire[unsent:]
        self._acknowledge(ack)
        limit = self._h2.remote_settings.max_concurrent_streams
        self.max_concurrent_streams = min(limit, UNLIMITED_STREAMS)
        self.max_frame_size = self._h2.max_outbound_frame_size
        events.append(SettingsReceived(self.max_concurrent_streams))
        if self._h2.remote_settings.initial_window_size > before:
            events.append(WindowOpened(0))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._spend()
        if stream_id and stream_id not in self._streams:
            self._ignore_closed(stream_id, "WINDOW_UPDATE")
            return
        if stream_id and payload == bytes(4):
            self._stream_error(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing", events)
            return
        for event in self._feed_connection(frames.WINDOW_UPDATE, flags, stream_id, payload):
            if isinstance(event, h2_events.StreamReset):
                del self._streams[stream_id]
                message = "WINDOW_UPDATE opens the window too far"
                events.append(StreamReset(stream_id, ErrorCode.FLOW_CONTROL_ERROR, remote=False, message=message))
            else:
                events.append(WindowOpened(stream_id))


class _Encoder(Encoder):
    """Says of the sizes that its table had since the last block the smallest and the last (RFC 7541, 4.2).

    That of `hpack` says all of them, those which the peer permits no more too, and none if the last was no change.
    """

    @property
    def header_table_size(self) -> int:
        """What the peer permits the table, in bytes."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        table = self.header_table
        announces = table.resized
        table.maxsize = size
        table.resized = announces or table.resized
        if table.resized:
            smallest = min([size, *self.table_size_changes])
            self.table_size_changes = [smallest, size] if smallest < size else [size]


def _tuple(header: Header) -> HeaderTuple:
    name, value = header
    return (NeverIndexedHeaderTuple if name in SENSITIVE else HeaderTuple)(name, value)


def _untuple(headers: Sequence[tuple[bytes, bytes]] | None) -> list[Header]:
    return [(bytes(name), bytes(value)) for name, value in headers or ()]


def _concerns_connection(error: h2_errors.ProtocolError) -> bool:
    return isinstance(error, _CONNECTION_ERRORS) or isinstance(error.__cause__, _CONNECTION_CAUSES)


def _connection_error(error: h2_errors.ProtocolError) -> ProtocolError:
    code = int(error.error_code)
    if code == ErrorCode.PROTOCOL_ERROR and isinstance(error.__cause__, HPACKError):
        code = ErrorCode.COMPRESSION_ERROR
    return ProtocolError(code, str(error))
