"""The transport against an h2-built server, through interleavings that hypothesis thinks up.

Real sockets with small buffers, real event loops; the server does what the rules say and nothing else: it reads and
writes some bytes at a time, answers, resets, goes away, changes its settings, withholds credit. At the end it serves
everybody, and then every request has ended as it had to, none was acted on twice, and both sides agree on windows.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from dataclasses import dataclass

import anyio
import anyio.from_thread
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.transport_errors import StreamResetError, TransportError
from tests._async.transport.support import connections

PATIENCE = 15.0
#: Drawn whatever there is to choose from, for that depends on the event loop's timing.
WHICH = st.integers(0, 11)
RESETS = [h2.errors.ErrorCodes.CANCEL, h2.errors.ErrorCodes.INTERNAL_ERROR, h2.errors.ErrorCodes.REFUSED_STREAM]


@dataclass
class Call:
    """One request of the client, and what became of it."""

    number: int
    size: int
    streamed: bool
    scope: anyio.CancelScope | None = None
    cancelled: bool = False
    over: bool = False
    answer: bytes | None = None
    error: TransportError | None = None


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        # What clients may assume before SETTINGS arrive: h2 makes no allowance for those that have not seen them yet.
        self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        self.h2.initiate_connection()
        self.out = bytearray()
        #: Stream → number of the call; those whose request is complete; what is still to be sent.
        self.calls: dict[int, int] = {}
        self.complete: set[int] = set()
        self.sending: dict[int, bytes] = {}
        self.owed: list[tuple[int, int]] = []
        self.last: int | None = None
        self.ended = False
        #: SETTINGS under way: h2 takes any acknowledgement for that of the latest, so there is one at a time.
        self.unsettled = True
        self.mended = False

    def read(self, size: int) -> bool:
        """Take what has come, up to a size; whether there was any."""
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, ConnectionResetError):
            return False
        if not data:
            self.ended = True
            return False
        for event in self.h2.receive_data(data):
            self._on_event(event)
        return True

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                if self.last is None or event.stream_id <= self.last:
                    path = next(str(value) for name, value in event.headers if name == ":path")
                    self.calls[event.stream_id] = int(path[1:])
            case h2.events.DataReceived():
                self.owed.append((event.stream_id, event.flow_controlled_length))
            case h2.events.StreamEnded():
                if event.stream_id in self.calls:
                    self.complete.add(event.stream_id)
            case h2.events.StreamReset():
                self.forget(event.stream_id)
            case h2.events.SettingsAcknowledged():
                self.unsettled = False
            case h2.events.ConnectionTerminated():
                self.ended = True

    def change_settings(self, window: int, cap: int) -> bool:
        if self.ended or self.unsettled:
            return False
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_CONCURRENT_STREAMS: cap})
        self.unsettled = True
        return True

    def forget(self, stream: int) -> None:
        self.calls.pop(stream, None)
        self.complete.discard(stream)
        self.sending.pop(stream, None)

    def credit(self) -> None:
        for stream, length in self.owed:
            if length:
                self.h2.increment_flow_control_window(length)
                if stream in self.calls:
                    self.h2.increment_flow_control_window(length, stream)
        self.owed.clear()

    def begin(self, stream: int, body: bytes) -> None:
        self.complete.discard(stream)
        self.h2.send_headers(stream, [(":status", "200")], end_stream=not body)
        if body:
            self.sending[stream] = body

    def fill(self) -> None:
        """Send of the bodies what the windows permit."""
        for stream, body in list(self.sending.items()):
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            if size > 0:
                self.h2.send_data(stream, body[:size], end_stream=size == len(body))
                self.sending[stream] = body[size:]
                if size == len(body):
                    self.forget(stream)

    def write(self, size: int) -> None:
        self.out += self.h2.data_to_send()
        with contextlib.suppress(OSError):
            del self.out[: self.sock.send(self.out[:size])]


class Machine(RuleBasedStateMachine):
    """One transport, its calls, and the server's ends of its connections."""

    backend = "asyncio"
    codec = "native"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.peers: list[Peer] = []
        self.acted: Counter[int] = Counter()
        self.spoilt: set[int] = set()
        self.stack = contextlib.ExitStack()
        self.listener = self.stack.enter_context(socket.socket())
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.listener.setsockopt(socket.SOL_SOCKET, option, 8192)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.origin = Origin("http", "127.0.0.1", self.listener.getsockname()[1])
        self.portal = self.stack.enter_context(anyio.from_thread.start_blocking_portal(self.backend))
        self.transport: AsyncTransport = self.portal.call(self._open)
        self.futures: list[object] = []

    async def _open(self) -> AsyncTransport:
        return AsyncTransport(TransportOptions(codec=self.codec, max_connections=3, stream_window=30_000))

    async def _run(self, call: Call) -> None:
        body = bytes(call.size) if call.size else None
        request = Request("POST" if body else "GET", self.origin, f"/{call.number}", body=body)
        with anyio.CancelScope() as call.scope:
            try:
                if call.streamed:
                    async with self.transport.stream(request, deadline=None) as response:
                        call.answer = await response.aread()
                else:
                    call.answer = (await self.transport.fetch(request, deadline=None)).content
            except TransportError as error:
                call.error = error
        call.over = True

    def _settle(self) -> None:
        """Let the client do what it can, and take the connections that it opens."""

        async def turns() -> None:
            for _ in range(6):
                await anyio.sleep(0)

        self.portal.call(turns)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                self.stack.callback(sock.close)
                self.peers.append(Peer(sock))
                self.peers[-1].write(1 << 20)

    def _some_peer(self, which: int) -> Peer | None:
        alive = [peer for peer in self.peers if not peer.ended]
        return alive[which % len(alive)] if alive else None

    @rule(size=st.sampled_from([0, 0, 10, 3_000, 150_000]), streamed=st.booleans(), many=st.integers(1, 4))
    def request(self, size: int, streamed: bool, many: int) -> None:
        for _ in range(many):
            call = Call(len(self.calls), size, streamed)
            self.calls.append(call)
            self.futures.append(self.portal.start_task_soon(self._run, call))
        self._settle()

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        going = [call for call in self.calls if not call.over]
        if going:
            call = going[which % len(going)]
            call.cancelled = True
            assert call.scope is not None
            self.portal.call(call.scope.cancel)
        self._settle()

    @rule(which=WHICH, size=st.sampled_from([1, 9, 100, 5_000, 100_000]))
    def read(self, which: int, size: int) -> None:
        if peer := self._some_peer(which):
            peer.read(size)
        self._settle()

    @rule(which=WHICH, size=st.sampled_from([1, 10, 1_000, 100_000]))
    def write(self, which: int, size: int) -> None:
        if peer := self._some_peer(which):
            peer.fill()
            peer.write(size)
        self._settle()

    @rule(which=WHICH, size=st.sampled_from([0, 3, 500, 90_000]))
    def respond(self, which: int, size: int) -> None:
        peer = self._some_peer(which)
        if peer and peer.complete:
            self._answer(peer, min(peer.complete), size)

    def _answer(self, peer: Peer, stream: int, size: int) -> None:
        number = peer.calls[stream]
        self.acted[number] += 1
        peer.begin(stream, b"%d:" % number + bytes(size))

    @rule(which=WHICH, code=st.sampled_from(RESETS))
    def reset(self, which: int, code: h2.errors.ErrorCodes) -> None:
        peer = self._some_peer(which)
        if not peer or not peer.calls:
            return
        stream = sorted(peer.calls)[which % len(peer.calls)]
        begun = stream in peer.sending
        if code == h2.errors.ErrorCodes.REFUSED_STREAM and begun:
            return  # that would be a lie
        number = peer.calls[stream]
        if code != h2.errors.ErrorCodes.REFUSED_STREAM:
            self.acted[number] += not begun
            self.spoilt.add(number)
        peer.h2.reset_stream(stream, code)
        peer.forget(stream)

    @rule(which=WHICH, size=st.sampled_from([0, 500, 65_535, 200_000]), cap=st.integers(1, 8))
    def change_settings(self, which: int, size: int, cap: int) -> None:
        if peer := self._some_peer(which):
            peer.change_settings(size, cap)

    @rule(which=WHICH)
    def credit(self, which: int) -> None:
        if peer := self._some_peer(which):
            peer.credit()

    @rule(which=WHICH, warned=st.booleans())
    def go_away(self, which: int, warned: bool) -> None:
        """At once, or in two phases of which this is the first and the end of the run the second."""
        if (peer := self._some_peer(which)) and peer.last is None:
            peer.out += peer.h2.data_to_send()
            last = 2**31 - 1 if warned else peer.h2.highest_inbound_stream_id
            peer.out += GoAwayFrame(0, last_stream_id=last, error_code=0).serialize()
            peer.last = last

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self.portal.call(self.transport.aclose)
            self.stack.close()

    def _finish(self) -> None:
        """Serve everybody, in full and at once."""
        until = time.monotonic() + PATIENCE
        while self._serve() or not all(call.over for call in self.calls) or self.portal.call(self._unbalanced):
            assert time.monotonic() < until, (
                [call for call in self.calls if not call.over],
                self.portal.call(self._unbalanced),
            )
        for call in self.calls:
            self._judge(call)

    def _serve(self) -> bool:
        """One round; whether anything moved."""
        moved = False
        for peer in self.peers:
            while not peer.ended and peer.read(1 << 20):
                moved = True
            if peer.ended:
                continue
            peer.mended = peer.mended or peer.change_settings(65_535, 5)
            for stream in sorted(peer.complete):
                self._answer(peer, stream, 10)
            peer.credit()
            peer.fill()
            peer.write(1 << 20)
            moved = moved or bool(peer.sending or peer.out) or not peer.mended
        self._settle()
        self.portal.call(self._refresh)
        return moved

    async def _refresh(self) -> None:
        for connection in connections(self.transport):
            connection.refresh()

    def _judge(self, call: Call) -> None:
        acted = self.acted[call.number]
        assert acted <= 1 or not call.size, f"call {call.number} was acted on {acted} times"
        if call.answer is not None:
            assert call.answer.startswith(b"%d:" % call.number)
            assert not call.answer.partition(b":")[2].strip(b"\0")
            assert acted >= 1
        elif call.error is not None:
            assert isinstance(call.error, StreamResetError)
            assert call.number in self.spoilt
        else:
            assert call.cancelled

    async def _unbalanced(self) -> list[object]:
        """What is not at rest yet, as answers to the PINGs that follow cancelled streams are under way."""
        found: list[object] = [self.transport.counters.streams_open] if self.transport.counters.streams_open else []
        ends = {peer.sock.getpeername(): peer for peer in self.peers if not peer.ended}
        for connection in connections(self.transport):
            if connection.active or connection._parked or connection._heir or connection._reader:
                found.append(connection)
            peer = ends.get(connection._channel.socket.getsockname())
            if self.codec == "native" and peer is not None:
                theirs = peer.h2.outbound_flow_control_window, peer.h2.inbound_flow_control_window
                ours = connection._codec._receive_window, connection._codec._send_window  # type: ignore[attr-defined]
                if theirs != ours:
                    found.append((theirs, ours))
        return found


class TrioMachine(Machine):
    backend = "trio"


class OracleMachine(Machine):
    codec = "h2"


LIMITS = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOnAsyncio = Machine.TestCase
TestOnTrio = TrioMachine.TestCase
TestOnTheOracle = OracleMachine.TestCase
TestOnAsyncio.settings = TestOnTrio.settings = TestOnTheOracle.settings = LIMITS
