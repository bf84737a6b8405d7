"""The host's own addresses, which no sandbox may reach, and word of their changes."""

from __future__ import annotations

import contextlib
import socket

RTMGRP_IPV4_IFADDR = 0x10


def watch() -> socket.socket:
    """Return a socket that becomes readable when the addresses change."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    netlink.bind((0, RTMGRP_IPV4_IFADDR))
    return netlink


def forget_changes(changes: socket.socket) -> None:
    """Take what such a socket has to say."""
    with contextlib.suppress(OSError):  # none left, or more than fit: it is looked at afresh anyway
        while changes.recv(1 << 16):
            pass


def local() -> tuple[str, ...]:
    """Return the ranges that are this host itself."""
    found, address = set[str](), ""
    with contextlib.suppress(OSError), open("/proc/net/fib_trie", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] in ("|--", "+--"):
                address = words[1]
            elif words[1:] == ["host", "LOCAL"]:
                found.add(address + words[0])
    return tuple(sorted(found))
