"""The other end of the wire: an h2 server, and frames made by hand for what no h2 server would send."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived as ServerData
from h2.events import Event as ServerEvent
from hpack import Encoder

from grotte._proto.http2 import make_codec
from grotte._proto.http2.codec import PREFACE, Codec, DataReceived, Event, Header, ProtocolError, StreamReset

CODECS = ("native", "h2")
REQUEST: list[Header] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"api.example.org"),
    (b":path", b"/sandboxes"),
]
OK: list[Header] = [(b":status", b"200")]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def new_codec(
    name: str, *, stream_window: int = 2**20, connection_window: int = 2**26, max_header_list: int = 2**16
) -> Codec:
    return make_codec(
        name, stream_window=stream_window, connection_window=connection_window, max_header_list=max_header_list
    )


def joined(events: Sequence[Event]) -> list[Event]:
    """The same with the pieces of each body that follow one another in one: a codec may join them."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.stream_id == event.stream_id:
            flow = last.flow_length + event.flow_length
            event = DataReceived(event.stream_id, last.data + event.data, flow, event.end_stream)
            found.pop()
        found.append(event)
    return found


def inside(codec: Codec) -> Any:
    """A codec without its interface: how much state it keeps, and what it takes the windows to be."""
    return codec


def raw(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def raw_settings(*settings: tuple[int, int]) -> bytes:
    payload = b"".join(identifier.to_bytes(2) + value.to_bytes(4) for identifier, value in settings)
    return raw(SETTINGS, payload=payload)


def raw_headers(headers: Sequence[Header], stream_id: int = 1, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame that leaves the dynamic table alone."""
    block = b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in headers)
    return raw(HEADERS, flags, stream_id, block)


def split_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Take a client's bytes apart: type, flags, stream id, payload."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        length = int.from_bytes(data[:3])
        assert len(data) >= 9 + length
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def take(codec: Codec) -> list[tuple[int, int, int, bytes]]:
    """What the codec sends now, as frames."""
    sent = split_frames(bytes(codec.wire))
    codec.wire.clear()
    return sent


def chunked(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def one_by_one(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


def objection(codec: Codec, pieces: Iterable[bytes]) -> ProtocolError | None:
    """Feed pieces until the codec objects, if it does."""
    try:
        for piece in pieces:
            codec.receive(piece)
    except ProtocolError as error:
        return error
    return None


def reset_code(events: Sequence[Event]) -> int:
    """The one event is a reset of ours."""
    (event,) = events
    assert isinstance(event, StreamReset)
    assert not event.remote
    return event.error_code


class Settled:
    """A codec whose peer has sent SETTINGS, and frames to feed it."""

    def __init__(self, name: str, *settings: tuple[int, int], **windows: int) -> None:
        self.codec = new_codec(name, **windows)
        self.codec.receive(raw_settings(*settings))
        take(self.codec)
        self.encoder = Encoder()

    def open(self, headers: Sequence[Header] = REQUEST, *, end_stream: bool = True) -> int:
        stream_id = self.codec.open_stream(headers, end_stream=end_stream)
        take(self.codec)
        return stream_id

    def feed(self, *data: bytes) -> list[Event]:
        return self.codec.receive(b"".join(data))

    def error(self, *data: bytes) -> ProtocolError:
        """Feed what must end the connection, and see that a GOAWAY says so."""
        before = len(self.codec.wire)
        error = objection(self.codec, [b"".join(data)])
        assert error is not None
        kind, _, stream_id, payload = split_frames(bytes(self.codec.wire[before:]))[-1]
        assert (kind, stream_id, int.from_bytes(payload[4:8])) == (GOAWAY, 0, error.error_code)
        return error

    def answer(self, headers: Sequence[Header], stream_id: int = 1, flags: int = END_HEADERS) -> bytes:
        return raw(HEADERS, flags, stream_id, self.encoder.encode(list(headers)))


class Server:
    """An h2 server joined to a codec by plain calls."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            normalize_inbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()

    def take(self, sizes: Iterable[int] = ()) -> list[ServerEvent]:
        """Move the client's bytes to the server in pieces."""
        data = bytes(self.codec.wire)
        self.codec.wire.clear()
        return [event for piece in chunked(data, sizes) for event in self.h2.receive_data(piece)]

    def credit(self, events: Iterable[ServerEvent]) -> None:
        """Have the server give back the windows of what it received."""
        for event in events:
            if isinstance(event, ServerData):
                assert event.stream_id is not None
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def give(self, sizes: Iterable[int] = ()) -> list[Event]:
        """Move the server's bytes to the client in pieces."""
        data = self.h2.data_to_send()
        return [event for piece in chunked(data, sizes) for event in self.codec.receive(piece)]
