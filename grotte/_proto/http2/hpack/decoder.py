"""The decoder: header blocks in, header lists out, with the dynamic table between them."""

from __future__ import annotations

from grotte._proto.http2.codec import ErrorCode, Header, ProtocolError
from grotte._proto.http2.hpack import huffman, integers
from grotte._proto.http2.hpack.static import ENTRY_OVERHEAD, MAX_TABLE_SIZE, STATIC_TABLE

#: A header and what it counts towards limits.
_Entry = tuple[Header, int]


def _entry(name: bytes, value: bytes) -> _Entry:
    return (name, value), len(name) + len(value) + ENTRY_OVERHEAD


#: Index → entry; 0 is no index.
_STATIC: tuple[_Entry, ...] = (_entry(b"", b""), *(_entry(*header) for header in STATIC_TABLE))
_FIRST_DYNAMIC = len(_STATIC)

#: Huffman strings that are remembered, and the longest among them: the same ones come with every response.
_REMEMBERED = 512
_REMEMBERED_LENGTH = 128
#: Whole blocks that are remembered with what they mean and what they enter into the table.
_REMEMBERED_BLOCKS = 64
_REMEMBERED_BLOCK = 1024


class Decoder:
    """Decodes the header blocks of one connection, each exactly once and in order."""

    def __init__(self, max_header_list: int) -> None:
        self._max_header_list = max_header_list
        #: The dynamic table, newest last: index 62 is the last entry.
        self._table: list[_Entry] = []
        self._table_size = 0
        #: What the peer chose, at most MAX_TABLE_SIZE: our SETTINGS leave the default.
        self._table_limit = MAX_TABLE_SIZE
        self._strings: dict[bytes, bytes] = {}
        #: Blocks that mean the same whatever the table holds: some servers spell out every field of every response.
        self._blocks: dict[bytes, tuple[list[Header], list[_Entry], int]] = {}
        #: Blocks that entered nothing into the table, since it last changed: others name their fields by its entries.
        self._current: dict[bytes, list[Header]] = {}

    def decode(self, block: bytes) -> list[Header]:
        """Decode one header block; nobody may change the list, which may be that of an equal block before.

        Raises:
            ProtocolError: the block is malformed, or the list is larger than allowed; the limit is checked field by
                field, so that a small block cannot become a large list.
        """
        current = self._current.get(block)
        if current is not None:
            return current
        known = self._blocks.get(block)
        if known is not None:
            headers, entries, size = known
            self._insert_all(entries, size)
            return headers
        try:
            return self._decode(block)
        except IndexError:
            raise ProtocolError(
                ErrorCode.COMPRESSION_ERROR, "a header block is cut short or names an entry that does not exist"
            ) from None

    def _decode(self, block: bytes) -> list[Header]:
        headers: list[Header] = []
        entries: list[_Entry] = []
        short = len(block) <= _REMEMBERED_BLOCK
        timeless = True
        room = self._max_header_list
        position = 0
        size = len(block)
        while position < size:
            first = block[position]
            if first >= 0x80:
                index = first & 0x7F
                position += 1
                if index == 0x7F:
                    index, position = integers.decode(block, position - 1, 0x7F)
                header, cost = self._lookup(index)
                timeless = timeless and index < _FIRST_DYNAMIC
            elif first & 0xE0 == 0x20:
                if headers:
                    raise _malformed("a table size update comes after fields")
                position = self._resize(block, position)
                short = False
                continue
            else:
                header, position, index = self._literal(block, position, first)
                cost = len(header[0]) + len(header[1]) + ENTRY_OVERHEAD
                timeless = timeless and index < _FIRST_DYNAMIC
                if first & 0x40:
                    entries.append((header, cost))
                    self._insert((header, cost))
            room -= cost
            if room < 0:
                raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "a header list is larger than we allow")
            headers.append(header)
        if short:
            self._remember_block(block, headers, entries, timeless=timeless)
        return headers

    def _remember_block(self, block: bytes, headers: list[Header], entries: list[_Entry], *, timeless: bool) -> None:
        if timeless:
            if len(self._blocks) >= _REMEMBERED_BLOCKS:
                self._blocks.clear()
            self._blocks[block] = headers, entries, sum(size for _, size in entries)
        elif not entries:
            if len(self._current) >= _REMEMBERED_BLOCKS:
                self._current.clear()
            self._current[block] = headers

    def _lookup(self, index: int) -> _Entry:
        if index >= _FIRST_DYNAMIC:
            return self._table[_FIRST_DYNAMIC - 1 - index]
        if not index:
            raise _malformed("a field has index 0")
        return _STATIC[index]

    # Integers below their prefix's mask, nearly all there are, are read in place: a call costs more than the reading.

    def _literal(self, block: bytes, position: int, first: int) -> tuple[Header, int, int]:
        """The header, where it ends, and the index of its name or 0."""
        mask = 0x3F if first & 0x40 else 0x0F
        index = first & mask
        position += 1
        if index == mask:
            index, position = integers.decode(block, position - 1, mask)
        if index:
            name = self._lookup(index)[0][0]
        else:
            name, position = self._string(block, position)
        value, position = self._string(block, position)
        return (name, value), position, index

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        first = block[position]
        length = first & 0x7F
        start = position + 1
        if length == 0x7F:
            length, start = integers.decode(block, position, 0x7F)
        end = start + length
        raw = block[start:end]
        if len(raw) != length:
            raise _malformed("a string is cut short")
        if first < 0x80:
            return raw, end
        value = self._strings.get(raw)
        if value is None:
            value = self._remember(raw, huffman.decode(raw))
        return value, end

    def _remember(self, raw: bytes, value: bytes) -> bytes:
        if len(raw) <= _REMEMBERED_LENGTH:
            if len(self._strings) >= _REMEMBERED:
                self._strings.clear()
            self._strings[raw] = value
        return value

    def _insert(self, entry: _Entry) -> None:
        self._current.clear()
        if self._table_size + entry[1] > self._table_limit:
            self._evict(self._table_limit - entry[1])
        if entry[1] <= self._table_limit:
            self._table.append(entry)
            self._table_size += entry[1]

    def _insert_all(self, entries: list[_Entry], size: int) -> None:
        """Insert entries that together count `size`."""
        if entries:
            self._current.clear()
        if size > self._table_limit:
            for entry in entries:
                self._insert(entry)
            return
        if self._table_size + size > self._table_limit:
            self._evict(self._table_limit - size)
        self._table += entries
        self._table_size += size

    def _resize(self, block: bytes, position: int) -> int:
        limit, position = integers.decode(block, position, 0x1F)
        if limit > MAX_TABLE_SIZE:
            raise _malformed("the peer chose a larger table than we allow")
        self._table_limit = limit
        self._current.clear()
        self._evict(limit)
        return position

    def _evict(self, size: int) -> None:
        """Drop the oldest entries until the rest fit into `size`, all of them if need be."""
        gone = 0
        table = self._table
        while self._table_size > size and gone < len(table):
            self._table_size -= table[gone][1]
            gone += 1
        del table[:gone]


def _malformed(message: str) -> ProtocolError:
    return ProtocolError(ErrorCode.COMPRESSION_ERROR, message)
