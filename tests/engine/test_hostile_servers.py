"""Servers inside sandboxes that mean harm to whoever reaches them through the engine, or to the engine itself."""

from __future__ import annotations

import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from grotte.engine.data.upstream import MAX_CONNECTIONS
from tests.engine.servers import start, wait_for
from tests.engine.wire import TIMEOUT, Box, Wire
from tests.support.engine import Engine

PORT = "8100"
SERVER = r"""
import base64, hashlib, socketserver, sys

FLOODS = {
    "/continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "/parts": (b"\x01\x00", b"\x00\x00"),
}
SECOND = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
ANSWERS = {
    "/both": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"
             b"%x\r\nfirst%s\r\n0\r\n\r\n" % (5 + len(SECOND), SECOND),
    "/controls": b"x-one: a\x01b\r\ncontent-length: 5\r\n\r\nfirst",
    "/more": b"content-length: 5\r\n\r\nfirst" + SECOND,
    "/folded": b"x-one: 1\r\n content-length: 99\r\ncontent-length: 5\r\n\r\nfirst" + SECOND,
}

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.partition(b":"); headers[name.lower()] = value.strip()
        if path in ANSWERS:
            return self.wfile.write(b"HTTP/1.1 200 OK\r\n" + ANSWERS[path])
        begin, again = FLOODS[path]
        if key := headers.get(b"sec-websocket-key"):
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            self.wfile.write(b"HTTP/1.1 101 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                             b"sec-websocket-accept: " + accept + b"\r\n\r\n")
        self.wfile.write(begin)
        try:
            while True: self.wfile.write(again * 10_000)
        except OSError: pass

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SILENT = f"""
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
kept = [server.accept() for _ in range({MAX_CONNECTIONS})]
with open("/tmp/part", "w") as file: file.write(str(len(kept)))
os.rename("/tmp/part", "/tmp/full")
server.accept()
"""
OPENING = (
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[Box]:
    with Wire(engine.url, engine.api_key) as wire, wire.box() as box:
        start(box, SERVER, PORT)
        yield box


@contextmanager
def asked(box: Box, *requests: str) -> Iterator[socket.socket]:
    """A connection on which a server's pages were asked for, all at once."""
    address = urlsplit(str(box.wire.base_url))
    host = f"host: {PORT}-{box.id}.localhost\r\n"
    with socket.create_connection((address.hostname, address.port), TIMEOUT) as sock:
        sock.sendall("".join(f"GET {request}{host}\r\n" for request in requests).encode())
        yield sock


@pytest.mark.parametrize(("path", "more"), [("/continue", ""), ("/chunks", ""), ("/parts", OPENING)])
def test_an_answer_without_end_holds_up_nobody_else(served: Box, path: str, more: str) -> None:
    # Door: a server that sends sooner than the engine reads, in pieces so small that each costs more than it is.
    requests = [f"{path} HTTP/1.1\r\n{more}"]
    with asked(served, *requests) as first, asked(served, *requests):
        if path != "/continue":  # which is no answer
            assert first.recv(12).startswith(b"HTTP/1.1 ")
        for _ in range(5):
            assert served.wire.get(f"/sandboxes/{served.id}").status_code == 200
            assert served.sh("echo fine").stdout == b"fine\n"


def test_informational_answers_end(served: Box) -> None:
    # Door: answers that are no answers, for ever.
    with asked(served, "/continue HTTP/1.1\r\nconnection: close\r\n") as sock:
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("more", ["", OPENING])
def test_headers_that_cannot_be_sent_on(served: Box, engine: Engine, more: str) -> None:
    # Door: a page of the engine's log for each request, by what the engine would take for its own mistake.
    with asked(served, f"/controls HTTP/1.1\r\n{more or 'connection: close' + chr(13) + chr(10)}") as sock:
        assert sock.recv(12) == b"HTTP/1.1 502"
    assert "path=/controls" not in engine.data_dir.with_name(f"{engine.data_dir.name}.log").read_text()


@pytest.mark.parametrize("path", ["/both", "/more", "/folded"])
def test_no_second_answer_is_smuggled_in(served: Box, path: str) -> None:
    # Door: an answer that ends for the engine elsewhere than for the client, whose next answer is then the server's.
    address = urlsplit(str(served.wire.base_url))
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT)
    for _ in range(3):  # one after the other on one connection
        client.request("GET", path, headers={"host": f"{PORT}-{served.id}.localhost"})
        assert client.getresponse().read().startswith(b"first")
    client.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the connections of the test take, if the system lets the tests have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * MAX_CONNECTIONS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"no process may have {wanted} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_connections_that_nobody_reads_are_bounded(engine: Engine) -> None:
    # Door: the engine's descriptors, by a server that reads nothing, for which even clients that left seem to wait.
    with Wire(engine.url, engine.api_key) as wire, wire.box() as box:
        start(box, SILENT, PORT)
        address = urlsplit(engine.url)
        opening = f"GET / HTTP/1.1\r\nhost: {PORT}-{box.id}.localhost\r\n\r\n".encode()
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                sock = stack.enter_context(socket.create_connection((address.hostname, address.port), TIMEOUT))
                sock.sendall(opening)
            assert int(wait_for(box, "/tmp/full")) == MAX_CONNECTIONS
            refused = wire.get("/", headers={"host": f"{PORT}-{box.id}.localhost"})
            assert (refused.status_code, "connections already" in refused.text) == (503, True)
            with wire.box() as other:
                assert other.sh("echo fine").stdout == b"fine\n"
