"""What is slow on purpose, in a process of its own: a server that holds answers, and a link with a delay.

Run by the benchmark as ``python -m benchmarks.transport.slow SOCKET``; it prints the ports of its links as a JSON line
and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n"


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer ``GET /held/SECONDS``: the head and a first byte at once, the last byte after that time."""
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        seconds = float(request.split(b" ", 2)[1].rsplit(b"/", 1)[1])
        writer.write(HEAD + b".")
        gone = asyncio.ensure_future(reader.read())
        await asyncio.wait([gone], timeout=seconds)
        gone.cancel()
        writer.write(b".")
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client left, as it may
    finally:
        writer.close()


class Delayed(asyncio.Protocol):
    """One end of a link: what arrives here leaves at the other end half a round trip later."""

    def __init__(self, one_way: float) -> None:
        self.one_way = one_way
        self.other: Delayed | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on, later."""
        asyncio.get_running_loop().call_later(self.one_way, self.deliver, data)

    def connection_lost(self, error: Exception | None) -> None:
        """Pass that on too."""
        asyncio.get_running_loop().call_later(self.one_way, self.leave)

    def deliver(self, data: bytes) -> None:
        """Let data out at the other end."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def leave(self) -> None:
        """Close the other end."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Entrance(Delayed):
    """The end that clients connect to. It listens to them one round trip late: loopback delayed no handshake."""

    def __init__(self, one_way: float, port: int) -> None:
        super().__init__(one_way)
        self.port = port
        self.opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server before anything is read."""
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.opening = asyncio.ensure_future(self.open())

    async def open(self) -> None:
        """Connect both ends, once a handshake would be over."""
        await asyncio.sleep(2 * self.one_way)
        _, far = await asyncio.get_running_loop().create_connection(
            lambda: Delayed(self.one_way), "127.0.0.1", self.port
        )
        assert self.transport is not None
        self.other, far.other = far, self
        self.transport.resume_reading()


async def serve(path: str) -> None:
    """Serve held answers, and links to the ports that arrive on stdin as ``PORT DELAY_MS`` lines."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_unix_server(hold, path, backlog=4096)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    links = []
    while line := await commands.readline():
        port, delay = line.split()
        one_way = float(delay) / 2000
        link = await loop.create_server(
            lambda one_way=one_way, port=port: Entrance(one_way, int(port)),  # type: ignore[misc]  # bound per link
            "127.0.0.1",
            0,
            backlog=4096,
        )
        links.append(link)
        print(json.dumps({"port": link.sockets[0].getsockname()[1]}), flush=True)
    for link in [server, *links]:
        link.close()


class Slow:
    """The process of this module, as the benchmark holds it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def link(self, port: int, delay_ms: int) -> int:
        """Open a link to a port that adds `delay_ms` to each round trip; return the port of its entrance."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {delay_ms}\n")
        self._process.stdin.flush()
        return self._answer()["port"]


@contextmanager
def run_slow(socket_path: Path) -> Iterator[Slow]:
    """Start the process, end it at the end."""
    command = [sys.executable, "-m", "benchmarks.transport.slow", str(socket_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Slow(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
