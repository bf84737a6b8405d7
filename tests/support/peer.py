"""A machine that is not this one: a network namespace with a server, on a cable of its own."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

SECONDS = 20
#: Told to tests that may not make a peer themselves.
VARIABLE = "GROTTE_TEST_PEER"
PORT = 7777

SERVER = f"""
import socket, threading
def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind(("", {PORT}))
    while True:
        data, sender = sock.recvfrom(1500); sock.sendto(data, sender)
threading.Thread(target=udp, daemon=True).start()
server = socket.create_server(("", {PORT}))
print("listening", flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"peer"); client.close()
"""


@dataclass(frozen=True)
class Peer:
    """Where the other machine is.

    Attributes:
        cable: The interface that leads there.
        net: The first three numbers of all addresses on it.
    """

    cable: str
    net: str
    port: int = PORT

    @property
    def ours(self) -> str:
        """This machine's address on the cable."""
        return f"{self.net}.1"

    @property
    def first(self) -> str:
        """An address of the other machine."""
        return f"{self.net}.2"

    @property
    def second(self) -> str:
        """Another address of the same machine."""
        return f"{self.net}.3"


@contextmanager
def running_peer() -> Iterator[Peer]:
    """Make a peer, or use the one that whoever started the tests made; skip where neither can be."""
    if os.environ.get(VARIABLE):
        cable, net = os.environ[VARIABLE].split()
        yield Peer(cable, net)
        return
    if os.getuid() != 0:
        pytest.skip("only root can make another machine")
    # A name and a range that no peer has that an aborted run left behind.
    peer = Peer(f"gp{secrets.token_hex(3)}", f"198.18.{secrets.randbelow(256)}")
    name = peer.cable
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{peer.ours}/24", "dev", name)
        _ip("link", "set", name, "up")
        for address in (peer.first, peer.second):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", SERVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "listening\n"
                yield peer
            finally:
                server.kill()
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False, timeout=SECONDS, capture_output=True)
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=SECONDS, capture_output=True)
