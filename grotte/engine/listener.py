"""The HTTP server: granian, embedded in our event loop, on a socket that we bound ourselves."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from granian._granian import SocketHolder  # the public API binds by address only and hides the port
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from grotte.engine.app import App
from grotte.errors import EngineUnavailableException

BACKLOG = 4096
#: Requests at work at the same time; held command streams count.
MAX_REQUESTS = 65536
#: How long an idle connection is kept, in milliseconds: clients reuse connections after long pauses.
KEEP_ALIVE_MS = 640_000

_HTTP1 = HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS, max_buffer_size=1024 * 1024)
# An upload's frames come to Python one by one, each by two changes of threads: they may be large.
_HTTP2 = HTTP2Settings(
    initial_connection_window_size=64 * 1024 * 1024,
    initial_stream_window_size=8 * 1024 * 1024,
    max_concurrent_streams=1000,
    max_frame_size=1024 * 1024,
    max_headers_size=256 * 1024,
    max_send_buffer_size=1024 * 1024,
)


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Args:
        port: 0 takes a free one.

    Raises:
        EngineUnavailableException: the port is taken, or the address is not ours.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise EngineUnavailableException(f"cannot listen on {host}: {error.strerror}") from None
    try:
        # Not SO_REUSEPORT: two engines on one port would share its requests without noticing.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by accepted connections: without it a second small write waits 40 ms for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise EngineUnavailableException(f"cannot listen on {host}:{port}: {reason}") from None
    return sock


class Listener(Server):
    """HTTP/1.1 and HTTP/2 with prior knowledge on one port.

    Args:
        sock: A listening socket; it belongs to the listener from now on.
    """

    def __init__(self, app: App, sock: socket.socket) -> None:
        self._socket = sock
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.auto,
            websockets=True,
            backlog=BACKLOG,
            backpressure=MAX_REQUESTS,
            http1_settings=_HTTP1,
            http2_settings=_HTTP2,
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        # The stub lacks the constructor that granian itself unpickles sockets with.
        holder: Any = SocketHolder
        self._ssp = None
        self._shd = holder(os.dup(self._socket.fileno()), False, BACKLOG)
        self._socket.close()

    def halt(self) -> None:
        """Stop accepting, and end `serve`."""
        self.signal_handler_interrupt()  # type: ignore[no-untyped-call]  # granian is typed in parts
