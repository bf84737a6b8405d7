"""TLS to a server inside a sandbox that speaks nothing else: the certificate is its own affair and is not looked at."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio

CHUNK = 256 * 1024
#: How long a server may take to agree on keys, in seconds.
HANDSHAKE_SECONDS = 10.0

Result = TypeVar("Result")


class Stream(Protocol):
    """Bytes both ways."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...


class TlsStream:
    """What is sent and received over a stream, encrypted; sending and receiving may go on at the same time."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context().wrap_bio(self._incoming, self._outgoing)
        self._flushing = anyio.Lock()

    async def begin(self) -> None:
        """Agree on keys.

        Raises:
            OSError: the server does not want to, or takes too long.
        """
        with anyio.fail_after(HANDSHAKE_SECONDS):
            await self._see_through(self._tls.do_handshake)
        await self._flush()

    async def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            OSError: the server closed the connection.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        await self._flush()

    async def receive(self) -> bytes:
        """What comes next; nothing at the end, which many servers do not announce.

        Raises:
            OSError: the connection broke.
        """
        try:
            return await self._see_through(lambda: self._tls.read(CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _see_through(self, step: Callable[[], Result]) -> Result:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                # Who is sending sends this, too; to wait for that would be to wait for a server that waits for us.
                if self._outgoing.pending and not self._flushing.locked():
                    await self._flush()
                if data := await self._stream.receive():
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._flushing:  # what was encrypted first must be sent first
            while data := self._outgoing.read():
                await self._stream.send(data)


@functools.cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
