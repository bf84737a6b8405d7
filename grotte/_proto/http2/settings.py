"""SETTINGS (RFC 9113 §6.5): the identifiers, and what a server may say in them."""

from __future__ import annotations

from grotte._proto.http2 import frames
from grotte._proto.http2.codec import ErrorCode, ProtocolError

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

#: Identifier → lowest and highest value that a server may send, and the error that anything else is.
_RANGES = {
    ENABLE_PUSH: (0, 0, ErrorCode.PROTOCOL_ERROR),
    INITIAL_WINDOW_SIZE: (0, frames.MAX_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    MAX_FRAME_SIZE: (frames.DEFAULT_MAX_FRAME_SIZE, frames.LARGEST_MAX_FRAME_SIZE, ErrorCode.PROTOCOL_ERROR),
}


def parse(flags: int, stream_id: int, payload: bytes) -> dict[int, int] | None:
    """Read a SETTINGS frame: each identifier with its last value, unknown ones included; None for an ACK.

    Raises:
        ProtocolError: the frame is malformed or a value is out of range.
    """
    if stream_id:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
    if flags & frames.ACK:
        if payload:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS has a payload")
        return None
    if len(payload) % frames.SETTING.size:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    values: dict[int, int] = {}
    for identifier, value in frames.SETTING.iter_unpack(payload):
        _validate(identifier, value)
        values[identifier] = value
    return values


def _validate(identifier: int, value: int) -> None:
    allowed = _RANGES.get(identifier)
    if allowed is not None and not allowed[0] <= value <= allowed[1]:
        raise ProtocolError(allowed[2], f"setting {identifier:#x} is {value}")
