"""A proxy that leads everywhere to this machine: CONNECT, forwarding, and SOCKS5, a thread a client."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import struct
from urllib.parse import urlsplit

from tests.servers.threaded import ThreadedServer


class ProxyServer(ThreadedServer):
    """Serves until the block around it ends. Whatever host is asked for, it connects to 127.0.0.1.

    Attributes:
        seen: What was asked for: "CONNECT host:port", "GET http://…", "SOCKS host:port".
    """

    def __init__(
        self, *, credentials: str | None = None, answer: bytes | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        self.credentials = credentials
        self.tls = tls
        self.answer = answer
        self.seen: list[str] = []

    def _welcome(self, sock: socket.socket) -> None:
        self._start(self._serve, sock)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, struct.error), contextlib.ExitStack() as stack:
            client.settimeout(20)
            stack.callback(client.close)
            if self.tls is not None:
                client = stack.enter_context(self.tls.wrap_socket(client, server_side=True))
                self._sockets.append(client)
                self._http(client)
                return
            if client.recv(1, socket.MSG_PEEK) == b"\x05":
                self._socks(client)
            else:
                self._http(client)

    def _http(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = client.recv(1)
            if not piece:
                return
            head += piece
        line, *fields = head.decode().split("\r\n")
        method, target, _ = line.split()
        self.seen.append(f"{method} {target}")
        if self.answer is not None:
            client.sendall(self.answer)
            return
        wanted = base64.b64encode((self.credentials or "").encode()).decode()
        if self.credentials is not None and f"Proxy-Authorization: Basic {wanted}" not in fields:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        elif method == "CONNECT":
            upstream = self._connect(int(target.rpartition(":")[2]))
            client.sendall(b"HTTP/1.1 200 Connection established\r\nx-proxy: yes\r\n\r\n")
            self._relay(client, upstream)
        else:
            upstream = self._connect(urlsplit(target).port or 80)
            upstream.sendall(head.replace(target.encode(), (urlsplit(target).path or "/").encode(), 1))
            self._relay(client, upstream)

    def _socks(self, client: socket.socket) -> None:
        _, count = struct.unpack("BB", client.recv(2))
        methods = client.recv(count)
        method = 0 if self.credentials is None else 2
        if method not in methods:
            client.sendall(b"\x05\xff")
            return
        client.sendall(bytes([5, method]))
        if method:
            client.recv(1)
            name, password = (client.recv(client.recv(1)[0]).decode() for _ in range(2))
            right = f"{name}:{password}" == self.credentials
            client.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        *_, kind = struct.unpack("BBBB", client.recv(4))
        host = client.recv(client.recv(1)[0]).decode() if kind == 3 else socket.inet_ntoa(client.recv(4))
        (port,) = struct.unpack(">H", client.recv(2))
        self.seen.append(f"SOCKS {host}:{port}")
        try:
            upstream = self._connect(port)
        except OSError:
            client.sendall(b"\x05\x05\x00\x01" + bytes(6))
            return
        for byte in b"\x05\x00\x00\x03\x04name" + bytes(2):  # a byte at a time, and the server may speak at once
            client.sendall(bytes([byte]))
        self._relay(client, upstream)

    def _connect(self, port: int) -> socket.socket:
        upstream = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._sockets.append(upstream)
        return upstream

    def _relay(self, client: socket.socket, upstream: socket.socket) -> None:
        if isinstance(client, ssl.SSLSocket):
            self._relay_tls(client, upstream)
            return
        self._start(self._copy, upstream, client)
        self._copy(client, upstream)

    def _relay_tls(self, client: ssl.SSLSocket, upstream: socket.socket) -> None:
        """On one thread: two must not share a TLS socket."""
        while True:
            pending = [client] if client.pending() else None
            for source in pending or select.select([client, upstream], [], [], 20)[0]:
                data = source.recv(65_536)
                if not data:
                    return
                (upstream if source is client else client).sendall(data)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
