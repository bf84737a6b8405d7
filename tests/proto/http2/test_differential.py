"""Both codecs, the same bytes: the same events, the same errors and the same answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from grotte._proto.http2.codec import Codec, Event, Header, ProtocolError
from tests.proto.http2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    inside,
    new_codec,
    raw,
    raw_headers,
    raw_settings,
    take,
)

streams = st.sampled_from([1, 3, 5, 7, 9, 0, 2, 11])
#: Mostly live streams, so that scripts get somewhere.
live = st.sampled_from([1, 3, 5, 9])
ends = st.sampled_from([0, 1])
lists: st.SearchStrategy[list[Header]] = st.sampled_from(
    [
        [(b":status", b"200")],
        [(b":status", b"200"), (b"content-length", b"5")],
        [(b":status", b"304"), (b"content-length", b"5")],
        [(b":status", b"100")],
        [(b":status", b"200"), (b"Bad", b"x")],
        [(b"trailer", b"x")],
        [],
    ]
)
windows = st.sampled_from([0, 1, 100, 65_535, 2**31 - 1, 2**30]).map(lambda size: size.to_bytes(4))
headers_frames = st.builds(
    lambda headers, stream, end: raw_headers(headers, stream, END_HEADERS | end), lists, live | streams, ends
)
frames = st.one_of(
    headers_frames,
    headers_frames,
    st.builds(lambda stream, end, data: raw(DATA, end, stream, data), live | streams, ends, st.binary(max_size=6)),
    st.builds(
        lambda stream, end, pad: raw(DATA, PADDED | end, stream, bytes((pad,)) + bytes(6)),
        live,
        ends,
        st.integers(0, 8),
    ),
    st.builds(lambda stream, code: raw(RST_STREAM, 0, stream, code.to_bytes(4)), live | streams, st.integers(0, 15)),
    st.builds(lambda stream, size: raw(WINDOW_UPDATE, 0, stream, size), live | streams, windows),
    st.builds(
        lambda identifier, value: raw_settings((identifier, value)),
        st.integers(1, 7),
        st.sampled_from([0, 1, 100, 16_384, 65_536, 2**31]),
    ),
    st.builds(
        lambda stream, priority: raw(HEADERS, END_HEADERS | 0x21, stream, priority + b"\x88"),
        live,
        st.binary(min_size=5, max_size=5) | live.map(lambda stream: stream.to_bytes(4) + b"\x10"),
    ),
    st.builds(lambda flags: raw(PING, flags, 0, b"12345678"), ends),
    st.builds(lambda last: raw(GOAWAY, 0, 0, last.to_bytes(4) + bytes(4)), st.integers(0, 12)),
    st.builds(lambda stream, size: raw(2, 0, stream, bytes(size)), live, st.integers(4, 5)),
    st.builds(lambda stream: raw(HEADERS, 0, stream, b"\x88"), live),
    st.builds(lambda stream, end: raw(CONTINUATION, end, stream, b"\0\1a\1b"), live, st.sampled_from([0, 4])),
    st.builds(raw, st.integers(10, 20), st.integers(0, 255), streams, st.binary(max_size=5)),
    st.builds(lambda stream, block: raw(HEADERS, END_HEADERS, stream, block), live, st.binary(min_size=1, max_size=6)),
)
actions = st.one_of(
    frames,
    frames,
    frames,
    st.tuples(st.just("send"), live, st.integers(0, 70_000), st.booleans()),
    st.tuples(st.just("reset"), live),
    st.tuples(st.just("consumed"), live, st.integers(1, 40)),
    st.tuples(st.just("open"), st.booleans()),
)
Action = bytes | tuple[object, ...]


class Run:
    """One codec with a few streams open, and all that it says and sends."""

    def __init__(self, name: str) -> None:
        self.codec: Codec = new_codec(name, stream_window=40, connection_window=65_600)
        self.codec.receive(raw_settings())
        self.codec.open_stream(REQUEST, end_stream=True)
        self.codec.open_stream(REQUEST, end_stream=False)
        self.codec.open_stream([(b":method", b"HEAD"), *REQUEST[1:]], end_stream=True)
        self.codec.reset_stream(self.codec.open_stream(REQUEST, end_stream=True), 8)
        self.codec.open_stream(REQUEST, end_stream=False)
        take(self.codec)

    def step(self, action: Action) -> tuple[list[Event] | int | str, list[tuple[int, int, int, bytes]]]:
        try:
            said = self._act(action)
        except ProtocolError as error:
            said = f"error {error.error_code}"
        sent = [frame for frame in take(self.codec) if frame[0] not in (HEADERS, GOAWAY)]
        return said, sent

    def _act(self, action: Action) -> list[Event] | int | str:
        codec = self.codec
        match action:
            case bytes():
                return _comparable(codec.receive(action))
            case ("send", int(stream), int(size), bool(end)):
                return codec.send_data(stream, memoryview(bytes(size)), end_stream=end)
            case ("reset", int(stream)):
                codec.reset_stream(stream, 8)
            case ("consumed", int(stream), int(size)):
                codec.consumed(stream, size)
            case ("open", bool(end)):
                if len(inside(codec)._streams) < codec.max_concurrent_streams:
                    return codec.open_stream(REQUEST, end_stream=end)
        return 0


def _comparable(events: list[Event]) -> list[Event]:
    """Messages are for people."""
    for event in events:
        if hasattr(event, "message"):
            event.message = ""
    return events


@settings(max_examples=1000)
@given(st.lists(actions, max_size=25))
def test_both_codecs_say_and_send_the_same(script: list[Action]) -> None:
    native, other = Run("native"), Run("h2")
    for action in script:
        ours, theirs = native.step(action), other.step(action)
        assert ours == theirs
        if isinstance(ours[0], str):
            break


def test_settings_frames_are_compared_too() -> None:
    assert Run("native").step(raw_settings())[1] == [(SETTINGS, 1, 0, b"")]
