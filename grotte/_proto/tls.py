"""TLS without I/O: bytes from the socket in, plain bytes out, and the reverse.

An `ssl.SSLSocket` must not be shared between a thread that reads and one that writes; an `SSLObject` on two memory
buffers, under the connection's lock, has no such trouble, and a partial write is just bytes that are still there.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

#: What servers are offered by ALPN, and proxies, which are spoken to over HTTP/1.1.
FOR_SERVERS = ("h2", "http/1.1")
FOR_PROXIES = ("http/1.1",)
#: One TLS record; more per call only costs copies.
RECORD = 16 * 1024
#: Plain bytes that are encrypted at once, as several records.
BATCH = 4 * RECORD
#: Encrypted bytes that may wait for the socket before more are made.
BACKLOG = 128 * 1024


class TlsPump:
    """A client's TLS session over two memory buffers. Not thread-safe."""

    #: Held from setting what a context offers until a session is made of it.
    offering: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, context: ssl.SSLContext, server_hostname: str, protocols: Sequence[str] = FOR_SERVERS) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        with self.offering:
            context.set_alpn_protocols(list(protocols))  # each time: others, given the same context, set their own
            self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._verifies = context.verify_mode != ssl.CERT_NONE
        self._host = server_hostname
        #: Of the peer's certificate, once the handshake is complete.
        self._names: set[str] | None = None
        self._plain = memoryview(bytearray(2 * RECORD))
        self.unsent = bytearray()
        #: The peer has said that it will send no more; what came was not from it.
        self.ended = False
        self.failure: ssl.SSLError | None = None

    def handshake(self) -> bool:
        """Go on with the handshake; True once it is complete.

        Raises:
            ssl.SSLError: it failed; an alert may be in `unsent`.
        """
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._collect()
        if self._names is None:
            self._names = self._read_names()
        return True

    def _read_names(self) -> set[str]:
        """What the certificate is valid for: asked now, as whoever asks `covers` later does not hold the session.

        OpenSSL has no answer, but an error, while another thread takes in a session ticket or a key update, and
        after a failure.
        """
        names = (self._session.getpeercert() or {}).get("subjectAltName", ())
        assert not isinstance(names, str)
        return {str(name[1]) for name in names if name[0] == "DNS"}

    @property
    def protocol(self) -> str | None:
        """What ALPN agreed on."""
        return self._session.selected_alpn_protocol()

    def covers(self, host: str) -> bool:
        """Whether the peer's certificate is valid for `host` too; always, if certificates are not verified.

        Any thread may ask, whatever another one does with the session.
        """
        if host == self._host or not self._verifies:
            return True  # the handshake has looked
        return covers(self._names or set(), host)

    def receive(self, data: bytes | memoryview) -> None:
        """Take bytes from the socket."""
        self._incoming.write(data)

    def read(self) -> memoryview:
        """The plain bytes that have arrived, valid until the next call; empty when there are none now.

        What arrived before something that is not what the peer sent is returned too; `failure` says so then.
        """
        if len(self._plain) < self._incoming.pending + 2 * RECORD:  # as much as that can be, and one that had begun
            self._plain = memoryview(bytearray(self._incoming.pending + 2 * RECORD))
        room, incoming, size = self._plain, self._incoming, 0
        read = cast("Callable[[int, memoryview], int]", self._session.read)
        try:
            # To ask in vain costs an exception.
            while not self.ended and (incoming.pending or self._session.pending()):
                count = read(RECORD, room[size:])
                size += count
                if not count:
                    self.ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.ended = True
        except ssl.SSLError as error:
            self.failure = error
        self._collect()  # a key update or an alert may want to leave
        return room[:size]

    def write(self, wire: bytearray, backlog: int = BACKLOG) -> int:
        """Encrypt from the front of `wire` and remove it there, unless too much waits to leave already."""
        taken = 0
        with memoryview(wire) as view:
            while taken < len(wire) and len(self.unsent) < backlog:
                taken += self._session.write(view[taken : taken + BATCH])
                self._collect()
        del wire[:taken]
        return taken

    def _collect(self) -> None:
        if self._outgoing.pending:
            self.unsent += self._outgoing.read()


class TunnelledTls(TlsPump):
    """A session with a server within one with a proxy: what either would send, the proxy's session encrypts."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str, tunnel: TlsPump) -> None:
        super().__init__(context, server_hostname)
        self._tunnel = tunnel
        self.unsent = tunnel.unsent

    def handshake(self) -> bool:
        """See `TlsPump.handshake`."""
        done = super().handshake()
        if not done and self._tunnel.failure is not None:
            raise self._tunnel.failure
        if not done and self._tunnel.ended:
            raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the proxy closed the connection")
        return done

    def receive(self, data: bytes | memoryview) -> None:
        """See `TlsPump.receive`."""
        self._tunnel.receive(data)
        super().receive(self._tunnel.read())
        self.failure = self._tunnel.failure

    def read(self) -> memoryview:
        """See `TlsPump.read`."""
        data = super().read()
        self.ended = self.ended or self._tunnel.ended
        return data

    def _collect(self) -> None:
        if self._outgoing.pending:
            record = bytearray(self._outgoing.read())
            self._tunnel.write(record, backlog=len(self._tunnel.unsent) + 2 * BACKLOG)  # all of it


def _renew_lock() -> None:
    TlsPump.offering = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def covers(names: set[str], host: str) -> bool:
    """Whether a certificate with these names is valid for `host`; a wildcard stands for one whole label."""
    _, _, parent = host.partition(".")
    return host in names or (bool(parent) and f"*.{parent}" in names)
