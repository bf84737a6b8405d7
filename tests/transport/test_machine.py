"""The transport against an h2-built server, through interleavings that hypothesis thinks up.

Real sockets with small buffers, real event loops and threads; the server does what the rules say and nothing else: it
reads and writes some bytes at a time, answers, resets, goes away, changes its settings, withholds credit, cuts
connections. At the end it serves everybody, and then every request has ended once and as it had to, none was acted on
twice, and both sides agree on windows.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter, defaultdict

import h2.errors
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from grotte._core.http2.connection import AsyncConnection
from grotte._core.transport import Origin
from grotte._proto.transport_errors import ConnectionLost, DeadlineExceeded, StreamResetError
from grotte._sync.http2.connection import Connection
from tests.servers.scripted_peer import Peer
from tests.transport.machine_clients import Call, Client, LoopClient, ThreadClient

PATIENCE = 60.0
#: Drawn whatever there is to choose from, for that depends on the client's timing.
WHICH = st.integers(0, 11)
RESETS = [h2.errors.ErrorCodes.CANCEL, h2.errors.ErrorCodes.INTERNAL_ERROR, h2.errors.ErrorCodes.REFUSED_STREAM]


def local_address(connection: AsyncConnection | Connection) -> object:
    """By which the server knows it; None when it is closed."""
    try:
        return connection._channel.socket.getsockname()
    except OSError:
        return None


class Machine(RuleBasedStateMachine):
    """One transport, its calls, and the server's ends of its connections."""

    codec = "native"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.peers: list[Peer] = []
        self.acted: Counter[int] = Counter()
        #: The bodies that calls were answered with, whole or not.
        self.bodies: defaultdict[int, set[bytes]] = defaultdict(set)
        self.spoilt: set[int] = set()
        self.stack = contextlib.ExitStack()
        self.listener = self.stack.enter_context(socket.socket())
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.listener.setsockopt(socket.SOL_SOCKET, option, 8192)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.client = self.connect(Origin("http", "127.0.0.1", self.listener.getsockname()[1]))

    def connect(self, origin: Origin) -> Client:
        return LoopClient(origin, self.codec, "asyncio")

    def _settle(self) -> None:
        """Let the client do what it can, and take the connections that it opens."""
        self.client.settle()
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, address = self.listener.accept()
                self.stack.callback(sock.close)
                self.peers.append(Peer(sock, address))
                self.peers[-1].write(1 << 20)

    def _some_peer(self, which: int) -> Peer | None:
        alive = [peer for peer in self.peers if not peer.ended]
        return alive[which % len(alive)] if alive else None

    @rule(
        size=st.sampled_from([0, 0, 10, 3_000, 150_000]),
        streamed=st.booleans(),
        many=st.integers(1, 4),
        hurried=st.sampled_from([False, False, False, True]),
    )
    def request(self, size: int, streamed: bool, many: int, hurried: bool) -> None:
        for _ in range(many):
            call = Call(len(self.calls), size, streamed, hurried)
            self.calls.append(call)
            self.client.start(call)
        self._settle()

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        going = [call for call in self.calls if not call.ends]
        if going:
            self.client.cancel(going[which % len(going)])
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
        body = b"%d:" % number + bytes(size)
        self.bodies[number].add(body)
        peer.begin(stream, body)

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
        peer.reset(stream, code)

    @rule(which=WHICH, size=st.sampled_from([0, 500, 65_535, 200_000]), cap=st.sampled_from([0, 1, 2, 5, 8]))
    def change_settings(self, which: int, size: int, cap: int) -> None:
        if peer := self._some_peer(which):
            peer.change_settings(size, cap)

    @rule(which=WHICH)
    def credit(self, which: int) -> None:
        if peer := self._some_peer(which):
            peer.credit()

    @rule(which=WHICH, warned=st.booleans(), generous=st.booleans())
    def go_away(self, which: int, warned: bool, generous: bool) -> None:
        """The first of two phases, or the last word: at once, or after the first."""
        if (peer := self._some_peer(which)) and not peer.said_goodbye:
            peer.go_away(warned=warned, generous=generous)

    @rule(which=WHICH, abruptly=st.booleans(), size=st.sampled_from([0, 1, 10, 20_000]))
    def cut(self, which: int, abruptly: bool, size: int) -> None:
        """In the middle of a frame, of a body, or of nothing; but not before HTTP/2 is known to be spoken."""
        peer = self._some_peer(which)
        if not peer or not peer.known:
            return
        for call in self.calls:
            call.cut = call.cut or not call.ends
        peer.fill()
        peer.write(size)
        peer.cut(abruptly=abruptly)
        until = time.monotonic() + PATIENCE
        while any(each.usable and local_address(each) == peer.client for each in self.client.connections()):
            assert time.monotonic() < until, "the client does not see the end of its connection"
            self._settle()
            self.client.refresh()

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self.client.close()
            self.stack.close()
        assert all(call.ends == 1 for call in self.calls)

    def _finish(self) -> None:
        """Serve everybody, in full and at once."""
        until = time.monotonic() + PATIENCE
        while self._serve() or not all(call.ends for call in self.calls) or self._unbalanced():
            assert time.monotonic() < until, ([call for call in self.calls if not call.ends], self._unbalanced())
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
        self.client.refresh()
        return moved

    def _judge(self, call: Call) -> None:
        acted = self.acted[call.number]
        assert acted <= 1 or not call.size, f"call {call.number} was acted on {acted} times"
        if call.answer is not None:
            assert call.answer in self.bodies[call.number]
        elif call.hurried and call.error is not None:
            # there was no time for another attempt after whatever failed
            late = isinstance(call.error, DeadlineExceeded)
            assert late or not call.error.processed or call.cut or call.number in self.spoilt
        elif isinstance(call.error, StreamResetError):
            assert call.number in self.spoilt
        elif isinstance(call.error, ConnectionLost):
            assert call.cut
            assert call.error.processed
        else:
            assert call.error is None
            assert call.cancelled

    def _unbalanced(self) -> list[object]:
        """What is not at rest yet, as answers to the PINGs that follow cancelled streams are under way."""
        counters = self.client.counters()
        found: list[object] = [counters] if counters.streams_open or counters.waiting else []
        ends = {peer.client: peer for peer in self.peers if not peer.ended}
        for connection in self.client.connections():
            if connection.active or connection._parked or connection._heir or connection._reader:
                found.append(connection)
            peer = ends.get(local_address(connection))
            if self.codec == "native" and peer is not None:
                theirs = peer.h2.outbound_flow_control_window, peer.h2.inbound_flow_control_window
                ours = connection._codec._receive_window, connection._codec._send_window  # type: ignore[attr-defined]
                if theirs != ours:
                    found.append((theirs, ours))
        return found


class TrioMachine(Machine):
    def connect(self, origin: Origin) -> Client:
        return LoopClient(origin, self.codec, "trio")


class ThreadsMachine(Machine):
    def connect(self, origin: Origin) -> Client:
        return ThreadClient(origin, self.codec)


class OracleMachine(Machine):
    codec = "h2"


def limits(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


TestOnAsyncio = Machine.TestCase
TestOnTrio = TrioMachine.TestCase
TestOnTheOracle = OracleMachine.TestCase
TestInThreads = ThreadsMachine.TestCase
TestOnAsyncio.settings = TestOnTrio.settings = TestOnTheOracle.settings = limits(100)
TestInThreads.settings = limits(60)
