"""What servers on plain sockets have in common: a listener on loopback, threads, and an end for all of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class ThreadedServer:
    """Accepts in a thread for the length of a block; nothing of it is left afterwards.

    Attributes:
        port: Where it listens.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

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
