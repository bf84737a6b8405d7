"""A service as a stranger would fake it with the standard library: HTTP/1.1, one thread a connection, scripted answers.

It remembers every request, so that tests can look at what the SDK really sends.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: list[tuple[str, str]]
    raw_query: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]

    @property
    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class Answer:
    """What to say. `chunks` are flushed one by one with `pause` seconds before all but the first; `hang_up` cuts the
    connection before the promised end."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] | None = None
    pause: float = 0
    hang_up: bool = False


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **names})


Script = Callable[[Seen], Answer]


class StubService:
    """Answers by ``"METHOD /path"``: an answer, a list of answers for one call after the other, or a function."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: dict[str, Answer | list[Answer] | Script] = {}
        self.url = ""

    def calls(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if f"{seen.method} {seen.path}" == route]

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        script = self.answers.get(f"{seen.method} {seen.path}")
        if script is None:
            return as_json({"code": 404, "message": f"no script for {seen.method} {seen.path}"}, 404)
        if isinstance(script, list):
            return script.pop(0) if len(script) > 1 else script[0]
        return script if isinstance(script, Answer) else script(seen)


def handler_for(service: StubService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def serve(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qsl(parts.query, keep_blank_values=True)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.read_body(headers)
            seen = Seen(self.command, parts.path, query, parts.query, headers, body, self.client_address)
            self.send(service.answer(seen))

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = serve  # noqa: N815 - the names of the library

        def read_body(self, headers: dict[str, str]) -> bytes:
            if headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(headers.get("content-length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.chunks is None:
                self.send_header("Content-Length", str(len(answer.body) + 1000 * answer.hang_up))
                self.end_headers()
                self.wfile.write(answer.body)
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number, chunk in enumerate(answer.chunks):
                    time.sleep(answer.pause if number else 0)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                if not answer.hang_up:
                    self.wfile.write(b"0\r\n\r\n")
            if answer.hang_up:
                self.close_connection = True

    return Handler


class Server(ThreadingHTTPServer):
    #: Many clients connect at once.
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news; everything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on as it came


@contextmanager
def running_stub(tls: ssl.SSLContext | None = None, service: StubService | None = None) -> Iterator[StubService]:
    service = service or StubService()
    server = Server(("127.0.0.1", 0), handler_for(service))
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        service.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
