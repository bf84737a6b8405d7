"""What a sandbox may reach: the words of the control plane, checked and carried out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from grotte._proto.control import NetworkConfig, NetworkUpdate, NewSandbox
from grotte.engine.data.routing import ENVD_PORT
from grotte.engine.faults import ControlFault, not_offered
from grotte.engine.host import HostError
from grotte.engine.lifecycle.names import Names
from grotte.engine.lifecycle.network import Network
from grotte.engine.lifecycle.sandbox import Sandbox

#: How long either list may be: each packet is compared with all of it.
MAX_RANGES = 256
#: How many of them may be host names.
MAX_NAMES = 32
MAX_NAME = 253
#: Letters somewhere, or it would be an address.
_NAME = re.compile(r"(?=.*[a-z])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: Fields that change what a sandbox may reach, and that this engine cannot honour: refused, never ignored.
_NOT_OFFERED = ("egressProxy", "rules")
MAX_SERVERS, MAX_PORTS = 8, 64


def read_network(fields: dict[str, Any], asked: NewSandbox) -> Network:
    """The network of a new sandbox.

    Raises:
        ControlFault: 400 for what makes no sense, 501 for what is not offered.
    """
    config = asked.network if isinstance(asked.network, NetworkConfig) else NetworkConfig()
    _refuse(fields.get("network") or {})
    mask = config.mask_request_host or None
    return Network(
        internet=asked.allow_internet_access is not False,
        allow_out=_ranges(config.allow_out, "allowOut"),
        deny_out=_ranges(config.deny_out, "denyOut"),
        allow_public_traffic=config.allow_public_traffic is not False,
        mask_request_host=None if mask is None else _host(mask),
        dns_servers=_servers(config.dns_servers),
        https_ports=_ports(config.https_ports),
        said=isinstance(asked.network, NetworkConfig),
    )


def read_update(fields: dict[str, Any]) -> Network:
    """What ``PUT /sandboxes/{id}/network`` says: what it leaves out is not kept.

    Raises:
        ControlFault: 400 for what makes no sense, 501 for what is not offered.
    """
    try:
        asked = msgspec.convert({k: v for k, v in fields.items() if v is not None}, NetworkUpdate)
    except msgspec.ValidationError as error:
        raise ControlFault(400, f"invalid request: {error}") from None
    _refuse(fields)
    return Network(
        internet=asked.allow_internet_access is not False,
        allow_out=_ranges(asked.allow_out, "allowOut"),
        deny_out=_ranges(asked.deny_out, "denyOut"),
        dns_servers=_servers(asked.dns_servers),
    )


async def change_network(sandbox: Sandbox, update: Network, names: Names, no_internet: str) -> None:
    """Let a sandbox reach this and nothing else.

    Raises:
        ControlFault: 400, a name that is to be closed cannot be looked up; 404, it is gone; 500, the machine could not
            do it; 501, this machine never can.
    """
    if update.egress is not None and no_internet:
        raise not_offered(f"internet access of sandboxes ({no_internet})")
    try:
        await sandbox.guest.network.change(await names.resolved(update.egress))
    except HostError as error:
        if not sandbox.alive:
            raise ControlFault(404, f"sandbox {sandbox.sandbox_id} not found") from None
        raise ControlFault(500, str(error)) from None
    sandbox.network = sandbox.network.with_egress(update)


def shown(network: Network) -> NetworkConfig | UnsetType:
    """What the details of a sandbox say of its network."""
    if not network.said:
        return UNSET
    return NetworkConfig(
        allow_out=list(network.allow_out),
        deny_out=list(network.deny_out),
        allow_public_traffic=network.allow_public_traffic,
        mask_request_host=network.mask_request_host or UNSET,
        dns_servers=UNSET if network.dns_servers is None else list(network.dns_servers),
        https_ports=list(network.https_ports) or UNSET,
    )


def _refuse(fields: dict[str, Any]) -> None:
    for name in _NOT_OFFERED:
        if fields.get(name):
            raise not_offered(f"network.{name}")


def _ranges(texts: Sequence[str] | UnsetType | None, name: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_range(text, name) for text in texts)) if texts else ()
    if len(found) > MAX_RANGES:
        raise ControlFault(400, f"{name} must not have more than {MAX_RANGES} entries")
    if sum("/" not in text for text in found if text) > MAX_NAMES:
        raise ControlFault(400, f"{name} must not have more than {MAX_NAMES} host names")
    return tuple(text for text in found if text)


def _range(text: str, name: str) -> str:
    """A range in the packet filter's words, or a host name; nothing for what is unreachable anyway."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return _name(text.strip().lower(), name)
    if isinstance(network, ipaddress.IPv4Network):
        return str(network)
    if name == "allowOut":
        raise not_offered("IPv6 from inside sandboxes")
    return ""


def _servers(texts: Sequence[str] | UnsetType | None) -> tuple[str, ...] | None:
    if texts is None or isinstance(texts, UnsetType):
        return None
    if len(texts) > MAX_SERVERS:
        raise ControlFault(400, f"dnsServers must not have more than {MAX_SERVERS} entries")
    try:
        return tuple(dict.fromkeys(str(ipaddress.IPv4Address(text.strip())) for text in texts))
    except ValueError:
        raise ControlFault(400, "dnsServers must be IPv4 addresses") from None


def _ports(ports: Sequence[int] | UnsetType | None) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(ports or ()))
    if len(found) > MAX_PORTS or not all(0 < port < 65536 and port != ENVD_PORT for port in found):
        raise ControlFault(400, f"httpsPorts must be at most {MAX_PORTS} ports from 1 to 65535, without {ENVD_PORT}")
    return found


def _name(text: str, where: str) -> str:
    if _NAME.fullmatch(text.removeprefix("*.")) is None or len(text) > MAX_NAME:
        raise ControlFault(400, f"{where}: {text[:100]!r} is neither an address, nor a range, nor a host name")
    if text.startswith("*."):
        raise not_offered(f"a host name with a wildcard in {where} ({text!r})")
    return text


def _host(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ControlFault(400, "maskRequestHost is not a host name")
    return text
