"""Header compression against the `hpack` library, both ways, and against blocks that nobody should send."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from grotte._proto.http2.codec import SENSITIVE, ErrorCode, Fields, Header, ProtocolError
from grotte._proto.http2.hpack import huffman, integers
from grotte._proto.http2.hpack.decoder import Decoder
from grotte._proto.http2.hpack.encoder import Encoder
from grotte._proto.http2.hpack.static import STATIC_TABLE

LIMIT = 2**16
HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

names = st.one_of(
    st.sampled_from(sorted({name for name, _ in STATIC_TABLE} | SENSITIVE)), st.binary(min_size=1, max_size=20)
)
values = st.one_of(st.sampled_from(sorted({value for _, value in STATIC_TABLE})), st.binary(max_size=300))
headers_lists = st.lists(st.one_of(st.sampled_from(STATIC_TABLE), st.tuples(names, values)), max_size=12)


def decode(block: bytes, limit: int = LIMIT) -> list[Header]:
    return Decoder(limit).decode(block)


def refuse(block: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(ProtocolError) as caught:
        decode(block, limit)
    return caught.value.error_code


def test_the_static_table_is_that_of_the_specification() -> None:
    assert list(STATIC_TABLE) == list(HeaderTable.STATIC_TABLE)


@given(st.binary(max_size=200))
def test_huffman_strings_of_the_library_are_decoded(text: bytes) -> None:
    assert huffman.decode(HUFFMAN.encode(text)) == text


@given(st.binary(max_size=40))
def test_any_bytes_are_the_same_huffman_string_or_error_as_to_the_library(data: bytes) -> None:
    try:
        expected = decode_huffman(data)
    except hpack.HPACKDecodingError:
        with pytest.raises(ProtocolError):
            huffman.decode(data)
    else:
        assert huffman.decode(data) == expected


@pytest.mark.parametrize("data", [b"\xff", b"\xff\xff\xff\xff", b"\x00", b"\x1f\xff"])
def test_wrong_huffman_padding_is_refused(data: bytes) -> None:
    # Eight ones or more, the end symbol itself, padding with zeros.
    with pytest.raises(ProtocolError) as caught:
        huffman.decode(data)
    assert caught.value.error_code == ErrorCode.COMPRESSION_ERROR


@given(st.integers(0, 2**24), st.sampled_from([0x0F, 0x1F, 0x3F, 0x7F]))
def test_integers_survive(value: int, prefix: int) -> None:
    encoded = integers.encode(value, prefix, 0x80)
    assert integers.decode(b"x" + encoded + b"y", 1, prefix) == (value, 1 + len(encoded))


@given(st.lists(headers_lists, max_size=4))
def test_the_library_decodes_what_we_encode(lists: list[list[Header]]) -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for headers in lists:
        decoded = list(decoder.decode(encoder.encode(headers), raw=True))
        assert [(name, value) for name, value in decoded] == headers
        for header in decoded:
            never_indexed = isinstance(header, hpack.NeverIndexedHeaderTuple)
            assert never_indexed == (header[0] in SENSITIVE)
    assert decoder.header_table_size == 4096
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize("size", [0, 1, 100, 4095])
def test_the_encoder_follows_a_smaller_table(size: int) -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    headers = [(b":method", b"GET"), (b"a", b"b")]
    decoder.decode(encoder.encode(headers))
    encoder.limit_table(4096)
    assert not encoder.encode(headers).startswith(b"\x20")
    # From here on the library refuses a block that does not begin with a smaller table.
    decoder.max_allowed_table_size = size
    encoder.limit_table(size)
    encoder.limit_table(0)
    for _ in range(2):
        assert [tuple(header) for header in decoder.decode(encoder.encode(headers), raw=True)] == headers
    encoder.limit_table(4096)
    assert not encoder.encode(headers).startswith(b"\x20")


def test_secrets_are_not_remembered() -> None:
    encoder = Encoder()
    encoder.encode([(b"x-api-key", b"top-secret"), (b"user-agent", b"grotte")])
    remembered = b"".join(name + value + block for (name, value), block in encoder._known.items())
    assert b"top-secret" not in remembered
    assert b"grotte" in remembered


def test_a_section_that_is_sent_again_is_the_same_block_on_any_connection() -> None:
    section = Fields([(b":method", b"GET"), (b"x-api-key", b"secret"), (b"a", b"b")])
    first, second, decoder = Encoder(), Encoder(), hpack.Decoder()
    block = first.encode(section)
    assert block == section.block == Encoder().encode(list(section))
    second.limit_table(0)
    assert second.encode(section) == b"\x20" + block
    assert first.encode(section) == second.encode(section) == block
    assert [tuple(header) for header in decoder.decode(block, raw=True)] == list(section)
    large = Fields([(b"a", b"x" * 5000)])
    assert decoder.decode(first.encode(large), raw=True) == list(large)
    assert large.block is None


def test_what_the_encoder_remembers_is_bounded() -> None:
    encoder = Encoder()
    for number in range(5_000):
        encoder.encode([(b":path", b"/%d" % number)])
    encoder.encode([(b"large", b"x" * 100_000)])
    assert len(encoder._known) <= 600
    assert max(len(block) for block in encoder._known.values()) < 300


class Exchange:
    """The library's encoder and our decoder, over several blocks."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.decoder = Decoder(LIMIT)

    def check(self, headers: list[Header], *, coded: bool, table: int | None) -> None:
        if table is not None:
            self.encoder.header_table_size = table
        block = self.encoder.encode(headers, huffman=coded)
        assert self.decoder.decode(block) == headers
        theirs = [(bytes(name), bytes(value)) for name, value in self.encoder.header_table.dynamic_entries]
        assert [header for header, _ in reversed(self.decoder._table)] == theirs
        assert self.decoder._table_size <= 4096


@given(st.lists(st.tuples(headers_lists, st.booleans(), st.none() | st.integers(0, 4096)), max_size=8))
def test_we_decode_what_the_library_encodes(blocks: list[tuple[list[Header], bool, int | None]]) -> None:
    exchange = Exchange()
    for headers, coded, table in blocks:
        exchange.check(headers, coded=coded, table=table)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_any_block_is_the_same_list_or_error_as_to_the_library(blocks: list[bytes]) -> None:
    ours, theirs = Decoder(LIMIT), hpack.Decoder()
    theirs.max_allowed_table_size = 4096
    for block in [*blocks, *blocks]:  # what is remembered must still be true when a block comes again
        try:
            expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            with pytest.raises(ProtocolError):
                ours.decode(block)
            return
        assert ours.decode(block) == expected


def test_the_memory_of_huffman_strings_is_bounded() -> None:
    decoder = Decoder(LIMIT)
    for number in range(3_000):
        text = HUFFMAN.encode(b"request-%d" % number)
        decoder.decode(b"\x0f\x01" + bytes((0x80 | len(text),)) + text)
    long = HUFFMAN.encode(b"a" * 1000)
    assert decoder.decode(b"\x0f\x01" + integers.encode(len(long), 0x7F, 0x80) + long) == [
        (b"accept-encoding", b"a" * 1000)
    ]
    assert len(decoder._strings) <= 512
    assert max(map(len, decoder._strings)) <= 128


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # the first dynamic entry of an empty table
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # an index of 2^50
        b"\xff\x80\x80\x80\x80\x80\x80\x00",  # an index with more zeros than any needs
        b"\xff",  # cut short in an index
        b"\x40\x05abc",  # cut short in a name
        b"\x40",
        b"\x3f\xe2\x1f",  # a table of 4097 bytes
        b"\x82\x20",  # a size update after a field
        b"\x40\x81\xff\x00",  # eight bits of padding
    ],
)
def test_a_malformed_block_is_refused(block: bytes) -> None:
    assert refuse(block) == ErrorCode.COMPRESSION_ERROR


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder._table_size == 34
    large = b"x" * 5000
    assert decoder.decode(b"\x40\x01a" + integers.encode(5000, 0x7F, 0) + large) == [(b"a", large)]
    assert decoder._table == []
    assert decoder._table_size == 0


INSERT, OTHER, NEWEST = b"\x40\x01a\x01b", b"\x40\x01c\x01d", b"\xbe"


@pytest.mark.parametrize("again", [1, 2])
def test_a_block_means_what_the_table_holds_now(again: int) -> None:
    decoder = Decoder(LIMIT)
    for _ in range(again):  # the second time what was inserted is remembered
        for insert, expected in ((INSERT, (b"a", b"b")), (OTHER, (b"c", b"d"))):
            decoder.decode(insert)
            assert decoder.decode(NEWEST) == decoder.decode(NEWEST) == [expected]
    decoder.decode(b"\x20")
    with pytest.raises(ProtocolError):
        decoder.decode(NEWEST)


def test_the_memory_of_blocks_is_bounded() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(INSERT)
    for number in range(1_000):
        text = b"%d" % number
        decoder.decode(NEWEST + b"\x0f\x01" + bytes((len(text),)) + text)
        decoder.decode(b"\x0f\x01" + bytes((len(text),)) + text)
    assert len(decoder._current) <= 64
    assert len(decoder._blocks) <= 64
    decoder.decode(NEWEST * 1_500)
    assert max(map(len, decoder._current)) <= 1024


def test_a_compression_bomb_is_stopped_at_the_limit() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(b"\x40\x01a" + integers.encode(4000, 0x7F, 0) + b"x" * 4000)
    # Each byte names an entry that counts as 4,033: were the whole block decoded, 64 MiB.
    with pytest.raises(ProtocolError) as caught:
        decoder.decode(b"\xbe" * 16_384)
    assert caught.value.error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_the_limit_counts_as_the_specification_says() -> None:
    block = b"\x40\x01a\x01b" * 2
    assert len(decode(block, 68)) == 2
    assert refuse(block, 67) == ErrorCode.ENHANCE_YOUR_CALM
