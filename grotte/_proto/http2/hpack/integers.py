"""The integer representation (RFC 7541 §5.1)."""

from __future__ import annotations

from grotte._proto.http2.codec import ErrorCode, ProtocolError

#: No length, index or table size that we accept comes near this.
_LARGEST = 2**24


def encode(value: int, prefix: int, pattern: int) -> bytes:
    """Encode `value` with a prefix mask of `prefix` (such as 0x7F) under the bits of `pattern`."""
    if value < prefix:
        return bytes((pattern | value,))
    out = bytearray((pattern | prefix,))
    value -= prefix
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """Decode the integer at `position`; return it and where it ends.

    Raises:
        IndexError: the block ends within the integer.
        ProtocolError: the integer is too large to mean anything.
    """
    value = block[position] & prefix
    position += 1
    if value < prefix:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _LARGEST or shift > 28:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "an integer in a header block is too large")
        if byte < 0x80:
            return value, position
