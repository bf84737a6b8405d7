"""The server's end of one HTTP/2 connection, on h2, that does what it is told and nothing else."""

from __future__ import annotations

import contextlib
import socket
import struct

import h2.config
import h2.connection
import h2.errors
import h2.events
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame


class Peer:
    """What one client sees of a server."""

    def __init__(self, sock: socket.socket, client: object) -> None:
        self.sock = sock
        #: The address of the client's end.
        self.client = client
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
        #: What GOAWAY has promised, and whether it was the last word.
        self.last: int | None = None
        self.said_goodbye = False
        #: The highest stream that was acted on.
        self.acted = 0
        self.ended = False
        #: SETTINGS under way: h2 takes any acknowledgement for that of the latest, so there is one at a time.
        self.unsettled = True
        self.mended = False
        #: The client has acknowledged the first SETTINGS.
        self.known = False

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
                    path = next(str(value) for name, value in event.headers if str(name) == ":path")
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
                self.known = True
            case h2.events.ConnectionTerminated():
                self.ended = True

    def change_settings(self, window: int, cap: int) -> bool:
        if self.ended or self.unsettled:
            return False
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_CONCURRENT_STREAMS: cap})
        self.unsettled = True
        return True

    def go_away(self, *, warned: bool, generous: bool) -> None:
        """Say that no more will be served.

        Args:
            warned: The first of two phases: nothing is refused yet.
            generous: What has come is served; else only what was acted on, and what has come before that.
        """
        last = 2**31 - 1 if warned else self.h2.highest_inbound_stream_id if generous else self.acted
        self.said_goodbye = not warned
        self.last = last if self.last is None else min(last, self.last)
        self.out += self.h2.data_to_send()
        self.out += GoAwayFrame(0, last_stream_id=self.last, error_code=0).serialize()
        for stream in [stream for stream in self.calls if stream > self.last]:
            self.forget(stream)

    def cut(self, *, abruptly: bool) -> None:
        """Close, in the middle of whatever frame is being written: with a RST, or as if all were said."""
        if abruptly:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.ended = True

    def reset(self, stream: int, code: h2.errors.ErrorCodes) -> None:
        if code != h2.errors.ErrorCodes.REFUSED_STREAM:
            self.acted = max(self.acted, stream)
        self.h2.reset_stream(stream, code)
        self.forget(stream)

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
        self.acted = max(self.acted, stream)
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
