"""What RFC 9113 asks of a client, rule by rule, of both codecs."""

from __future__ import annotations

import itertools

import pytest
from hpack import Decoder

from grotte._proto.http2.codec import (
    ASSUMED_MAX_CONCURRENT_STREAMS,
    UNLIMITED_STREAMS,
    DataReceived,
    ErrorCode,
    GoAway,
    Header,
    PingAcknowledged,
    ProtocolError,
    ResponseHeaders,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from tests.proto.http2.peer import (
    ACK,
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
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Server,
    Settled,
    inside,
    joined,
    new_codec,
    raw,
    raw_headers,
    raw_settings,
    reset_code,
    take,
)

LENGTH_5: list[Header] = [*OK, (b"content-length", b"5")]
ENDED = END_HEADERS | END_STREAM


# The beginning


def test_the_preface_announces_windows_and_limits(codec_name: str) -> None:
    codec = new_codec(codec_name, stream_window=2**18, connection_window=2**20, max_header_list=2**15)
    assert codec.max_concurrent_streams == ASSUMED_MAX_CONCURRENT_STREAMS
    server = Server(codec)
    server.take()
    settings = server.h2.remote_settings
    assert settings.enable_push == 0
    assert settings.initial_window_size == 2**18
    assert settings.max_header_list_size == 2**15
    assert server.h2.outbound_flow_control_window == 2**20


def test_a_connection_window_below_the_default_stays_at_the_default(codec_name: str) -> None:
    codec = new_codec(codec_name, connection_window=10)
    assert [kind for kind, *_ in take(codec)] == [SETTINGS]


# Responses


def test_a_whole_response(settled: Settled) -> None:
    events = settled.feed(
        raw_headers([*OK, (b"server", b"x")]), raw(DATA, 0, 1, b"hello"), raw_headers([(b"a", b"b")], 1, ENDED)
    )
    assert events == [
        ResponseHeaders(1, 200, [*OK, (b"server", b"x")], end_stream=False),
        DataReceived(1, b"hello", 5, end_stream=False),
        TrailersReceived(1, [(b"a", b"b")]),
    ]


def test_a_response_without_content(settled: Settled) -> None:
    assert settled.feed(raw_headers(OK, 1, ENDED)) == [ResponseHeaders(1, 200, OK, end_stream=True)]


def test_an_empty_last_frame_is_an_event_and_other_empty_frames_are_not(settled: Settled) -> None:
    events = settled.feed(raw_headers(OK), raw(DATA, 0, 1), raw(DATA, PADDED, 1, b"\x03\0\0\0"))
    assert len(events) == 1
    assert settled.feed(raw(DATA, END_STREAM, 1)) == [DataReceived(1, b"", 0, end_stream=True)]


def test_the_pieces_of_a_body_keep_their_order_and_their_stream(settled: Settled) -> None:
    pieces = [bytes([number]) * 1500 for number in range(6)]
    frames = [raw(DATA, 0, 1, piece) for piece in pieces[:4]]
    cut = b"".join([*frames, raw(DATA, 0, 1), raw(DATA, 0, 1, b"small")])
    settled.open()
    events = settled.feed(raw_headers(OK), raw_headers(OK, 3), cut[:4000])
    events += settled.feed(cut[4000:], raw(DATA, 0, 3, pieces[4]), raw(DATA, END_STREAM, 1, pieces[5]))
    assert joined(events) == [
        ResponseHeaders(1, 200, OK, end_stream=False),
        ResponseHeaders(3, 200, OK, end_stream=False),
        DataReceived(1, b"".join(pieces[:4]) + b"small", 4 * 1500 + 5, end_stream=False),
        DataReceived(3, pieces[4], 1500, end_stream=False),
        DataReceived(1, pieces[5], 1500, end_stream=True),
    ]


def test_events_do_not_change_with_the_buffer_that_they_came_in(settled: Settled) -> None:
    frames = [raw_headers(OK), *[raw(DATA, 0, 1, bytes([number]) * 1500) for number in range(3)]]
    buffer = bytearray(b"".join(frames))
    events = settled.codec.receive(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert joined(events)[1] == DataReceived(1, b"\0" * 1500 + b"\1" * 1500 + b"\2" * 1500, 4500, end_stream=False)


def test_a_frame_that_came_in_two_parts_is_joined_with_those_that_follow() -> None:
    """What one read brings of a body is one event, wherever the read before it ended."""
    body = bytes(range(250)) * 24
    frames = [raw(DATA, 0, 1, body[start:end]) for start, end in itertools.pairwise((0, 1500, 3000, 4900, 6000))]
    wire = b"".join(frames)
    for cut in range(0, len(wire) - len(frames[-1]), 11):
        settled = Settled("native")
        settled.open()
        settled.feed(raw_headers(OK))
        first = settled.feed(wire[:cut])
        second = settled.feed(wire[cut:])
        assert (len(first), len(second)) == (cut >= len(frames[0]), 1)
        assert joined([*first, *second]) == [DataReceived(1, body, len(body), end_stream=False)]
        assert settled.codec.frames_received == 2 + len(frames)


def test_informational_responses_are_dropped(settled: Settled) -> None:
    early = raw_headers([(b":status", b"103"), (b"link", b"</a>")])
    assert settled.feed(raw_headers([(b":status", b"100")]), early) == []
    assert settled.feed(raw_headers(OK, 1, ENDED)) == [ResponseHeaders(1, 200, OK, end_stream=True)]


def test_padding_is_removed_and_counted(settled: Settled) -> None:
    settled.feed(raw_headers(OK))
    assert settled.feed(raw(DATA, PADDED, 1, b"\x03hello\0\0\0")) == [DataReceived(1, b"hello", 9, end_stream=False)]
    # Padding may fill the frame up to its length field.
    assert settled.feed(raw(DATA, PADDED, 1, b"\x01\0")) == []


def test_headers_may_be_padded_and_carry_a_priority(settled: Settled) -> None:
    block = b"\x88"
    payload = b"\x02" + b"\0\0\0\0\x10" + block + b"\0\0"
    assert settled.feed(raw(HEADERS, PADDED | 0x20 | ENDED, 1, payload)) == [
        ResponseHeaders(1, 200, OK, end_stream=True)
    ]


def test_continuations_are_joined(settled: Settled) -> None:
    block = b"\x88" + b"\0\x01a\x01b"
    frames = [raw(HEADERS, END_STREAM, 1, block[:2]), raw(CONTINUATION, 0, 1), raw(CONTINUATION, 0, 1, block[2:4])]
    assert settled.feed(*frames) == []
    assert settled.feed(raw(CONTINUATION, END_HEADERS, 1, block[4:])) == [
        ResponseHeaders(1, 200, [*OK, (b"a", b"b")], end_stream=True)
    ]


def test_each_joined_block_stands_alone(settled: Settled) -> None:
    for stream_id in (1, settled.open()):
        head = raw(HEADERS, END_STREAM, stream_id, b"\x88\0")
        tail = raw(CONTINUATION, END_HEADERS, stream_id, b"\x01a\x01b")
        assert settled.feed(head, tail) == [ResponseHeaders(stream_id, 200, [*OK, (b"a", b"b")], end_stream=True)]


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_some_responses_have_a_length_and_no_content(settled: Settled, status: bytes) -> None:
    headers = [(b":status", status), (b"content-length", b"5")]
    assert settled.feed(raw_headers(headers, 1, ENDED)) == [ResponseHeaders(1, int(status), headers, end_stream=True)]


@pytest.mark.parametrize("flags", [ENDED, END_HEADERS])
def test_a_response_to_head_has_a_length_and_no_content(codec_name: str, flags: int) -> None:
    settled = Settled(codec_name)
    settled.open([(b":method", b"HEAD"), *REQUEST[1:]])
    events = settled.feed(raw_headers(LENGTH_5, 1, flags))
    if flags == END_HEADERS:
        events += settled.feed(raw(DATA, END_STREAM, 1))
    assert events[0] == ResponseHeaders(1, 200, LENGTH_5, end_stream=flags == ENDED)
    assert not any(isinstance(event, StreamReset) for event in events)


# Malformed responses end their stream, and only that


@pytest.mark.parametrize(
    "frames",
    [
        [raw_headers([(b"server", b"x")])],
        [raw_headers([*OK, (b"Upper", b"x")])],
        [raw_headers([*OK, (b"connection", b"close")])],
        [raw_headers([*OK, (b"content-length", b"x")])],
        [raw_headers([(b":status", b"100")], 1, ENDED)],
        [raw_headers([(b":status", b"100"), (b"A", b"")])],
        [raw_headers(LENGTH_5, 1, ENDED)],
        [raw_headers(LENGTH_5), raw(DATA, 0, 1, b"123456")],
        [raw_headers(LENGTH_5), raw(DATA, END_STREAM, 1, b"1234")],
        [raw_headers(LENGTH_5), raw(DATA, 0, 1, b"1234"), raw_headers([(b"a", b"b")], 1, ENDED)],
        [raw_headers(OK), raw_headers([(b"a", b"b")])],
        [raw_headers(OK), raw_headers([(b":status", b"200")], 1, ENDED)],
        [raw_headers(OK), raw_headers([(b":status", b"103")])],
        [raw(DATA, 0, 1, b"early")],
        [raw(DATA, END_STREAM, 1)],
    ],
)
def test_a_malformed_response_is_an_error_of_its_stream(settled: Settled, frames: list[bytes]) -> None:
    settled.open()
    *before, last = frames
    settled.feed(*before)
    assert reset_code(settled.feed(last)) == ErrorCode.PROTOCOL_ERROR
    assert take(settled.codec) == [(RST_STREAM, 0, 1, ErrorCode.PROTOCOL_ERROR.to_bytes(4))]
    assert settled.feed(raw_headers(OK, 3, ENDED)) == [ResponseHeaders(3, 200, OK, end_stream=True)]


def test_a_priority_frame_of_the_wrong_size_is_an_error_of_its_stream(settled: Settled) -> None:
    assert settled.feed(raw(PRIORITY, 0, 1, bytes(5)), raw(PRIORITY, 0, 9, bytes(4))) == []
    assert reset_code(settled.feed(raw(PRIORITY, 0, 1, bytes(4)))) == ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("frame", [raw(DATA, 0, 1, b"x"), raw_headers([(b"a", b"b")], 1, ENDED)])
def test_frames_after_the_end_of_a_response_that_is_still_asked_for(codec_name: str, frame: bytes) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    settled.feed(raw_headers(OK, 1, ENDED))
    assert reset_code(settled.feed(frame)) == ErrorCode.STREAM_CLOSED


def test_an_upload_may_end_after_its_response(codec_name: str) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    settled.feed(raw_headers(OK, 1, ENDED))
    assert settled.codec.send_data(1, memoryview(b"rest"), end_stream=True) == 4
    assert take(settled.codec) == [(DATA, END_STREAM, 1, b"rest")]
    assert settled.error(raw(DATA, 0, 1, b"x")).error_code == ErrorCode.STREAM_CLOSED


# Resets


def test_a_reset_by_the_peer_ends_the_stream(settled: Settled) -> None:
    code = ErrorCode.REFUSED_STREAM.to_bytes(4)
    assert settled.feed(raw(RST_STREAM, 0, 1, code)) == [StreamReset(1, ErrorCode.REFUSED_STREAM, remote=True)]
    # What was in flight is dropped.
    assert settled.feed(raw(RST_STREAM, 0, 1, code), raw_headers(OK), raw(DATA, 0, 1, b"x")) == []
    settled.codec.reset_stream(1, ErrorCode.CANCEL)
    assert take(settled.codec) == []


def test_an_unknown_error_code_is_passed_on(settled: Settled) -> None:
    assert settled.feed(raw(RST_STREAM, 0, 1, b"\0\0\1\0")) == [StreamReset(1, 256, remote=True)]


def test_a_reset_of_a_complete_exchange_is_ignored(settled: Settled) -> None:
    assert len(settled.feed(raw_headers(OK, 1, ENDED), raw(RST_STREAM, 0, 1, bytes(4)))) == 1


def test_a_server_that_answers_early_stops_the_upload_and_keeps_the_response(codec_name: str) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    assert settled.codec.send_data(1, memoryview(b"x" * 70_000), end_stream=True) == 65_535
    assert len(settled.feed(raw_headers(OK, 1, ENDED))) == 1
    take(settled.codec)
    # Whoever waits for the window is woken, and what is left of the body goes nowhere.
    assert settled.feed(raw(RST_STREAM, 0, 1, bytes(4))) == [WindowOpened(1)]
    assert settled.codec.send_data(1, memoryview(b"x" * 4_465), end_stream=True) == 4_465
    assert take(settled.codec) == []


def test_another_reset_after_an_early_answer_is_reported(codec_name: str) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    settled.feed(raw_headers(OK, 1, ENDED))
    assert settled.feed(raw(RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4))) == [
        StreamReset(1, ErrorCode.CANCEL, remote=True)
    ]


def test_after_our_reset_late_frames_are_decoded_and_dropped(settled: Settled) -> None:
    settled.open()
    settled.codec.reset_stream(1, ErrorCode.CANCEL)
    assert take(settled.codec) == [(RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4))]
    headers: list[Header] = [*OK, (b"x-table", b"entry")]
    late = [settled.answer(headers, 1), raw(DATA, 0, 1, b"x" * 10), raw(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")]
    assert settled.feed(*late, raw(RST_STREAM, 0, 1, bytes(4))) == []
    assert take(settled.codec) == []
    # The block that was dropped has put its header into the table.
    assert settled.feed(settled.answer(headers, 3, ENDED)) == [ResponseHeaders(3, 200, headers, end_stream=True)]


def test_late_headers_in_continuations_are_decoded_too(settled: Settled) -> None:
    settled.open()
    headers: list[Header] = [*OK, (b"x-table", b"entry")]
    block = settled.encoder.encode(headers)
    settled.feed(raw(HEADERS, 0, 1, block[:3]))
    settled.codec.reset_stream(1, ErrorCode.CANCEL)
    take(settled.codec)
    assert settled.feed(raw(CONTINUATION, END_HEADERS, 1, block[3:])) == []
    assert settled.feed(settled.answer(headers, 3)) == [ResponseHeaders(3, 200, headers, end_stream=False)]
    assert take(settled.codec) == []


# The connection


def test_settings_are_applied_and_acknowledged(codec_name: str) -> None:
    codec = new_codec(codec_name)
    take(codec)
    assert codec.receive(raw_settings((0x3, 7), (0x9999, 1))) == [SettingsReceived(7)]
    assert take(codec) == [(SETTINGS, ACK, 0, b"")]
    assert codec.receive(raw(SETTINGS, ACK) + raw_settings((0x5, 20_000))) == [SettingsReceived(7)]
    assert codec.max_concurrent_streams == 7
    assert codec.receive(raw_settings((0x3, 2**32 - 1), (0x3, 0))) == [SettingsReceived(0)]


@pytest.mark.parametrize("sizes", [(146, 145), (1, 0), (0, 0), (200, 100, 200), (0, 4096), (100, 4096), (50, 50, 60)])
def test_table_sizes_that_followed_one_another_between_two_requests(codec_name: str, sizes: tuple[int, ...]) -> None:
    """Only what the peer still permits is announced (RFC 7541, 4.2), and none of it is forgotten."""
    codec, decoder = new_codec(codec_name), Decoder()
    codec.receive(raw_settings())

    def ask() -> None:
        codec.open_stream(REQUEST, end_stream=True)
        (block,) = (payload for kind, _, _, payload in take(codec) if kind == HEADERS)
        assert list(decoder.decode(block, raw=True)) == REQUEST

    ask()
    for size in sizes:
        codec.receive(raw_settings((0x1, size)))
        decoder.max_allowed_table_size = size  # as of the acknowledgement
    for _ in range(2):
        ask()
    assert decoder.header_table_size <= sizes[-1]


def test_settings_without_a_limit_allow_any_number_of_streams(codec_name: str) -> None:
    codec = new_codec(codec_name)
    assert codec.receive(raw_settings()) == [SettingsReceived(UNLIMITED_STREAMS)]
    assert codec.receive(raw_settings((0x3, 2**32 - 1))) == [SettingsReceived(UNLIMITED_STREAMS)]


def test_pings_both_ways(settled: Settled) -> None:
    settled.codec.ping(b"question")
    assert take(settled.codec) == [(PING, 0, 0, b"question")]
    assert settled.feed(raw(PING, ACK, 0, b"question")) == [PingAcknowledged(b"question")]
    assert settled.feed(raw(PING, 0, 0, b"12345678")) == []
    assert take(settled.codec) == [(PING, ACK, 0, b"12345678")]


def test_streams_go_on_after_goaway(codec_name: str) -> None:
    settled = Settled(codec_name)
    settled.open(end_stream=False)
    settled.codec.ping(b"in wire.")
    goaway = raw(GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4) + b"bye")
    assert settled.feed(goaway) == [GoAway(1, ErrorCode.NO_ERROR, b"bye")]
    assert settled.codec.send_data(1, memoryview(b"body"), end_stream=True) == 4
    assert take(settled.codec) == [(PING, 0, 0, b"in wire."), (DATA, END_STREAM, 1, b"body")]
    assert len(settled.feed(raw_headers(OK), raw(DATA, END_STREAM, 1, b"x"))) == 2


def test_goaway_in_two_phases_never_raises_its_promise(settled: Settled) -> None:
    ids = []
    for last in (2**31 - 1, 5, 9):
        (event,) = settled.feed(raw(GOAWAY, 0, 0, last.to_bytes(4) + bytes(4)))
        assert isinstance(event, GoAway)
        ids.append(event.last_stream_id)
    assert ids == [2**31 - 1, 5, 5]


def test_goodbye_is_a_goaway(settled: Settled) -> None:
    settled.codec.goodbye()
    assert take(settled.codec) == [(GOAWAY, 0, 0, bytes(8))]


def test_unknown_frames_and_flags_and_the_reserved_bit_are_ignored(settled: Settled) -> None:
    odd_headers = bytearray(raw_headers(OK, 1, END_HEADERS | 0x42))
    odd_headers[5] |= 0x80
    assert settled.feed(raw(0xAA, 0xFF, 77, b"?"), raw(0xA, 0, 0, b"alt-svc"), bytes(odd_headers)) == [
        ResponseHeaders(1, 200, OK, end_stream=False)
    ]


def test_long_header_lists_are_cut_to_frames(codec_name: str) -> None:
    codec = new_codec(codec_name)
    server = Server(codec)
    server.h2.update_settings({})
    headers = [*REQUEST, *[(b"x-%d" % number, b"v" * 1000) for number in range(40)]]
    server.h2.decoder.max_header_list_size = 2**20
    codec.receive(server.h2.data_to_send())
    codec.open_stream(headers, end_stream=True)
    events = server.take([20_000, 20_000])
    received = next(event for event in events if hasattr(event, "headers"))
    assert [(bytes(name), bytes(value)) for name, value in received.headers] == headers
    assert any(type(event).__name__ == "StreamEnded" for event in events)


def test_the_connection_drains_before_its_ids_run_out(codec_name: str) -> None:
    settled = Settled(codec_name)
    inside(settled.codec)._next_id = 2**31 - 2**17 - 1  # a thousand million requests later
    settled.open()
    assert settled.feed() == []
    settled.open()
    settled.open()
    (event,) = settled.feed()
    assert event == GoAway(2**31 - 1, ErrorCode.NO_ERROR, b"stream identifiers are used up")
    inside(settled.codec)._next_id = 2**31 + 1  # and nobody listened
    with pytest.raises(ProtocolError):
        settled.open()
