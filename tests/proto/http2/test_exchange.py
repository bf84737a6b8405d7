"""Exchanges with an h2 server, in pieces of any size: it hears what we mean, and we hear what it means."""

from __future__ import annotations

import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grotte._proto.http2.codec import (
    DataReceived,
    Event,
    Header,
    PingAcknowledged,
    ResponseHeaders,
    StreamReset,
    TrailersReceived,
)
from tests.proto.http2.peer import CODECS, OK, REQUEST, Server, joined, new_codec

tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).map(str.encode)
field_values = st.text("abcXYZ 019/;=\u00e9", max_size=40).map(lambda text: text.strip().encode())
fields: st.SearchStrategy[list[Header]] = st.lists(
    st.tuples(
        tokens.map(lambda token: b"x-" + token)
        | st.sampled_from([b"x-access-token", b"cookie", b"date", b"etag", b"server", b"content-type"]),
        field_values,
    ),
    max_size=8,
)
bodies = st.binary(max_size=400) | st.integers(0, 120_000).map(lambda size: bytes(size))
sizes = st.lists(st.integers(1, 40), max_size=60)


def heard_request(events: list[h2.events.Event], stream_id: int) -> tuple[list[Header], bytes, bool]:
    """What the server took a request to be: headers, body, complete."""
    headers: list[Header] = []
    body = b""
    ended = False
    for event in events:
        if getattr(event, "stream_id", None) != stream_id:
            continue
        if isinstance(event, h2.events.RequestReceived):
            headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            body += event.data
        ended |= isinstance(event, h2.events.StreamEnded)
    return headers, body, ended


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=60)
@given(requests=st.lists(st.tuples(fields, bodies), min_size=1, max_size=4), pieces=sizes)
def test_the_server_hears_what_we_mean(
    name: str, requests: list[tuple[list[Header], bytes]], pieces: list[int]
) -> None:
    codec = new_codec(name)
    server = Server(codec)
    server.take(pieces)
    server.give(pieces)
    expected, heard = {}, []
    left: dict[int, memoryview] = {}
    for extra, body in requests:
        stream_id = codec.open_stream([*REQUEST, *extra], end_stream=False)
        expected[stream_id] = ([*REQUEST, *extra], body, True)
        left[stream_id] = memoryview(body)
    while left:
        for stream_id, body_left in list(left.items()):
            taken = codec.send_data(stream_id, body_left[:50_000], end_stream=len(body_left) <= 50_000)
            if taken == len(body_left):
                del left[stream_id]
            else:
                left[stream_id] = body_left[taken:]
        events = server.take(pieces)
        heard += events
        server.credit(events)
        server.give(pieces)
    heard += server.take()
    assert {stream_id: heard_request(heard, stream_id) for stream_id in expected} == expected


class Answer:
    """A response to send, and the events that it must cause."""

    def __init__(
        self, server: Server, stream_id: int, extra: list[Header], body: bytes, trailers: list[Header], pad: int
    ) -> None:
        headers = [*OK, *extra, (b"content-length", b"%d" % len(body))]
        server.h2.send_headers(stream_id, headers, end_stream=False)
        self.expected: list[Event] = [ResponseHeaders(stream_id, 200, headers, end_stream=False)]
        step = server.h2.max_outbound_frame_size - 256
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            ends = not trailers and start + step >= len(body)
            server.h2.send_data(stream_id, piece, end_stream=ends, pad_length=pad or None)
            flow = len(piece) + (pad + 1 if pad else 0)
            self.expected.append(DataReceived(stream_id, piece, flow, ends))
        if trailers:
            server.h2.send_headers(stream_id, trailers, end_stream=True)
            self.expected.append(TrailersReceived(stream_id, trailers))
        elif not body:
            server.h2.end_stream(stream_id)
            self.expected.append(DataReceived(stream_id, b"", 0, end_stream=True))


answers = st.lists(st.tuples(fields, bodies, fields, st.integers(0, 20)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("one_by_one", [False, True])
@settings(max_examples=60)
@given(responses=answers, pieces=sizes)
def test_we_hear_what_the_server_means(
    name: str, one_by_one: bool, responses: list[tuple[list[Header], bytes, list[Header], int]], pieces: list[int]
) -> None:
    codec = new_codec(name)
    server = Server(codec)
    expected: list[Event] = []
    server.take()
    server.give()
    for _ in responses:
        codec.open_stream(REQUEST, end_stream=True)
    server.take()
    for number, (extra, body, trailers, pad) in enumerate(responses):
        body = body[:2000] if one_by_one else body
        expected += Answer(server, 2 * number + 1, extra, body, trailers, pad).expected
    server.h2.ping(b"12345678")
    heard = server.give([1] * 10_000 if one_by_one else pieces)
    assert joined(heard) == joined(expected)
    assert any(isinstance(event, h2.events.PingAckReceived) for event in server.take())


@pytest.mark.parametrize("name", CODECS)
def test_a_ping_and_a_cancel_reach_the_server(name: str) -> None:
    codec = new_codec(name)
    server = Server(codec)
    stream_id = codec.open_stream(REQUEST, end_stream=True)
    codec.reset_stream(stream_id, 8)
    codec.ping(b"barrier!")
    events = server.take([10] * 10)
    assert [event.error_code for event in events if isinstance(event, h2.events.StreamReset)] == [8]
    answers = server.give()
    assert PingAcknowledged(b"barrier!") in answers
    assert not any(isinstance(event, StreamReset) for event in answers)
