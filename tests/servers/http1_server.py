"""An HTTP/1.1 server, with and without TLS, that has never heard of HTTP/2."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Http1Server:
    """What a running server has seen: request lines and clients' addresses, in order."""

    port: int = 0
    seen: list[str] = field(default_factory=list)
    clients: list[object] = field(default_factory=list)


@contextmanager
def serve_http1(tls: ssl.SSLContext | None = None) -> Iterator[Http1Server]:
    """Serve until the block ends: GET answers "old", POST the body, /chunks three pieces."""
    state = Http1Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:
            state.seen.append(self.requestline)
            state.clients.append(self.client_address)
            if self.path == "/chunks":
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
            elif self.path == "/missing":
                self._answer(b"what?", 404)
            else:
                self._answer(b"old")

        def do_POST(self) -> None:
            state.seen.append(self.requestline)
            state.clients.append(self.client_address)
            if self.headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(body)

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # probes in a protocol that it does not speak

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join(10)
