"""An HTTP/2 server that does to its clients, frame by frame, what servers do: built on h2, a thread a connection.

What it does is asked for by the request's path; see `Connection.answer`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Literal

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from tests.servers.threaded import ThreadedServer

HEADERS = [(":status", "200"), ("content-type", "text/plain")]


@dataclass
class Seen:
    """One request as it arrived."""

    connection: int
    stream: int
    method: str
    path: str
    authority: str
    headers: dict[str, str]
    received: int = 0
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


class Http2Server(ThreadedServer):
    """Serves until the block around it ends.

    Attributes:
        seen: All requests, in order.
        resets: (connection, stream, error code) of each RST_STREAM that came.
        violations: What clients did that h2 objects to; a test ends with none.
    """

    def __init__(
        self,
        *,
        cap: int = 100,
        window: int = 65_535,
        frame_size: int = 16_384,
        tls: ssl.SSLContext | None = None,
        drip: bool = False,
        read_size: int = 65_536,
        settings_after: float = 0.0,
        preamble: bytes | None = None,
        goaway_every: int = 0,
        path: str | None = None,
        taps: bool = False,
    ) -> None:
        super().__init__(path)
        self.cap = cap
        self.window = window
        self.frame_size = frame_size
        self.tls = tls
        self.drip = drip
        self.read_size = read_size
        self.settings_after = settings_after
        self.preamble = preamble
        self.goaway_every = goaway_every
        self.taps = taps
        self.seen: list[Seen] = []
        self.resets: list[tuple[int, int, int]] = []
        self.pings = 0
        self.violations: list[str] = []
        self.connections: list[Connection] = []
        self.refused: set[str] = set()
        self.stopped = threading.Event()

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        super().__exit__(*exception)

    def _hang_up(self) -> None:
        for connection in self.connections:  # whose TLS has taken over the socket that was accepted
            connection.close()

    @property
    def open_connections(self) -> int:
        return sum(not connection.closed for connection in self.connections)

    def traffic(self, direction: Literal["heard", "said"]) -> tuple[int, int]:
        """Frames and bytes that went one way on all connections, if there are taps."""
        taps = [connection.heard if direction == "heard" else connection.said for connection in self.connections]
        return sum(tap.frames for tap in taps if tap), sum(tap.bytes for tap in taps if tap)

    def _welcome(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, len(self.connections), sock)
        self.connections.append(connection)
        self._start(connection.run)


class Tap:
    """Counts what goes by."""

    def __init__(self, *, from_client: bool) -> None:
        self._buffer = FrameBuffer(server=from_client)
        self._buffer.max_frame_size = 2**24 - 1
        self.frames = self.bytes = 0

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self._buffer.add_data(data)
        self.frames += sum(1 for _ in self._buffer)


class Connection:
    """One client."""

    def __init__(self, server: Http2Server, number: int, sock: socket.socket) -> None:
        self.server = server
        self.number = number
        self.sock = sock
        self.closed = False
        self.finished = threading.Event()
        self.silent = False
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests: dict[int, Seen] = {}
        #: What is still to be sent, as the windows permit: bytes left, end afterwards.
        self.pending: dict[int, int] = {}
        self.gone: set[int] = set()
        self.first_authority = ""
        #: GOAWAY has promised that streams above this are not served.
        self.last_stream: int | None = None
        self.close_when_done = False
        self.heard = Tap(from_client=True) if server.taps else None
        self.said = Tap(from_client=False) if server.taps else None

    def run(self) -> None:
        try:
            if self.server.tls is not None:
                self.sock = self.server.tls.wrap_socket(self.sock, server_side=True)
            self._serve()
        except (OSError, ssl.SSLError):
            pass
        except h2.exceptions.ProtocolError as error:
            if not self.server.stopped.is_set() and self.last_stream is None:
                self.server.violations.append(f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                self._flush()
        finally:
            self.closed = True
            self.sock.close()
            self.finished.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        if self.server.preamble is not None:
            self.sock.recv(4096)
            self.sock.sendall(self.server.preamble)
            return
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.server.cap,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: self.server.window,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: self.server.frame_size,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
            },
        )
        self.h2.max_inbound_frame_size = self.server.frame_size
        self.server.stopped.wait(self.server.settings_after)
        self.h2.initiate_connection()
        self._flush()
        while data := self.sock.recv(self.server.read_size):
            if self.heard is not None:
                self.heard.add(data)
            if self.silent:
                continue
            events = self.h2.receive_data(data)
            # h2 has seen all of them already: nothing may be sent on these.
            self.gone.update(event.stream_id for event in events if isinstance(event, h2.events.StreamReset))
            for gone in self.gone & self.pending.keys():
                del self.pending[gone]
            for gone in self.gone & self.requests.keys():
                self.requests[gone].complete = True
            for event in events:
                self._on_event(event)
            self._flush()
            if self.close_when_done and not self.pending and all(each.complete for each in self.requests.values()):
                return

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._on_request(event)
            case h2.events.DataReceived():
                if event.stream_id in self.gone:
                    self._credit(event.stream_id, event.flow_controlled_length)
                    return
                request = self.requests[event.stream_id]
                request.received += len(event.data)
                if len(request.body) < 65_536:
                    request.body += event.data
                if not request.path.startswith("/zero-window"):
                    self._credit(event.stream_id, event.flow_controlled_length)
            case h2.events.StreamEnded():
                if event.stream_id in self.gone:
                    return
                request = self.requests[event.stream_id]
                request.complete = True
                self.answer(request)
            case h2.events.StreamReset():
                self.server.resets.append((self.number, event.stream_id, int(event.error_code)))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._send_pending()
            case h2.events.PingReceived():
                self.server.pings += 1

    def _credit(self, stream_id: int, length: int) -> None:
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            if length:
                self.h2.acknowledge_received_data(length, stream_id)

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        headers = {str(name): str(value) for name, value in event.headers}
        request = Seen(
            self.number, event.stream_id, headers[":method"], headers[":path"], headers[":authority"], headers
        )
        self.first_authority = self.first_authority or request.authority
        if request.path.startswith("/goaway-before") and request.path not in self.server.refused:
            # before its body, and so before anything of a later request
            self.server.refused.add(request.path)
            self._goaway(event.stream_id - 2)
        if self.last_stream is not None and event.stream_id > self.last_stream:
            self.gone.add(event.stream_id)
            return
        self.requests[event.stream_id] = request
        if len(self.requests) == self.server.goaway_every:
            self._goaway(event.stream_id)
            self.close_when_done = True
        self.server.seen.append(request)
        if request.path.startswith("/early") and request.stream not in self.gone:
            self._early(request)

    def _early(self, request: Seen) -> None:
        if request.path == "/early-error":
            self.h2.send_headers(request.stream, [(":status", "413")])
            self.h2.send_data(request.stream, b"too large", end_stream=True)
        else:
            self._whole(request, b"early")
        self._raw(RstStreamFrame(request.stream, error_code=0).serialize())

    def answer(self, request: Seen) -> None:
        """The request is complete."""
        if request.stream in self.gone:
            return
        name, _, argument = request.path.lstrip("/").partition("?")[0].partition("/")
        handler = getattr(self, f"_do_{name.replace('-', '_')}", None)
        if handler is None:
            if not name.startswith("early"):
                self._whole(request, b"hello")
        else:
            handler(request, argument)

    def _do_echo(self, request: Seen, argument: str) -> None:
        self._whole(request, bytes(request.body))

    def _do_count(self, request: Seen, argument: str) -> None:
        self._whole(request, str(request.received).encode())

    def _do_authority(self, request: Seen, argument: str) -> None:
        self._whole(request, request.authority.encode())

    def _do_bytes(self, request: Seen, argument: str) -> None:
        self.h2.send_headers(request.stream, HEADERS, end_stream=argument == "0")
        if argument != "0":
            self.pending[request.stream] = int(argument)
            self._send_pending()

    def _do_hold(self, request: Seen, argument: str) -> None:
        self.h2.send_headers(request.stream, HEADERS)
        self.h2.send_data(request.stream, b"held")

    def _do_never(self, request: Seen, argument: str) -> None:
        pass

    def _do_silent(self, request: Seen, argument: str) -> None:
        self.silent = True

    def _do_close(self, request: Seen, argument: str) -> None:
        self._flush()
        self.close()

    def _do_close_once(self, request: Seen, argument: str) -> None:
        if request.path not in self.server.refused:
            self.server.refused.add(request.path)
            self.close()
        else:
            self._whole(request, b"hello")

    def _do_half(self, request: Seen, argument: str) -> None:
        self.h2.send_headers(request.stream, HEADERS)
        self.h2.send_data(request.stream, b"x" * 1000)
        data = self.h2.data_to_send()
        self.sock.sendall(data[: len(data) // 2])
        self.close()

    def _do_reset(self, request: Seen, argument: str) -> None:
        self.h2.reset_stream(request.stream, int(argument))

    def _do_reset_midway(self, request: Seen, argument: str) -> None:
        self.h2.send_headers(request.stream, HEADERS)
        self.h2.send_data(request.stream, b"part")
        self.h2.reset_stream(request.stream, int(argument))

    def _do_refuse_once(self, request: Seen, argument: str) -> None:
        if request.path not in self.server.refused:
            self.server.refused.add(request.path)
            self.h2.reset_stream(request.stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            self._whole(request, b"hello")

    def _do_misdirected(self, request: Seen, argument: str) -> None:
        if request.authority == self.first_authority:
            self._whole(request, b"hello")
        else:
            self.h2.send_headers(request.stream, [(":status", "421")], end_stream=True)

    def _do_bound(self, request: Seen, argument: str) -> None:
        """As a gateway whose connections know only the host that they were opened for, and which does not say 421."""
        if request.authority == self.first_authority:
            self._whole(request, b"hello")
        else:
            self._do_missing(request, "text/html")

    def _do_missing(self, request: Seen, argument: str) -> None:
        self.h2.send_headers(request.stream, [(":status", "404"), ("content-type", argument)])
        self.h2.send_data(request.stream, b"what?", end_stream=True)

    def _do_cap(self, request: Seen, argument: str) -> None:
        self.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: int(argument)})
        self._whole(request, b"hello")

    def _do_zero_window(self, request: Seen, argument: str) -> None:
        self._whole(request, b"hello")

    def _do_goaway(self, request: Seen, argument: str) -> None:
        """Phase one at once, the answer, then phase two: nothing after this request is served."""
        self._goaway(2**31 - 1)
        self._whole(request, b"hello")
        self._goaway(request.stream)

    def _do_goaway_before(self, request: Seen, argument: str) -> None:
        """The second time: at first this request and all later ones were not acted on."""
        self._whole(request, b"hello")

    def _goaway(self, last: int) -> None:
        self.last_stream = last
        self._raw(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())

    def _raw(self, data: bytes) -> None:
        self._flush()
        self.sock.sendall(data)

    def _whole(self, request: Seen, body: bytes) -> None:
        self.h2.send_headers(request.stream, [*HEADERS, ("content-length", str(len(body)))])
        window = self.h2.local_flow_control_window(request.stream)
        if len(body) <= min(window, self.h2.max_outbound_frame_size):
            self.h2.send_data(request.stream, body, end_stream=True)
        else:
            self.pending[request.stream] = len(body)
            self._send_pending()

    def _send_pending(self) -> None:
        for stream_id in list(self.pending):
            while left := self.pending.get(stream_id, 0):
                size = min(left, self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
                if size <= 0:
                    break
                self.h2.send_data(stream_id, bytes(size), end_stream=size == left)
                self.pending[stream_id] = left - size
                if size == left:
                    del self.pending[stream_id]
            self._flush()

    def _flush(self) -> None:
        data = self.h2.data_to_send()
        if self.said is not None:
            self.said.add(data)
        if self.server.drip:
            for index in range(len(data)):
                self.sock.sendall(data[index : index + 1])
        elif data:
            self.sock.sendall(data)
