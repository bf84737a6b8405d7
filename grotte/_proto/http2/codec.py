"""What a connection asks of an HTTP/2 codec: bytes in and events out, calls in and bytes out, no I/O.

Two codecs stand behind this interface: `native.NativeCodec`, ours, and `h2_codec.H2Codec`, which wraps the `h2`
library and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

#: Header name and value as they travel: lower-case name, no surrounding white space.
Header = tuple[bytes, bytes]


class Fields(tuple[Header, ...]):  # noqa: SLOT001 - a tuple can have no slots that are not empty
    """A header section that may be sent again: its encoded form is kept with it."""

    #: As a header block that refers to no table but the static one.
    block: bytes | None = None


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Streams that a peer may be assumed to allow before its SETTINGS arrive.
ASSUMED_MAX_CONCURRENT_STREAMS = 100
#: What a peer allows whose SETTINGS name no limit.
UNLIMITED_STREAMS = 2**31 - 1


class ResponseHeaders(msgspec.Struct):
    """The final response's headers; informational (1xx) responses are dropped by the codec."""

    stream_id: int
    status: int
    headers: list[Header]
    end_stream: bool


class DataReceived(msgspec.Struct):
    """A chunk of body. `flow_length` (padding included) is owed to the stream's window once it is consumed."""

    stream_id: int
    data: bytes
    flow_length: int
    end_stream: bool


class TrailersReceived(msgspec.Struct):
    """Trailing headers; they end the stream."""

    stream_id: int
    headers: list[Header]


class StreamReset(msgspec.Struct):
    """The stream is over: reset by the peer, or by us for what the peer did on it (`remote` False)."""

    stream_id: int
    error_code: int
    remote: bool
    message: str = ""


class WindowOpened(msgspec.Struct):
    """More may be sent: on one stream, or on the connection and so perhaps on every stream (`stream_id` 0).

    Also comes for a stream whose response is complete when the server refuses the rest of the request (RST_STREAM with
    NO_ERROR, which must not cost the response): the uploader wakes, and `send_data` takes all without sending it.
    """

    stream_id: int


class SettingsReceived(msgspec.Struct):
    """The peer's SETTINGS have been applied; `max_concurrent_streams` may have moved."""

    max_concurrent_streams: int


class PingAcknowledged(msgspec.Struct):
    payload: bytes


class GoAway(msgspec.Struct):
    """No new stream will be served; streams above `last_stream_id` were not and never will be acted on."""

    last_stream_id: int
    error_code: int
    debug_data: bytes


Event = (
    ResponseHeaders
    | DataReceived
    | TrailersReceived
    | StreamReset
    | WindowOpened
    | SettingsReceived
    | PingAcknowledged
    | GoAway
)


class ProtocolError(Exception):
    """The peer broke the protocol and the connection is over; a GOAWAY that says so is already queued."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class NotHttp2(ProtocolError):
    """The very first bytes were no SETTINGS frame: whoever answers does not speak HTTP/2. Nothing was processed."""


class Codec(Protocol):
    """One connection's protocol state. Not thread-safe: the connection's lock is held around every call."""

    #: What waits to be sent. The connection sends from the front and deletes what has left (`del wire[:n]`),
    #: so that a write cut off anywhere resumes at the right byte.
    wire: bytearray
    #: The peer's SETTINGS_MAX_CONCURRENT_STREAMS; ASSUMED_MAX_CONCURRENT_STREAMS until SETTINGS arrive, and
    #: UNLIMITED_STREAMS when they arrived and set no limit.
    max_concurrent_streams: int
    #: The peer's SETTINGS_MAX_FRAME_SIZE.
    max_frame_size: int
    #: Whole frames that have come.
    frames_received: int

    def __init__(self, *, stream_window: int, connection_window: int, max_header_list: int) -> None:
        """Queue the preface, SETTINGS (ENABLE_PUSH 0, our stream window and header limit) and the window update
        that opens the connection's receive window. All sizes in bytes."""

    def open_stream(self, headers: Sequence[Header], *, end_stream: bool, extra_window: int = 0) -> int:
        """Queue a request's HEADERS (CONTINUATIONs as needed), optionally a WINDOW_UPDATE of `extra_window` bytes
        for its response, and return the stream's id. Names in `SENSITIVE` are encoded never-indexed.

        Before the ids run out, the next `receive` reports a `GoAway` of our own making with the highest id possible:
        the connection drains and is replaced.
        """

    def send_data(self, stream_id: int, data: memoryview, *, end_stream: bool) -> int:
        """Queue as much of `data` as both send windows permit, as DATA frames of the peer's frame size, and return
        how many bytes that was. END_STREAM is set only when all of `data` was taken. A stream that is over takes
        everything and sends nothing, so that an uploader need not race with the response."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Queue RST_STREAM and forget the stream: late frames for it are decoded, credited and dropped."""

    def consumed(self, stream_id: int, length: int) -> None:
        """The reader took `length` flow bytes: credit the stream's window, in batches of half the window. The
        connection's window is credited by the codec on receipt, so that a stalled reader stalls only itself."""

    def ping(self, payload: bytes) -> None:
        """Queue a PING with 8 bytes of payload."""

    def goodbye(self) -> None:
        """Queue GOAWAY(NO_ERROR)."""

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes from the peer, in pieces of any size, and return what they mean, in order.

        None of the events refers to `data`, which may change afterwards. Frames that follow one another with nothing
        but pieces of one body in them may come as one event.

        Raises:
            ProtocolError: the peer broke the protocol or a limit (frame size, header list, CONTINUATIONs, floods of
                SETTINGS, PING or empty frames, window overflow). Events of the frames before are lost with the
                connection.
            NotHttp2: the first bytes of all were no SETTINGS frame.
        """


#: Header names whose values must never enter a compression table (RFC 7541 §7.1.3).
SENSITIVE = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"x-access-token", b"x-api-key"})


class ErrorCode:
    """RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD
