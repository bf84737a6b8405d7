"""What a sandbox may reach, and who may reach it, as its owner said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grotte.engine.host import Egress

EVERYTHING = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Network:
    """The network that was asked for, checked.

    Attributes:
        internet: ``allow_internet_access``.
        allow_out: IPv4 ranges and host names that it may reach; they win over `deny_out`.
        deny_out: IPv4 ranges and host names that it may not reach.
        allow_public_traffic: Whether its ports are open to all who know their names.
        dns_servers: IPv4 addresses that it may reach if `allow_out` has host names; None for the machine's resolvers.
        https_ports: Ports of it that speak HTTPS.
        mask_request_host: The ``Host`` that servers on its ports see; ``${PORT}`` stands for the port.
        said: The owner said something of it, so that it is shown.
    """

    internet: bool = True
    allow_out: tuple[str, ...] = ()
    deny_out: tuple[str, ...] = ()
    allow_public_traffic: bool = True
    mask_request_host: str | None = None
    said: bool = False
    dns_servers: tuple[str, ...] | None = None
    https_ports: tuple[int, ...] = ()

    @property
    def egress(self) -> Egress | None:
        """What the packet filter is told once names are addresses; None for no network at all."""
        denied = self.deny_out if self.internet else (*self.deny_out, EVERYTHING)
        if EVERYTHING in denied and not self.allow_out:
            return None
        by_name = any(is_name(text) for text in self.allow_out)
        servers = tuple(f"{address}/32" for address in self.dns_servers or () if by_name)
        # a name that may be reached must be looked up first
        return Egress((*self.allow_out, *servers), denied, lookups=by_name and self.dns_servers is None)

    def with_egress(self, other: Network) -> Network:
        """The same for those who come in, the other's for what goes out."""
        return replace(
            self,
            internet=other.internet,
            allow_out=other.allow_out,
            deny_out=other.deny_out,
            dns_servers=other.dns_servers,
            said=self.said or bool(other.allow_out or other.deny_out or other.dns_servers is not None),
        )


def is_name(text: str) -> bool:
    """Whether an entry of a list is a host name: ranges always have their length."""
    return "/" not in text
