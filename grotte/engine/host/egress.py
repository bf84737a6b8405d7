"""What a sandbox may reach, and how it finds names, as far as this machine has an answer."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .spec import Egress
from .standalone import host_addresses
from .standalone.netfilter import NEVER
from .standalone.network import FORWARDER

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_RESOLVERS = 3  # the C library looks at no more
INSTALL_PASTA = "install passt; on Debian: apt-get install passt"


@dataclass(frozen=True)
class WantedNetwork:
    """The launcher's description of a network; see ``standalone.children.WantedNetwork``."""

    resolvers: list[str]
    allow: list[str]
    deny: list[str]
    lookups: bool


def find_pasta() -> str:
    """Return the path of pasta, or nothing if it is not installed."""
    found = shutil.which("pasta")
    return os.path.realpath(found) if found else ""


def wanted_network(egress: Egress | None, resolvers: list[str]) -> WantedNetwork | None:
    """Return what the launcher is told."""
    return None if egress is None else WantedNetwork(resolvers, list(egress.allow), list(egress.deny), egress.lookups)


def find_resolvers() -> list[str]:
    """Return the addresses at which a sandbox asks for names.

    Those of the host, if a sandbox may reach them; pasta's, which hands on to the host's, if they are the host itself.
    """
    text = ""
    with contextlib.suppress(OSError):
        text = RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    return list(_usable_resolvers(text, host_addresses.local()))


@functools.lru_cache(maxsize=1)
def _usable_resolvers(text: str, host: tuple[str, ...]) -> tuple[str, ...]:
    closed = [ipaddress.ip_network(cidr) for cidr in (*NEVER, *host)]
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            with contextlib.suppress(ValueError):
                found.append(ipaddress.IPv4Address(words[1]))
    usable = [str(address) for address in found if not any(address in network for network in closed)]
    return tuple(usable[:MAX_RESOLVERS]) or (FORWARDER,)


def resolv_conf(resolvers: list[str]) -> str:
    """Return the file's text: no search domains, which would tell about the host."""
    return "".join(f"nameserver {address}\n" for address in resolvers)
