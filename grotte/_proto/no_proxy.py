"""What ``NO_PROXY`` says, and which hosts are this machine. No standard says it; this is what others agree on."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


@lru_cache(1024)
def bypasses(rules: str, host: str, port: int) -> bool:
    """Whether a host is reached without a proxy.

    Args:
        rules: The variable's value: entries, separated by commas or white space. ``*`` is everything; ``example.com``,
            ``.example.com`` and ``*.example.com`` are that name and all below it; addresses may be networks, like
            ``10.0.0.0/8``. ``:port`` after an entry restricts it to that port; IPv6 addresses are in brackets then.
        host: A name or an address.
        port: The TCP port.
    """
    name = _plain(host)
    address = _address(name)
    return any(_matches(entry, name, address, port) for entry in re.split(r"[,\s]+", rules) if entry)


@lru_cache(1024)
def is_here(host: str) -> bool:
    """Whether a host is this machine: localhost and the names below it (RFC 6761), and loopback addresses."""
    name = _plain(host)
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _matches(entry: str, name: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    wanted, wanted_port = _split_port(entry)
    if wanted_port not in (None, port):
        return False
    if wanted == "*":
        return True
    if address is not None:
        return _holds(wanted, address)
    wanted = _plain(wanted.removeprefix("*").removeprefix("."))
    return bool(wanted) and (name == wanted or name.endswith(f".{wanted}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    head, colon, tail = entry.rpartition(":")
    bracketed = head.startswith("[") and head.endswith("]")
    if colon and tail.isdecimal() and (bracketed or ":" not in head):
        return head, int(tail)
    return entry, None


def _holds(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network.replace("[", "").replace("]", ""), strict=False)
    except ValueError:  # a name, or nothing at all
        return False


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(name.strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
