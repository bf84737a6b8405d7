"""A TCP proxy that cuts, stalls, truncates and slows what it carries: by lot, the same lots for the same seed."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter

from tests.servers.threaded import ThreadedServer

#: How much of an answer a connection carries before something happens to it.
BYTES = (4_000, 60_000)
#: Seconds for which nothing moves, and those after which the network is cut for good.
STALL = (0.1, 1.0)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy(ThreadedServer):
    """Leads to a port of this machine until the block ends; a thread for each direction of each connection.

    Attributes:
        url: Where it is.
        faults: How often each of them happened.
        calm: While it is set, nothing happens to anybody.
    """

    KINDS = ("reset", "close", "truncate", "stall", "slow")

    def __init__(self, port: int, seed: int = 0) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self.faults: Counter[str] = Counter()
        self.calm = True
        self._target = port
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()

    def __exit__(self, *exception: object) -> None:
        self._flowing.set()
        super().__exit__(*exception)

    def swallow(self) -> None:
        """From now on nothing comes through, and nobody is told: a cable that was pulled."""
        self._flowing.clear()

    def _welcome(self, sock: socket.socket) -> None:
        self._start(self._connect, sock)

    def _connect(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=20)
        except OSError:
            self._close(client)
            return
        self._sockets.append(server)
        self._start(self._forward, client, server)
        self._afflict(server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                target.sendall(data)
        self._close(source, target)

    def _afflict(self, server: socket.socket, client: socket.socket) -> None:
        """Carry the answers, and something on the way."""
        with contextlib.suppress(OSError):
            kind, room = self._fate()
            while data := server.recv(65_536):
                self._flowing.wait()
                if self.calm or len(data) < room:
                    client.sendall(data)
                    room -= len(data)
                    continue
                if not self._happen(kind, data, room, server, client):
                    return
                kind, room = self._fate()
        self._close(server, client)

    def _fate(self) -> tuple[str, int]:
        with self._lock:
            return self._random.choice(self.KINDS), self._random.randint(*BYTES)

    def _happen(self, kind: str, data: bytes, room: int, server: socket.socket, client: socket.socket) -> bool:
        """Whether the connection goes on."""
        with self._lock:
            self.faults[kind] += 1
            pause = self._random.uniform(*STALL)
        if kind == "slow":
            for start in range(0, len(data), 512):
                client.sendall(data[start : start + 512])
                time.sleep(0.001)
            return True
        if kind == "stall":
            time.sleep(pause)
            client.sendall(data)
            return True
        if kind == "truncate":
            client.sendall(data[: max(0, room)])
        elif kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._close(server, client, reset=kind == "reset")
        return False

    def _close(self, *sockets: socket.socket, reset: bool = False) -> None:
        for sock in sockets:
            if not reset:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            sock.close()
