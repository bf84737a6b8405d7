"""Servers that tests start inside a sandbox, on its standard library alone."""

from __future__ import annotations

import time
from pathlib import Path

from tests.engine.wire import Box
from tests.servers.certificates import make_certificate

#: A server with a certificate for its port speaks TLS.
SECURED = r"""
import os.path, ssl

def secure(server, port):
    if os.path.exists(f"/tmp/{port}.pem"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"/tmp/{port}.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
"""

WEB = r"""
import http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = self.path.partition("?")[0].strip("/")
        getattr(self, f"page_{name}", self.page_echo)()
    do_HEAD = do_DELETE = do_OPTIONS = do_GET
    def answer(self, body, *headers):
        self.send_response(200)
        for header in headers: self.send_header(*header)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
    def page_echo(self):
        lines = [f"{self.command} {self.path}", *(f"{k.lower()}: {v}" for k, v in self.headers.items())]
        self.answer("\n".join(lines).encode(), ("set-cookie", "a=1"), ("set-cookie", "b=2"),
                    ("connection", "x-hop"), ("x-hop", "1"), ("x-stays", "1"))
    def page_events(self):
        self.send_response(200); self.send_header("content-type", "text/event-stream"); self.end_headers()
        self.close_connection = True
        for number in range(3):
            self.wfile.write(b"data: %d\n\n" % number); self.wfile.flush()
            while not os.path.exists(f"/tmp/go{number}"): time.sleep(0.01)
    def page_endless(self):
        self.send_response(200); self.end_headers(); self.close_connection = True
        try:
            while True: self.wfile.write(b"x"); time.sleep(0.01)
        except OSError: open("/tmp/left", "w")
    def page_broken(self):
        self.send_response(200); self.send_header("content-length", "100"); self.end_headers()
        self.wfile.write(b"x"); self.close_connection = True
    def page_big(self):
        self.send_response(200); self.send_header("content-length", str(256 << 20)); self.end_headers()
        for _ in range(256): self.wfile.write(bytes(1 << 20))
    def page_chunks(self):
        self.send_response(200); self.send_header("transfer-encoding", "chunked"); self.end_headers()
        for part in (b"one ", b"two ", b"three"): self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
    def page_nonsense(self):
        self.wfile.write(b"this is not http\r\n\r\n"); self.close_connection = True
    def do_POST(self):
        size = 0
        if self.path == "/early":
            self.close_connection = True
            return self.answer(b"enough", ("connection", "close"))
        if self.headers.get("transfer-encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(length)); self.rfile.readline()
        else:
            left = int(self.headers.get("content-length", 0))
            while left: piece = len(self.rfile.read(min(left, 1 << 20))); left -= piece; size += piece
        self.answer(b"%d %s" % (size, self.headers.get("transfer-encoding", "length").encode()))
    do_PUT = do_PATCH = do_POST
    def log_message(self, *_): pass

class Server(http.server.ThreadingHTTPServer):
    address_family = 10 if ":" in sys.argv[1] else 2

SECURED

server = Server((sys.argv[1], int(sys.argv[2])), Handler)
secure(server, sys.argv[2])
server.serve_forever()
""".replace("SECURED", SECURED)

WEBSOCKETS = r"""
import base64, hashlib, socketserver, struct, sys

def frame(opcode, data):
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data)) \
        if len(data) < 65536 else b"\x7f" + struct.pack(">Q", len(data))
    return bytes([0x80 | opcode]) + length + data

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        first = self.rfile.readline().decode().split()
        headers = {}
        while (line := self.rfile.readline().decode().strip()):
            name, _, value = line.partition(":"); headers[name.lower()] = value.strip()
        if first[1] == "/refuse":
            return self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nx-why: asked for\r\ncontent-length: 7\r\n\r\nnot you")
        if first[1] == "/nonsense":
            return self.wfile.write(b"this is not http\r\n\r\n")
        key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        protocol = headers.get("sec-websocket-protocol", "").split(",")[-1].strip()
        extra = f"sec-websocket-protocol: {protocol}\r\n" if protocol else ""
        self.wfile.write(f"HTTP/1.1 101 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                         f"sec-websocket-accept: {accept}\r\n{extra}\r\n".encode())
        self.wfile.write(frame(1, f"{first[1]} {headers['host']} {headers.get('cookie')}".encode()))
        self.wfile.write(frame(9, b"ping"))
        while True:
            head = self.rfile.read(2)
            if len(head) < 2: return
            length = head[1] & 127
            if length == 126: length = struct.unpack(">H", self.rfile.read(2))[0]
            elif length == 127: length = struct.unpack(">Q", self.rfile.read(8))[0]
            mask, data = self.rfile.read(4), self.rfile.read(length)
            data = bytes(a ^ b for a, b in zip(data, (mask * (length // 4 + 1))[:length]))
            opcode = head[0] & 15
            if opcode == 8:
                open("/tmp/closed", "w").write(str(struct.unpack(">H", data[:2])[0] if data else 0)); return
            if opcode == 10: open("/tmp/ponged", "wb").write(data); continue
            if data == b"bye": self.wfile.write(frame(8, struct.pack(">H", 4321) + b"enough")); return
            if data == b"parts":
                self.wfile.write(b"\x01\x02ab" + b"\x00\x02cd" + b"\x80\x02ef"); continue
            self.wfile.write(frame(opcode, data))

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

SECURED

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
secure(server, sys.argv[1])
server.serve_forever()
""".replace("SECURED", SECURED)

PATIENCE = 60.0


def certify(box: Box, folder: Path, port: str) -> None:
    """Have the server that is to listen on a port speak TLS."""
    made = make_certificate(folder, "localhost")
    content = made.certificate.read_bytes() + made.key.read_bytes()
    assert box.put_file(f"/tmp/{port}.pem", content).status_code == 200


def start(box: Box, source: str, *arguments: str) -> None:
    """Start one of them and wait until it listens on the last argument's port."""
    name = f"/tmp/server{arguments[-1]}.py"
    assert box.put_file(name, source.encode()).status_code == 200
    words = " ".join(arguments)
    box.sh(f"python3 {name} {words} >/tmp/log{arguments[-1]} 2>&1 &")
    port = f"{int(arguments[-1]):04X}"
    deadline = time.monotonic() + PATIENCE
    while box.sh(f"grep -q ':{port} .* 0A ' /proc/net/tcp /proc/net/tcp6").end.get("exitCode", 0) != 0:
        assert time.monotonic() < deadline, box.sh(f"cat /tmp/log{arguments[-1]}").stdout


def wait_for(box: Box, path: str) -> bytes:
    """The content of a file that appears."""
    deadline = time.monotonic() + PATIENCE
    while (answer := box.get_file(path)).status_code != 200:
        assert time.monotonic() < deadline, f"{path} does not appear"
    return answer.content
