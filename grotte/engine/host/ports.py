"""Connections to what listens inside a sandbox.

The guest makes the sockets, since a socket belongs to the network of whoever made it; the engine connects them itself,
so that no answer of the guest can lead it anywhere else.
"""

from __future__ import annotations

import asyncio
import os
import socket

import anyio

from .frames import close_all
from .spec import GuestError

CONNECT_SECONDS = 5
SO_NETNS_COOKIE = 71
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


async def connect(fds: list[int], port: int) -> socket.socket:
    """Connect one of the guest's sockets to a port of the sandbox's loopback, and close the others.

    Args:
        fds: The guest's fresh sockets, IPv4 first, which belong to this function.
        port: Where something may listen.

    Raises:
        GuestError: ``unavailable`` if nothing listens; ``internal`` if these are no such sockets.
    """
    socks: list[socket.socket] = []
    try:
        while fds:
            socks.append(_adopt(fds.pop(0)))
        for sock in socks:
            if await _connected(sock, port):
                socks.remove(sock)
                return sock
    finally:
        close_all(fds)
        for sock in socks:
            sock.close()
    raise GuestError("unavailable", f"nothing listens on port {port}")


def _adopt(fd: int) -> socket.socket:
    """Take over a descriptor if it is a TCP socket of another network than the engine's."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        raise GuestError("internal", "the guest sent something that is not a socket") from None
    finally:
        os.close(fd)
    if sock.family not in HOSTS or sock.type != socket.SOCK_STREAM or sock.proto != socket.IPPROTO_TCP or _ours(sock):
        sock.close()
        raise GuestError("internal", "the guest sent a socket of another kind")
    sock.setblocking(False)
    return sock


def _ours(sock: socket.socket) -> bool:
    try:
        with socket.socket() as own:
            return _network(own) == _network(sock)
    except OSError:  # a kernel before 5.14 does not tell; inside, no socket of another network can be made either
        return False


def _network(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


async def _connected(sock: socket.socket, port: int) -> bool:
    try:
        with anyio.move_on_after(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, (HOSTS[sock.family], port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return True
    except OSError:
        pass
    return False
