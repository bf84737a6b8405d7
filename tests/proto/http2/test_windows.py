"""Flow control, both ways, of both codecs."""

from __future__ import annotations

import pytest

from grotte._proto.http2.codec import (
    UNLIMITED_STREAMS,
    DataReceived,
    ErrorCode,
    SettingsReceived,
    WindowOpened,
)
from tests.proto.http2.peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    OK,
    PADDED,
    REQUEST,
    WINDOW_UPDATE,
    Settled,
    raw,
    raw_headers,
    raw_settings,
    reset_code,
    take,
)

ENDED = END_HEADERS | END_STREAM


def test_sending_stops_at_the_windows(codec_name: str) -> None:
    settled = Settled(codec_name, (0x4, 100))
    stream_id = settled.open(end_stream=False)
    data = memoryview(b"x" * 300)
    assert settled.codec.send_data(stream_id, data, end_stream=True) == 100
    assert settled.codec.send_data(stream_id, data[100:], end_stream=True) == 0
    assert take(settled.codec) == [(DATA, 0, stream_id, b"x" * 100)]
    assert settled.feed(raw(WINDOW_UPDATE, 0, stream_id, (150).to_bytes(4))) == [WindowOpened(stream_id)]
    assert settled.codec.send_data(stream_id, data[100:], end_stream=True) == 150
    settled.feed(raw(WINDOW_UPDATE, 0, stream_id, (1000).to_bytes(4)))
    assert settled.codec.send_data(stream_id, data[250:], end_stream=True) == 50
    assert [frame[:3] for frame in take(settled.codec)] == [(DATA, 0, 1), (DATA, END_STREAM, 1)]


def test_the_end_of_a_body_needs_no_window(codec_name: str) -> None:
    settled = Settled(codec_name, (0x4, 0))
    stream_id = settled.open(end_stream=False)
    assert settled.codec.send_data(stream_id, memoryview(b""), end_stream=False) == 0
    assert settled.codec.send_data(stream_id, memoryview(b""), end_stream=True) == 0
    assert take(settled.codec) == [(DATA, END_STREAM, stream_id, b"")]
    assert settled.codec.send_data(stream_id, memoryview(b"more"), end_stream=True) == 4
    assert take(settled.codec) == []


def test_all_streams_share_the_window_of_the_connection(codec_name: str) -> None:
    settled = Settled(codec_name, (0x4, 2**20))
    first, second = settled.open(end_stream=False), settled.open(end_stream=False)
    assert settled.codec.send_data(first, memoryview(bytes(65_000)), end_stream=False) == 65_000
    assert settled.codec.send_data(second, memoryview(bytes(65_000)), end_stream=False) == 535
    assert settled.feed(raw(WINDOW_UPDATE, 0, 0, (1000).to_bytes(4))) == [WindowOpened(0)]
    assert settled.codec.send_data(second, memoryview(bytes(65_000)), end_stream=False) == 1000


def test_data_is_cut_to_the_frame_size_of_the_peer(codec_name: str) -> None:
    settled = Settled(codec_name, (0x5, 20_000))
    stream_id = settled.open(end_stream=False)
    assert settled.codec.send_data(stream_id, memoryview(bytes(40_001)), end_stream=True) == 40_001
    sizes = [(flags, len(payload)) for _, flags, _, payload in take(settled.codec)]
    assert sizes == [(0, 20_000), (0, 20_000), (END_STREAM, 1)]
    settled.codec.send_data(settled.open(end_stream=False), memoryview(bytes(20_000)), end_stream=True)
    assert [(flags, len(payload)) for _, flags, _, payload in take(settled.codec)] == [(END_STREAM, 20_000)]


def test_a_smaller_initial_window_makes_windows_negative(codec_name: str) -> None:
    settled = Settled(codec_name, (0x4, 1000))
    stream_id = settled.open(end_stream=False)
    assert settled.codec.send_data(stream_id, memoryview(bytes(600)), end_stream=False) == 600
    assert settled.feed(raw_settings((0x4, 100))) == [SettingsReceived(UNLIMITED_STREAMS)]
    # 400 were left, now 500 are missing.
    settled.feed(raw(WINDOW_UPDATE, 0, stream_id, (500).to_bytes(4)))
    assert settled.codec.send_data(stream_id, memoryview(b"x"), end_stream=True) == 0
    assert settled.feed(raw_settings((0x4, 101))) == [SettingsReceived(UNLIMITED_STREAMS), WindowOpened(0)]
    assert settled.codec.send_data(stream_id, memoryview(b"x"), end_stream=True) == 1


def test_the_connection_is_credited_on_receipt_and_the_stream_on_consumption(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=100_000, connection_window=100_000)
    settled.open()
    settled.feed(raw_headers(OK), raw(DATA, 0, 1, bytes(16_000)) * 3)
    assert take(settled.codec) == []
    settled.feed(raw(DATA, 0, 1, bytes(2_000)))
    assert take(settled.codec) == [(WINDOW_UPDATE, 0, 0, (50_000).to_bytes(4))]
    settled.codec.consumed(1, 49_999)
    assert take(settled.codec) == []
    settled.codec.consumed(1, 1)
    assert take(settled.codec) == [(WINDOW_UPDATE, 0, 1, (50_000).to_bytes(4))]


def test_a_body_of_many_windows_flows_while_it_is_read(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=1000, connection_window=65_535)
    settled.open()
    settled.feed(raw_headers(OK))
    stream_window = connection_window = 0
    for _ in range(500):
        (event,) = settled.feed(raw(DATA, 0, 1, bytes(700)))
        assert isinstance(event, DataReceived)
        settled.codec.consumed(1, event.flow_length)
        for kind, _flags, stream_id, payload in take(settled.codec):
            assert kind == WINDOW_UPDATE
            if stream_id:
                stream_window += int.from_bytes(payload)
            else:
                connection_window += int.from_bytes(payload)
    assert stream_window == 350_000
    assert 350_000 - 65_535 // 2 <= connection_window <= 350_000


def test_the_extra_window_is_announced_with_the_request(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=1000)
    settled.codec.open_stream(REQUEST, end_stream=True, extra_window=9_000)
    headers, update = take(settled.codec)
    assert headers[0] == HEADERS
    assert update == (WINDOW_UPDATE, 0, 1, (9_000).to_bytes(4))
    assert len(settled.feed(raw_headers(OK), raw(DATA, 0, 1, bytes(10_000)))) == 2
    settled.codec.consumed(1, 4_999)
    assert take(settled.codec) == []
    settled.codec.consumed(1, 5_001)
    assert take(settled.codec) == [(WINDOW_UPDATE, 0, 1, (10_000).to_bytes(4))]


def test_the_window_of_a_stream_that_has_ended_is_left_alone(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=1000)
    settled.open(end_stream=False)
    settled.feed(raw_headers(OK), raw(DATA, END_STREAM, 1, bytes(1000)))
    settled.codec.consumed(1, 1000)
    settled.codec.reset_stream(1, ErrorCode.CANCEL)
    take(settled.codec)
    settled.codec.consumed(1, 1000)
    assert take(settled.codec) == []


@pytest.mark.parametrize("live", [True, False])
def test_late_data_is_credited_to_the_connection(codec_name: str, live: bool) -> None:
    settled = Settled(codec_name, connection_window=100_000)
    settled.open(end_stream=False)
    if live:
        settled.feed(raw_headers(OK, 1, ENDED))
    else:
        settled.codec.reset_stream(1, ErrorCode.CANCEL)
        take(settled.codec)
    settled.feed(*[raw(DATA, PADDED, 1, b"\0" * 10_000)] * 5)
    updates = [frame for frame in take(settled.codec) if frame[0] == WINDOW_UPDATE]
    assert updates == [(WINDOW_UPDATE, 0, 0, (50_000).to_bytes(4))]


def test_padding_alone_is_credited_to_its_stream_at_once(codec_name: str) -> None:
    settled = Settled(codec_name, stream_window=500)
    settled.open()
    settled.feed(raw_headers(OK), raw(DATA, PADDED, 1, b"\xff" + bytes(255)))
    assert take(settled.codec) == [(WINDOW_UPDATE, 0, 1, (256).to_bytes(4))]


@pytest.mark.parametrize(
    ("increment", "code"), [(0, ErrorCode.PROTOCOL_ERROR), (2**31 - 1, ErrorCode.FLOW_CONTROL_ERROR)]
)
def test_a_bad_window_update_of_a_stream_is_an_error_of_its_stream(settled: Settled, increment: int, code: int) -> None:
    settled.open()
    assert reset_code(settled.feed(raw(WINDOW_UPDATE, 0, 1, increment.to_bytes(4)))) == code
    assert settled.feed(raw(WINDOW_UPDATE, 0, 3, b"\0\0\0\1")) == [WindowOpened(3)]
