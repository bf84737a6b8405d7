"""Frame layout (RFC 9113 §4 and §6): the numbers, and how the few frames that a client sends are written."""

from __future__ import annotations

from struct import Struct

from grotte._proto.http2.codec import PREFACE, ErrorCode, ProtocolError

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

FRAME_HEADER_SIZE = 9
#: SETTINGS_MAX_FRAME_SIZE: the peer's until it says otherwise, and ours always.
DEFAULT_MAX_FRAME_SIZE = 16_384
LARGEST_MAX_FRAME_SIZE = 2**24 - 1
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

#: Length (high byte, low word), type, flags, stream id.
HEADER = Struct(">BHBBL")
UINT32 = Struct(">L")
TWO_UINT32 = Struct(">LL")
SETTING = Struct(">HL")

_ONE_UINT32_FRAME = Struct(">BHBBLL")
_LENGTH = Struct(">BH")


def frame(frame_type: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Serialize any frame."""
    length = len(payload)
    return HEADER.pack(length >> 16, length & 0xFFFF, frame_type, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """Serialize SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*item) for item in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """Serialize WINDOW_UPDATE; stream 0 is the connection."""
    return _ONE_UINT32_FRAME.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment)


def rst_stream(stream_id: int, error_code: int) -> bytes:
    """Serialize RST_STREAM."""
    return _ONE_UINT32_FRAME.pack(0, 4, RST_STREAM, 0, stream_id, error_code)


def goaway(error_code: int, debug_data: bytes = b"") -> bytes:
    """Serialize GOAWAY; a client that takes no pushes has processed no stream of the peer's."""
    return frame(GOAWAY, 0, 0, TWO_UINT32.pack(0, error_code) + debug_data)


def count_frames(wire: bytearray) -> int:
    """How many frames there are in bytes that begin with one, or with the client's preface, and end with one."""
    position = len(PREFACE) if wire.startswith(PREFACE) else 0
    count = 0
    while position < len(wire):
        high, low = _LENGTH.unpack_from(wire, position)
        position += FRAME_HEADER_SIZE + (high << 16 | low)
        count += 1
    return count


def strip_padding(payload: bytes) -> bytes:
    """Remove the pad length field and the padding of a PADDED frame's payload.

    Raises:
        ProtocolError: there is no pad length field, or the padding is as long as what it pads or longer.
    """
    if not payload:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a padded frame has no pad length")
    end = len(payload) - payload[0]
    if end < 1:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a frame's padding is longer than the frame")
    return payload[1:end]


def header_fragment(flags: int, payload: bytes) -> bytes:
    """What a HEADERS frame holds of the header block: its payload less padding and the obsolete priority field."""
    if flags & PADDED:
        payload = strip_padding(payload)
    if flags & HAS_PRIORITY:
        if len(payload) < 5:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is too short for its priority")
        payload = payload[5:]
    return payload
