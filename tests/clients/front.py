"""TLS before the engine, under names that no name server knows: a certificate authority, a front, and a proxy to it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.proxy_server import ProxyServer

DOMAIN = "sandboxes.test"
PIECE = 65536
CONFIGURATION = f"""
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[leaf]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:*.{DOMAIN}
"""


@dataclass(frozen=True)
class Front:
    """What clients need to know.

    Attributes:
        domain: The API is at ``api.`` of it, with a port.
        proxy: Leads there, whatever the name.
        authority: The certificate to trust.
        asked: What the proxy was asked for, such as ``"CONNECT api.sandboxes.test:4711"``.
    """

    domain: str
    proxy: str
    authority: Path
    asked: list[str]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


def make_certificates(folder: Path) -> None:
    """An authority (``ca.pem``) and a certificate of its (``leaf.pem``): the strict accept no self-signed ones."""
    (folder / "openssl.cnf").write_text(CONFIGURATION)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", "openssl.cnf")
    authority = ("-x509", "-extensions", "authority", "-subj", "/CN=grotte tests", "-days", "3")
    openssl(folder, "req", *key, *authority, "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, "req", *key, "-subj", f"/CN={DOMAIN}", "-keyout", "leaf.key", "-out", "leaf.csr")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3", "-extfile", "openssl.cnf")
    openssl(folder, "x509", "-req", "-in", "leaf.csr", *signing, "-extensions", "leaf", "-out", "leaf.pem")


@contextmanager
def running_front(folder: Path, engine_url: str) -> Iterator[Front]:
    """Serve TLS for every name below the domain, and pass on what is inside as it is: HTTP/1.1 or HTTP/2."""
    make_certificates(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    upstream = urlsplit(engine_url)
    assert upstream.hostname is not None
    with socket.create_server(("127.0.0.1", 0)) as listener, ProxyServer() as proxy:
        target = (upstream.hostname, upstream.port or 80)
        thread = threading.Thread(target=accept, args=(listener, context, target), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield Front(f"{DOMAIN}:{port}", f"http://127.0.0.1:{proxy.port}", folder / "ca.pem", proxy.seen)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def accept(listener: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(sock, context, target), daemon=True).start()


def serve(sock: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), sock:
        with context.wrap_socket(sock, server_side=True) as outside, socket.create_connection(target) as inside:
            relay(outside, inside)


def relay(outside: ssl.SSLSocket, inside: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(outside, selectors.EVENT_READ)
        selector.register(inside, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                from_outside = key.fileobj is outside
                piece = (outside if from_outside else inside).recv(PIECE)
                # what TLS has decrypted already is not in the socket any more
                while from_outside and outside.pending():
                    piece += outside.recv(outside.pending())
                if not piece:
                    return
                (inside if from_outside else outside).sendall(piece)
