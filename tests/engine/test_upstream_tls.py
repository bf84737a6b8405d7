"""The engine's side of TLS to a server in a sandbox, against one that does not do what it could."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from grotte.engine.data import upstream_tls
from grotte.engine.data.upstream import Upstream
from grotte.engine.data.upstream_tls import TlsStream
from tests.servers.certificates import make_certificate

MUCH = bytes(range(256)) * 64 * 1024
PATIENCE = 60.0


@asynccontextmanager
async def joined(folder: Path, serve: Callable[[socket.socket], None]) -> AsyncIterator[TlsStream]:
    """A stream to a server that has agreed on keys already."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    context = make_certificate(folder, "localhost").server_context()

    def run() -> None:
        with context.wrap_socket(theirs, server_side=True) as wrapped:
            serve(wrapped)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with anyio.fail_after(PATIENCE), ours:
            stream = TlsStream(Upstream(ours))
            await stream.begin()
            yield stream
    finally:
        await asyncio.to_thread(thread.join)


async def read(stream: TlsStream, size: int) -> bytes:
    parts = b""
    while len(parts) < size and (part := await stream.receive()):
        parts += part
    return parts


def test_a_server_that_reads_nothing_before_it_has_said_all(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(MUCH)
        while sum(map(len, seen)) < len(MUCH):
            seen.append(sock.recv(1 << 20))

    async def run() -> None:
        async with joined(tmp_path, serve) as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, MUCH)
            await anyio.wait_all_tasks_blocked()  # it has sent what there is room for
            assert await read(stream, len(MUCH)) == MUCH

    asyncio.run(run())
    assert b"".join(seen) == MUCH


def test_an_end_that_nobody_announced(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(b"all")
        sock.shutdown(socket.SHUT_RDWR)

    async def run() -> None:
        async with joined(tmp_path, serve) as stream:
            assert await read(stream, 3) == b"all"
            assert [await stream.receive(), await stream.receive()] == [b"", b""]

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_servers_that_do_not_speak_tls(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> None:
    """One answers in HTTP, one hangs up, and one says nothing at all."""
    monkeypatch.setattr(upstream_tls, "HANDSHAKE_SECONDS", 0.5)

    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            if answer is not None:
                theirs.sendall(answer)
                theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError):
                await TlsStream(Upstream(ours)).begin()

    asyncio.run(run())
