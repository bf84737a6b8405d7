"""The encoder: every header as an index into the static table, or as a literal that enters no table.

With no state shared between requests, one that is cancelled, reordered or never sent cannot put the peer's decoder
out of step. The price is some 200 bytes per request; the bytes of headers that repeat are remembered, and whole
blocks with the sections that they encode.
"""

from __future__ import annotations

from collections.abc import Sequence

from grotte._proto.http2.codec import SENSITIVE, Fields, Header
from grotte._proto.http2.hpack import integers
from grotte._proto.http2.hpack.static import MAX_TABLE_SIZE, STATIC_TABLE

#: Headers that are remembered, and the longest value among them.
_REMEMBERED = 512
_REMEMBERED_LENGTH = 256
#: The longest block that is kept with its section.
_KEPT_LENGTH = 4096

_EMPTY_TABLE = b"\x20"
_WITHOUT_INDEXING = 0x00
_NEVER_INDEXED = 0x10


def _static_fields() -> dict[Header, bytes]:
    indexes = range(1, len(STATIC_TABLE) + 1)
    fields = zip(STATIC_TABLE, indexes, strict=True)
    return {header: integers.encode(index, 0x7F, 0x80) for header, index in fields if header[1]}


_STATIC_FIELDS = _static_fields()
#: Name → its lowest index.
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(STATIC_TABLE, 1)))}


class Encoder:
    """Encodes the header lists of requests."""

    def __init__(self) -> None:
        self._known: dict[Header, bytes] = dict(_STATIC_FIELDS)
        #: The peer takes our table for this large, though nothing ever enters it.
        self._table_size = MAX_TABLE_SIZE
        self._resize = b""

    def limit_table(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE: if it falls, the next block must say that our table shrinks."""
        if size < self._table_size:
            self._table_size = 0
            self._resize = _EMPTY_TABLE

    def encode(self, headers: Sequence[Header]) -> bytes:
        """Encode one header block. Values of `SENSITIVE` names are marked never-indexed, and not remembered."""
        block = headers.block if isinstance(headers, Fields) else None
        if block is None:
            block = self._join(headers)
            if isinstance(headers, Fields) and len(block) <= _KEPT_LENGTH:
                headers.block = block
        if self._resize:
            block = self._resize + block
            self._resize = b""
        return block

    def _join(self, headers: Sequence[Header]) -> bytes:
        known = self._known
        return b"".join([known.get(header) or self._learn(header) for header in headers])

    def _learn(self, header: Header) -> bytes:
        name, value = header
        if name in SENSITIVE:
            return _NEVER_INDEXED_STARTS[name] + _string(value)
        encoded = _start(name, _WITHOUT_INDEXING) + _string(value)
        if len(name) + len(value) <= _REMEMBERED_LENGTH:
            if len(self._known) >= _REMEMBERED:
                self._known = dict(_STATIC_FIELDS)
            self._known[header] = encoded
        return encoded


def _start(name: bytes, pattern: int) -> bytes:
    """A literal up to its value."""
    index = _STATIC_NAMES.get(name)
    if index is None:
        return bytes((pattern,)) + _string(name)
    return integers.encode(index, 0x0F, pattern)


def _string(value: bytes) -> bytes:
    """A string as it is: Huffman coding would cost more time than its bytes are worth."""
    return integers.encode(len(value), 0x7F, 0x00) + value


_NEVER_INDEXED_STARTS = {name: _start(name, _NEVER_INDEXED) for name in SENSITIVE}
