"""A client and an h2 server through random interleavings: nothing is lost or duplicated, and the windows balance.

Bytes travel through two pipes that move random amounts at a time, so every frame is at some point half sent, late,
or overtaken by a cancel, a reset, SETTINGS or GOAWAY from the other side.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import h2.events
from h2.settings import SettingCodes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grotte._proto.http2.codec import (
    DataReceived,
    ErrorCode,
    Event,
    GoAway,
    PingAcknowledged,
    ResponseHeaders,
    StreamReset,
    TrailersReceived,
)
from tests.proto.http2.peer import GOAWAY, OK, REQUEST, Server, inside, new_codec, raw

STREAM_WINDOW = 1_000
CONNECTION_WINDOW = 70_000


@dataclass
class Exchange:
    """One request and its response, as each side knows it."""

    number: int
    to_upload: bytes
    uploaded: int = 0
    upload_ended: bool = False
    cancelled: bool = False
    #: What the server has said, and what the client has heard of it.
    said: list[tuple[object, ...]] = field(default_factory=list)
    heard: list[tuple[object, ...]] = field(default_factory=list)
    unconsumed: int = 0
    #: What the server has heard.
    requested: int | None = None
    received: bytes = b""
    received_end: bool = False
    #: new, answering, ended or reset
    server_state: str = "unseen"

    @property
    def over(self) -> bool:
        """As the client sees it."""
        return self.cancelled or any(part[0] in {"end", "reset"} for part in self.heard)


class Interleavings(RuleBasedStateMachine):
    codec_name = "native"

    @initialize()
    def connect(self) -> None:
        self.codec = new_codec(self.codec_name, stream_window=STREAM_WINDOW, connection_window=CONNECTION_WINDOW)
        self.server = Server(self.codec)
        self.up = bytearray()
        self.down = bytearray()
        self.exchanges: dict[int, Exchange] = {}
        self.last_id: int | None = None
        self.asked = 0
        self.pings: deque[bytes] = deque()
        self.settings_acknowledged = True
        self._move_up(10_000)
        self._move_down(10_000)
        self._move_up(10_000)

    # The client

    @precondition(lambda self: self.last_id is None and self._live() < self.codec.max_concurrent_streams)
    @rule(
        upload=st.integers(0, 5_000),
        extra=st.integers(0, 4_000).map(lambda size: max(size - 3_000, 0)),
        in_one=st.booleans(),
    )
    def open(self, upload: int, extra: int, in_one: bool) -> None:
        number = len(self.exchanges)
        exchange = Exchange(number, number.to_bytes(4) * (upload // 4))
        exchange.upload_ended = not exchange.to_upload and in_one
        headers = [*REQUEST, (b"x-number", b"%d" % number), (b"x-api-key", b"secret")]
        stream_id = self.codec.open_stream(headers, end_stream=exchange.upload_ended, extra_window=extra)
        assert stream_id == 2 * number + 1
        self.exchanges[stream_id] = exchange

    @rule(data=st.data(), size=st.integers(1, 3_000))
    def upload(self, data: st.DataObject, size: int) -> None:
        live = [item for item in self.exchanges.items() if not item[1].upload_ended and not item[1].cancelled]
        if live:
            self._upload(*data.draw(st.sampled_from(live)), size)

    def _upload(self, stream_id: int, exchange: Exchange, size: int) -> int:
        left = memoryview(exchange.to_upload)[exchange.uploaded :]
        last = size >= len(left)
        taken = self.codec.send_data(stream_id, left[:size], end_stream=last)
        exchange.uploaded += taken
        exchange.upload_ended = last and taken == len(left)
        return taken

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        live = [item for item in self.exchanges.items() if not item[1].over]
        if live:
            stream_id, exchange = data.draw(st.sampled_from(live))
            self.codec.reset_stream(stream_id, ErrorCode.CANCEL)
            exchange.cancelled = True

    @rule(data=st.data(), share=st.integers(1, 4))
    def consume(self, data: st.DataObject, share: int) -> None:
        waiting = [item for item in self.exchanges.items() if item[1].unconsumed]
        if waiting:
            stream_id, exchange = data.draw(st.sampled_from(waiting))
            amount = -(-exchange.unconsumed // share)
            exchange.unconsumed -= amount
            self.codec.consumed(stream_id, amount)

    @rule()
    def ping(self) -> None:
        self.asked += 1
        payload = self.asked.to_bytes(8)
        self.pings.append(payload)
        self.codec.ping(payload)

    # The pipes

    @rule(size=st.integers(1, 4_000))
    def move_up(self, size: int) -> None:
        self._move_up(size)

    def _move_up(self, size: int) -> None:
        self.up += self.codec.wire[:size]
        del self.codec.wire[:size]
        data = bytes(self.up[:size])
        del self.up[:size]
        for event in self.server.h2.receive_data(data):
            self._server_hears(event)

    @rule(size=st.integers(1, 4_000))
    def move_down(self, size: int) -> None:
        self._move_down(size)

    def _move_down(self, size: int) -> None:
        self.down += self.server.h2.data_to_send()
        data = bytes(self.down[:size])
        del self.down[:size]
        for event in self.codec.receive(data):
            self._client_hears(event)

    def _client_hears(self, event: Event) -> None:
        match event:
            case ResponseHeaders(stream_id, _, headers, end):
                self._hear(stream_id, ("headers", tuple(headers)), end=end)
            case DataReceived(stream_id, data, flow, end):
                self.exchanges[stream_id].unconsumed += flow
                self._hear(stream_id, ("data", data, flow), end=end)
            case TrailersReceived(stream_id, headers):
                self._hear(stream_id, ("trailers", tuple(headers)), end=True)
            case StreamReset(stream_id, code, remote, message):
                assert remote, message
                self._hear(stream_id, ("reset", code), end=False)
            case PingAcknowledged(payload):
                assert payload == self.pings.popleft()
            case GoAway(last_stream_id, _, _):
                assert last_stream_id == self.last_id
            case _:
                pass

    def _hear(self, stream_id: int, part: tuple[object, ...], *, end: bool) -> None:
        exchange = self.exchanges[stream_id]
        assert not exchange.over, f"{part} after the end"
        exchange.heard.append(part)
        if end:
            exchange.heard.append(("end",))

    # The server

    def _server_hears(self, event: h2.events.Event) -> None:
        exchange = self.exchanges.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.SettingsAcknowledged):
            self.settings_acknowledged = True
        if exchange is None:
            return
        if isinstance(event, h2.events.RequestReceived):
            headers = {bytes(name): bytes(value) for name, value in event.headers}
            assert headers[b"x-api-key"] == b"secret"
            assert exchange.requested is None
            exchange.requested = int(headers[b"x-number"])
            exchange.server_state = "new"
        elif isinstance(event, h2.events.DataReceived):
            exchange.received += event.data
            assert event.stream_id is not None
            self.server.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            exchange.received_end = True
        elif isinstance(event, h2.events.StreamReset):
            exchange.server_state = "reset"

    def _answerable(self, *states: str) -> list[tuple[int, Exchange]]:
        return [item for item in self.exchanges.items() if item[1].server_state in states]

    @rule(data=st.data(), end=st.booleans(), early=st.booleans())
    def answer(self, data: st.DataObject, end: bool, early: bool) -> None:
        new = self._answerable("new")
        if not new:
            return
        stream_id, exchange = data.draw(st.sampled_from(new))
        if early:
            self.server.h2.send_headers(stream_id, [(b":status", b"103")])
        headers = [*OK, (b"x-number", b"%d" % exchange.number), (b"x-same", b"always")]
        self.server.h2.send_headers(stream_id, headers, end_stream=end)
        exchange.said.append(("headers", tuple(headers)))
        self._say_end(exchange) if end else setattr(exchange, "server_state", "answering")

    @rule(data=st.data(), size=st.integers(0, 4_000), pad=st.integers(0, 30), end=st.booleans())
    def send_body(self, data: st.DataObject, size: int, pad: int, end: bool) -> None:
        answering = self._answerable("answering")
        if not answering:
            return
        stream_id, exchange = data.draw(st.sampled_from(answering))
        room = self.server.h2.local_flow_control_window(stream_id) - pad - 1
        body = bytes(min(size, max(room, 0)))
        if pad and room < 0:
            return
        self.server.h2.send_data(stream_id, body, end_stream=end, pad_length=pad or None)
        if body or end:
            exchange.said.append(("data", body, len(body) + (pad + 1 if pad else 0)))
        if end:
            self._say_end(exchange)

    @rule(data=st.data())
    def send_trailers(self, data: st.DataObject) -> None:
        answering = self._answerable("answering")
        if answering:
            stream_id, exchange = data.draw(st.sampled_from(answering))
            self.server.h2.send_headers(stream_id, [(b"x-status", b"0")], end_stream=True)
            exchange.said.append(("trailers", ((b"x-status", b"0"),)))
            self._say_end(exchange)

    def _say_end(self, exchange: Exchange) -> None:
        exchange.said.append(("end",))
        exchange.server_state = "ended"

    @rule(data=st.data(), code=st.sampled_from([ErrorCode.CANCEL, ErrorCode.REFUSED_STREAM, ErrorCode.INTERNAL_ERROR]))
    def server_resets(self, data: st.DataObject, code: int) -> None:
        live = self._answerable("new", "answering")
        if live:
            stream_id, exchange = data.draw(st.sampled_from(live))
            self.server.h2.reset_stream(stream_id, code)
            exchange.said.append(("reset", code))
            exchange.server_state = "reset"

    @rule(data=st.data())
    def server_wants_no_more(self, data: st.DataObject) -> None:
        early = [item for item in self._answerable("ended") if not item[1].received_end]
        if early:
            stream_id, exchange = data.draw(st.sampled_from(early))
            self.server.h2.reset_stream(stream_id, ErrorCode.NO_ERROR)
            exchange.server_state = "reset"

    # h2 takes any acknowledgement for that of all its SETTINGS, so there is one under way at a time.
    @precondition(lambda self: self.settings_acknowledged)
    @rule(
        window=st.none() | st.integers(0, 80_000),
        cap=st.none() | st.integers(1, 10),
        table=st.none() | st.integers(0, 8_000),
    )
    def server_changes_settings(self, window: int | None, cap: int | None, table: int | None) -> None:
        changes: dict[SettingCodes | int, int] = {}
        if window is not None:
            changes[SettingCodes.INITIAL_WINDOW_SIZE] = window
        if cap is not None:
            changes[SettingCodes.MAX_CONCURRENT_STREAMS] = cap
        if table is not None:
            changes[SettingCodes.HEADER_TABLE_SIZE] = table
        self.server.h2.update_settings(changes)
        self.settings_acknowledged = False

    @precondition(lambda self: self.last_id is None)
    @rule()
    def server_says_goodbye(self) -> None:
        # By hand: h2 would close the connection and serve nobody any more.
        self.last_id = max((stream_id for stream_id, _ in self._answerable("new", "answering")), default=0)
        self.down += self.server.h2.data_to_send()
        self.down += raw(GOAWAY, 0, 0, self.last_id.to_bytes(4) + bytes(4))

    # What must hold

    def _live(self) -> int:
        return len(inside(self.codec)._streams)

    @invariant()
    def what_is_heard_was_said(self) -> None:
        for exchange in getattr(self, "exchanges", {}).values():
            assert exchange.heard == exchange.said[: len(exchange.heard)]

    def teardown(self) -> None:
        if not hasattr(self, "codec"):
            return
        self._finish()
        for stream_id, exchange in self.exchanges.items():
            assert exchange.requested in (None, exchange.number)
            assert exchange.to_upload.startswith(exchange.received)
            if not exchange.cancelled:
                assert exchange.heard == exchange.said
                if exchange.server_state != "reset":
                    assert exchange.received == exchange.to_upload
                    assert exchange.received_end
                    assert stream_id not in inside(self.codec)._streams or exchange.server_state != "ended"
        assert not self.pings
        self._check_windows()

    def _finish(self) -> None:
        """Have everything that is under way arrive, and every upload and reader go on to its end."""
        for turn in range(100):
            if turn == 2:
                self.server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
            for stream_id, exchange in self.exchanges.items():
                if not exchange.upload_ended and not exchange.cancelled:
                    self._upload(stream_id, exchange, 10_000)
                if exchange.unconsumed:
                    self.codec.consumed(stream_id, exchange.unconsumed)
                    exchange.unconsumed = 0
            self._move_up(10**9)
            self._move_down(10**9)
            quiet = not (self.codec.wire or self.up or self.down or self.server.h2._data_to_send)
            if quiet and turn > 4:
                return
        raise AssertionError("never at rest")

    def _check_windows(self) -> None:
        server = self.server.h2
        send, receive = self._client_windows(0)
        assert (send, receive) == (server.inbound_flow_control_window, server.outbound_flow_control_window)
        assert receive > CONNECTION_WINDOW // 2
        for stream_id, exchange in self.exchanges.items():
            if stream_id not in inside(self.codec)._streams or exchange.server_state == "unseen":
                continue
            theirs = server.streams[stream_id]
            send, receive = self._client_windows(stream_id)
            assert send == theirs.inbound_flow_control_window
            assert receive == theirs.outbound_flow_control_window
            assert receive >= STREAM_WINDOW // 2

    def _client_windows(self, stream_id: int) -> tuple[int, int]:
        """The codec's own idea of what it may send and receive."""
        codec = self.codec
        if self.codec_name == "h2":
            connection = inside(codec)._h2
            ours = connection.streams[stream_id] if stream_id else connection
            return ours.outbound_flow_control_window, ours.inbound_flow_control_window
        if stream_id:
            stream = inside(codec)._streams[stream_id]
            return stream.send_window, stream.receive_window
        return inside(codec)._send_window, inside(codec)._receive_window


class InterleavingsOfH2(Interleavings):
    codec_name = "h2"


TestNative = Interleavings.TestCase
TestNative.settings = settings(max_examples=250, stateful_step_count=80)
TestH2 = InterleavingsOfH2.TestCase
TestH2.settings = settings(max_examples=100, stateful_step_count=80)
