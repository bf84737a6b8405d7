"""A channel with TLS on a socket that takes only so much: nothing that could leave stays, and nothing is lost.

And what others may ask of its session meanwhile.
"""

from __future__ import annotations

import select
import socket
import ssl
from pathlib import Path

from grotte._core.http2.channel import Channel
from grotte._proto.tls import BACKLOG, TlsPump
from tests.servers.certificates import make_certificate


class Peer:
    """The server's end: a TLS session in memory on a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self.outgoing, server_side=True)
        self.received = bytearray()

    def shake_hands(self, pump: TlsPump) -> None:
        done = False
        while not done or self.outgoing.pending:
            done = pump.handshake()
            self._incoming.write(bytes(pump.unsent))
            pump.unsent.clear()
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            pump.receive(self.outgoing.read())

    def drain(self) -> int:
        """Take all that the socket holds."""
        size = 0
        while select.select([self._sock], [], [], 0)[0]:
            data = self._sock.recv(1 << 20)
            size += len(data)
            self._incoming.write(data)
        try:
            while piece := self._session.read(1 << 20):
                self.received += piece
        except ssl.SSLWantReadError:
            pass
        return size


def test_a_full_backlog_that_leaves_at_once_is_followed_by_the_rest(tmp_path: Path) -> None:
    """Whoever is told that all is sent waits for nothing more, and whoever is told otherwise for room."""
    certificate = make_certificate(tmp_path, "localhost")
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        pump = TlsPump(certificate.client_context(), "localhost")
        peer = Peer(far, certificate.server_context("h2"))
        peer.shake_hands(pump)
        channel = Channel(near, pump)
        content = bytes(range(256)) * (16 * BACKLOG // 256)
        wire = bytearray(content)
        backlogs = 0
        while True:
            all_sent = channel.send(wire)
            assert all_sent == (not wire and not pump.unsent)
            if all_sent:
                break
            assert not select.select([], [near], [], 0)[1], "there is room, and nobody would be told"
            channel.send(wire)  # as others do who have something to say: it fills up
            backlogs += len(pump.unsent) >= BACKLOG
            assert peer.drain()
        peer.drain()
        assert backlogs, "the backlog was never full"
        assert peer.received == content


def test_whom_a_certificate_covers_is_known_whatever_became_of_the_session(tmp_path: Path) -> None:
    """Whoever looks for a connection to share asks that of those too whose reader is in the middle of a message."""
    certificate = make_certificate(tmp_path, "localhost", "*.shared.localhost")
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        pump = TlsPump(certificate.client_context(), "localhost")
        peer = Peer(far, certificate.server_context("h2"))
        assert not pump.covers("a.shared.localhost"), "nothing is known before the handshake"
        peer.shake_hands(pump)
        channel = Channel(near, pump)
        far.sendall(b"this is no TLS record")
        channel.receive()
        assert pump.failure is not None
        assert pump.covers("a.shared.localhost")
        assert not pump.covers("elsewhere.localhost")
