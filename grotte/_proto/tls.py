"""TLS without I/O: bytes from the socket in, plain bytes out, and the reverse.

An `ssl.SSLSocket` must not be shared between a thread that reads and one that writes; an `SSLObject` on two memory
buffers, under the connection's lock, has no such trouble, and a partial write is just bytes that are still there.
"""

from __future__ import annotations

import ssl

#: One TLS record; more per call only costs copies.
RECORD = 16 * 1024
READ_SIZE = 256 * 1024
#: Encrypted bytes that may wait for the socket before more are made.
BACKLOG = 128 * 1024


class TlsPump:
    """A client's TLS session over two memory buffers. Not thread-safe."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._verifies = context.verify_mode != ssl.CERT_NONE
        self._names: set[str] | None = None
        self.unsent = bytearray()
        #: The peer has said that it will send no more.
        self.ended = False

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
        return True

    @property
    def protocol(self) -> str | None:
        """What ALPN agreed on."""
        return self._session.selected_alpn_protocol()

    def covers(self, host: str) -> bool:
        """Whether the peer's certificate is valid for `host` too; always, if certificates are not verified."""
        if self._names is None:
            names = (self._session.getpeercert() or {}).get("subjectAltName", ())
            assert not isinstance(names, str)
            self._names = {str(name[1]) for name in names if name[0] == "DNS"}
        return not self._verifies or covers(self._names, host)

    def receive(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self._incoming.write(data)

    def read(self) -> bytes:
        """Plain bytes that have arrived; empty when there are none now.

        Raises:
            ssl.SSLError: what arrived is not what the peer sent.
        """
        try:
            data = self._session.read(READ_SIZE)
        except ssl.SSLWantReadError:
            data = b""
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data, self.ended = b"", True
        else:
            self.ended = self.ended or not data
        self._collect()  # a key update or an alert may want to leave
        return data

    def write(self, wire: bytearray) -> int:
        """Encrypt from the front of `wire` and remove it there, unless too much waits to leave already."""
        taken = 0
        while taken < len(wire) and len(self.unsent) < BACKLOG:
            taken += self._session.write(wire[taken : taken + RECORD])
            self._collect()
        del wire[:taken]
        return taken

    def _collect(self) -> None:
        if self._outgoing.pending:
            self.unsent += self._outgoing.read()


def covers(names: set[str], host: str) -> bool:
    """Whether a certificate with these names is valid for `host`; a wildcard stands for one whole label."""
    _, _, parent = host.partition(".")
    return host in names or (bool(parent) and f"*.{parent}" in names)
