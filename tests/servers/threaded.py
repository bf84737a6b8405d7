"""What servers on plain sockets have in common: a listener on loopback, threads, and an end for all of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

#: For a thread to see that its sockets are closed; on a busy machine it may have to wait for its turn.
SECONDS = 60
#: Many clients connect at once.
BACKLOG = 512


def listen(path: str) -> socket.socket:
    """Listen in the file system."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    return listener


def cut(sock: socket.socket) -> None:
    """Close a socket, and wake whoever waits on it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class ThreadedServer:
    """Accepts in a thread for the length of a block; nothing of it is left afterwards.

    Attributes:
        port: Where it listens on loopback; 0 for a socket in the file system.
    """

    def __init__(self, path: str | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) if path is None else listen(path)
        self.port: int = self._listener.getsockname()[1] if path is None else 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        cut(self._listener)
        for thread in self._threads[:1]:
            thread.join(SECONDS)  # from now on nobody is accepted
        self._hang_up()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _hang_up(self) -> None:
        """End all connections, so that the threads end."""
        for sock in self._sockets:
            cut(sock)

    def _start(self, function: object, *args: object) -> None:
        assert callable(function)
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        """Begin to serve a client, without waiting for it."""
        raise NotImplementedError
