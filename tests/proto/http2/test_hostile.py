"""Peers that mean harm, or know no better: a clear error, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grotte._proto.http2.codec import Codec, ErrorCode, NotHttp2, ProtocolError, StreamReset
from tests.proto.http2.peer import (
    CODECS,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OK,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Settled,
    inside,
    new_codec,
    objection,
    one_by_one,
    raw,
    raw_headers,
    raw_settings,
    split_frames,
    take,
)

FLOOD = 20_000
RECEIVED = 2**16  # what one read from a socket may bring


def held(codec: Codec) -> int:
    """Bytes that the codec keeps for the peer."""
    kept = len(codec.wire) + len(inside(codec)._partial)  # bounded state is what is tested
    return kept + len(getattr(codec, "_block", b""))


def flood(settled: Settled, frame: bytes, *, setup: bytes = b"") -> ProtocolError:
    """Send a frame over and over, a socket's read at a time, without ever reading, until the codec objects."""
    settled.feed(setup)
    per_read = max(RECEIVED // len(frame), 1)
    error = objection(settled.codec, [frame * per_read] * (FLOOD // per_read + 1))
    assert error is not None
    assert held(settled.codec) < 2**17
    return error


# The very first bytes

NOT_HTTP2 = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"HTTP",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"\0\0\0\x04\x01\0\0\0\0",
    raw(PING, 0, 0, bytes(8)),
    raw(SETTINGS, 0, 1),
    raw(GOAWAY, 0, 0, bytes(8)),
    b"\0\0\0\x07",
    b"SSH-2.0-OpenSSH_9.9\r\n",
]


@pytest.mark.parametrize("data", NOT_HTTP2)
def test_who_does_not_begin_with_settings_does_not_speak_http2(codec_name: str, data: bytes) -> None:
    with pytest.raises(NotHttp2, match="not HTTP/2"):
        new_codec(codec_name).receive(data)
    assert isinstance(objection(new_codec(codec_name), one_by_one(data)), NotHttp2)


def test_later_frames_are_not_judged_as_first(codec_name: str) -> None:
    codec = new_codec(codec_name)
    assert objection(codec, one_by_one(raw_settings((0x3, 5)) + raw(PING, 0, 0, bytes(8)))) is None
    assert codec.max_concurrent_streams == 5


def test_the_reserved_bit_of_the_first_frame_is_ignored(codec_name: str) -> None:
    codec = new_codec(codec_name)
    assert objection(codec, one_by_one(b"\0\0\0\x04\0\x80\0\0\0")) is None
    assert [kind for kind, *_ in take(codec)][-1] == SETTINGS


# Errors of the connection

P, F, S, C, Z = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.COMPRESSION_ERROR,
    ErrorCode.STREAM_CLOSED,
)
CONNECTION_ERRORS = [
    # Frame sizes
    (b"\0\x40\x01" + raw(DATA, 0, 1)[3:], S),
    (b"\xff\xff\xff" + raw(0xAA, 0, 1)[3:], S),
    (raw(PING, 0, 0, bytes(7)), S),
    (raw(RST_STREAM, 0, 1, bytes(3)), S),
    (raw(WINDOW_UPDATE, 0, 1, bytes(5)), S),
    (raw(WINDOW_UPDATE, 0, 0, bytes(3)), S),
    (raw(GOAWAY, 0, 0, bytes(7)), S),
    (raw(SETTINGS, 0, 0, bytes(5)), S),
    (raw(SETTINGS, 1, 0, bytes(6)), S),
    # Streams that do not fit the frame
    (raw(DATA, 0, 0, b"x"), P),
    (raw_headers(OK, 0), P),
    (raw(PRIORITY, 0, 0, bytes(5)), P),
    (raw(RST_STREAM, 0, 0, bytes(4)), P),
    (raw(CONTINUATION, END_HEADERS, 0), P),
    (raw(PING, 0, 1, bytes(8)), P),
    (raw(GOAWAY, 0, 1, bytes(8)), P),
    (raw(SETTINGS, 0, 1), P),
    (raw(DATA, 0, 3, b"x"), P),
    (raw_headers(OK, 3), P),
    (raw_headers(OK, 2), P),
    (raw(DATA, 0, 2, b"x"), P),
    (raw(RST_STREAM, 0, 3, bytes(4)), P),
    (raw(WINDOW_UPDATE, 0, 3, b"\0\0\0\1"), P),
    (raw(WINDOW_UPDATE, 0, 2, b"\0\0\0\1"), P),
    # Padding
    (raw_headers(OK) + raw(DATA, PADDED, 1, b"\x06hello"), P),
    (raw(HEADERS, PADDED | END_HEADERS, 1, b"\x01"), P),
    (raw_headers(OK) + raw(DATA, PADDED, 1), None),
    (raw(HEADERS, PADDED | END_HEADERS, 1), None),
    (raw(HEADERS, 0x20 | END_HEADERS, 1, bytes(4)), None),
    # Header blocks
    (raw(CONTINUATION, END_HEADERS, 1), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw(PING, 0, 0, bytes(8)), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw(DATA, 0, 1), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw_headers(OK), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw(0xAA, 0, 1), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw(CONTINUATION, END_HEADERS, 3), P),
    (raw(HEADERS, 0, 1, b"\x88") + raw(GOAWAY, 0, 0, bytes(8)), P),
    (raw(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"), None),
    (raw(HEADERS, END_HEADERS, 1, b"\xbe"), None),
    # Windows
    (raw(WINDOW_UPDATE, 0, 0, bytes(4)), P),
    (raw(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4)), F),
    (raw(WINDOW_UPDATE, 0, 1, (2**31 - 1 - 65_535).to_bytes(4)) + raw_settings((0x4, 65_536)), F),
    # Settings
    (raw_settings((0x2, 1)), P),
    (raw_settings((0x2, 2)), P),
    (raw_settings((0x4, 2**31)), F),
    (raw_settings((0x5, 16_383)), P),
    (raw_settings((0x5, 2**24)), P),
    # What our SETTINGS forbid
    (raw(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x88"), P),
]


@pytest.mark.parametrize(("data", "code"), CONNECTION_ERRORS)
def test_an_error_of_the_connection(settled: Settled, data: bytes, code: int | None) -> None:
    error = settled.error(data)
    assert not isinstance(error, NotHttp2)
    if code is not None:
        assert error.error_code == code
    with pytest.raises(ProtocolError) as again:
        settled.feed(raw(PING, 0, 0, bytes(8)))
    assert again.value.error_code == error.error_code
    assert [frame[0] for frame in take(settled.codec)].count(GOAWAY) == 1


@pytest.mark.parametrize(("data", "code"), CONNECTION_ERRORS)
def test_the_same_error_byte_by_byte(settled: Settled, data: bytes, code: int | None) -> None:
    error = objection(settled.codec, one_by_one(data))
    assert error is not None
    assert code in (None, error.error_code)


@pytest.mark.parametrize("frame", [raw(DATA, 0, 1, b"x"), raw_headers(OK)])
def test_a_frame_after_the_end_of_the_exchange(settled: Settled, frame: bytes) -> None:
    settled.feed(raw_headers(OK, 1, END_HEADERS | END_STREAM))
    # These may have been on their way.
    settled.feed(raw(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), raw(RST_STREAM, 0, 1, bytes(4)))
    assert settled.error(frame).error_code == ErrorCode.STREAM_CLOSED


def test_after_many_more_streams_an_ended_one_is_no_longer_told_from_a_reset_one(codec_name: str) -> None:
    settled = Settled(codec_name)
    old = settled.open(end_stream=False)
    for _ in range(5000):
        stream_id = settled.open()
        if stream_id == 8_193:  # shares a place in the record with the old one
            settled.codec.reset_stream(stream_id, ErrorCode.CANCEL)
        else:
            settled.feed(raw_headers(OK, stream_id, END_HEADERS | END_STREAM))
    settled.codec.send_data(old, memoryview(b""), end_stream=True)
    settled.feed(raw_headers(OK, old, END_HEADERS | END_STREAM))
    assert settled.feed(raw(DATA, 0, old, b"x"), raw(DATA, 0, 3, b"x"), raw(DATA, 0, 8_193, b"x")) == []
    # One that takes the place of an ended one in the record is not taken for it.
    settled.codec.reset_stream(cancelled := settled.open(), ErrorCode.CANCEL)
    assert settled.feed(raw(DATA, 0, cancelled, b"x")) == []
    assert settled.error(raw(DATA, 0, 9_001, b"x")).error_code == ErrorCode.STREAM_CLOSED


def test_more_data_than_the_window_of_the_stream(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=100)
    settled.open()
    settled.feed(raw_headers(OK), raw(DATA, 0, 1, bytes(100)))
    assert settled.error(raw(DATA, 0, 1, b"x")).error_code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("late", [False, True])
def test_more_data_than_the_window_of_the_connection(codec_name: str, late: bool) -> None:
    settled = Settled(codec_name, stream_window=2**20, connection_window=65_535)
    settled.open()
    settled.feed(raw_headers(OK))
    if late:
        settled.codec.reset_stream(1, ErrorCode.CANCEL)
    # The window is 65,535 and its half would be given back; one that is overrun in a single frame cannot be.
    codec = settled.codec
    if hasattr(codec, "_receive_window"):
        codec._receive_window = 10_000
    else:
        inside(codec)._h2._inbound_flow_control_window_manager.current_window_size = 10_000
    assert settled.error(raw(DATA, 0, 1, bytes(10_001))).error_code == ErrorCode.FLOW_CONTROL_ERROR


# Header blocks without measure


def test_a_header_list_that_is_too_large(codec_name: str) -> None:
    settled = Settled(codec_name, max_header_list=1000)
    settled.open()
    fields = [(b"a%d" % number, b"x" * 100) for number in range(10)]
    assert settled.error(raw_headers([*OK, *fields])).error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_compression_bomb(settled: Settled) -> None:
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    settled.feed(raw(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88" + entry))
    settled.open()
    error = settled.error(raw(HEADERS, END_HEADERS, 3, b"\x88" + b"\xbe" * 16_000))
    assert error.error_code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("size", [0, 1, 16_384])
@pytest.mark.parametrize("live", [True, False])
def test_a_header_block_without_end(settled: Settled, size: int, live: bool) -> None:
    if not live:
        settled.codec.reset_stream(1, ErrorCode.CANCEL)
        take(settled.codec)
    settled.feed(raw(HEADERS, 0, 1, b"\x88"))
    error = objection(settled.codec, [raw(CONTINUATION, 0, 1, b"\x88" * size)] * 70)
    assert error is not None
    assert error.error_code == ErrorCode.ENHANCE_YOUR_CALM
    assert held(settled.codec) < 2**17


# Floods


@pytest.mark.parametrize(
    "frame",
    [
        raw(PING, 0, 0, bytes(8)),
        raw(PING, 1, 0, bytes(8)),
        raw_settings(),
        raw_settings((0x4, 1), (0x4, 2)),
        raw(SETTINGS, 1),
        raw(DATA, 0, 1),
        raw(DATA, PADDED, 1, b"\0"),
        raw(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        raw(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        raw(PRIORITY, 0, 1, bytes(5)),
        raw(RST_STREAM, 0, 3, bytes(4)),
        raw_headers(OK, 3),
        raw(DATA, 0, 3),
        raw(WINDOW_UPDATE, 0, 3, b"\0\0\0\1"),
        raw(WINDOW_UPDATE, 0, 5, b"\0\0\0\1"),
        raw(0xAA),
        raw(GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)),
    ],
)
def test_a_flood(settled: Settled, frame: bytes) -> None:
    settled.codec.reset_stream(settled.open(), ErrorCode.CANCEL)
    settled.feed(raw_headers(OK, settled.open(), END_HEADERS | END_STREAM), raw_headers(OK, 1))
    assert flood(settled, frame).error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_flood_of_informational_responses(settled: Settled) -> None:
    frame = raw(HEADERS, END_HEADERS, 1, b"\x08\x03100")
    assert flood(settled, frame).error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_pings_between_bytes_of_data_that_nobody_reads_the_answers_of(settled: Settled) -> None:
    pings = raw(PING, 0, 0, bytes(8)) * 100 + raw(DATA, 0, 1, b"x")
    assert flood(settled, pings, setup=raw_headers(OK)).error_code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("useful", ["response", "data", "request", "upload"])
def test_idle_frames_between_useful_ones_are_no_flood(settled: Settled, useful: str) -> None:
    settled.feed(raw_headers(OK))
    upload = settled.open(end_stream=False)
    for _ in range(4):
        fresh = settled.open() if useful in ("request", "response") else 0
        if useful == "response":
            settled.feed(raw(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 4_000, raw_headers(OK, fresh))
        elif useful == "data":
            settled.feed(raw(DATA, 0, 1, b"x"))
        elif useful == "upload":
            settled.codec.send_data(upload, memoryview(b"x"), end_stream=False)
        settled.feed(raw(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 7_000)


def test_many_header_blocks_in_pieces_are_no_flood(codec_name: str) -> None:
    settled = Settled(codec_name)
    for _ in range(70):
        head = raw_headers([*OK, *[(b"x", b"v" * 120)] * 9], settled.open(), END_STREAM)
        stream_id = int.from_bytes(head[5:9])
        assert len(settled.feed(head, raw(CONTINUATION, END_HEADERS, stream_id))) == 1


def test_a_patient_server_may_ping_for_ever(settled: Settled) -> None:
    for _ in range(FLOOD):
        settled.feed(raw(PING, 0, 0, bytes(8)))
        assert len(take(settled.codec)) == 1


def test_a_server_may_credit_every_frame_of_a_long_upload(codec_name: str) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    credit = raw(WINDOW_UPDATE, 0, 0, b"\0\0\x20\0") + raw(WINDOW_UPDATE, 0, 1, b"\0\0\x20\0")
    for _ in range(FLOOD // 4):
        assert settled.codec.send_data(1, memoryview(bytes(8192)), end_stream=False) == 8192
        settled.codec.wire.clear()
        settled.feed(credit * 1, raw(PING, 0, 0, bytes(8)) * 2)


def test_what_was_under_way_when_downloads_were_given_up_is_no_flood(codec_name: str) -> None:
    settled = Settled(codec_name)
    streams = [settled.open() for _ in range(20)]
    for stream_id in streams:
        settled.codec.reset_stream(stream_id, ErrorCode.CANCEL)
    late = b"".join(raw(DATA, 0, stream_id, bytes(4)) * 1_000 for stream_id in streams)
    assert settled.feed(late) == []


def test_resets_leave_nothing_behind(codec_name: str) -> None:
    settled = Settled(codec_name)
    code = ErrorCode.INTERNAL_ERROR.to_bytes(4)
    for _ in range(3_000):
        stream_id = settled.open()
        (event,) = settled.feed(raw(RST_STREAM, 0, stream_id, code))
        assert isinstance(event, StreamReset)
        settled.codec.reset_stream(settled.open(), ErrorCode.CANCEL)
        take(settled.codec)
    assert inside(settled.codec)._streams == {}


# Garbage


def survive(name: str, pieces: list[bytes], *, begin: bytes) -> None:
    codec = new_codec(name)
    codec.open_stream(REQUEST, end_stream=True)
    codec.open_stream(REQUEST, end_stream=False)
    try:
        codec.receive(begin)
        for piece in pieces:
            codec.receive(piece)
            codec.send_data(3, memoryview(b"x" * 100), end_stream=False)
            codec.consumed(1, 10)
    except ProtocolError:
        assert split_frames(bytes(codec.wire))[-1][0] == GOAWAY
    assert held(codec) < 2**17


plausible = st.builds(
    raw, st.integers(0, 12), st.integers(0, 255), st.integers(0, 6), st.binary(max_size=30) | st.just(bytes(4))
)


@pytest.mark.parametrize("name", CODECS)
@given(pieces=st.lists(st.binary(max_size=100), max_size=5))
def test_garbage_is_a_protocol_error_at_most(name: str, pieces: list[bytes]) -> None:
    survive(name, pieces, begin=b"")
    survive(name, pieces, begin=raw_settings())


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=300)
@given(pieces=st.lists(plausible, max_size=12))
def test_plausible_frames_are_a_protocol_error_at_most(name: str, pieces: list[bytes]) -> None:
    survive(name, pieces, begin=raw_settings())
