"""Names of images: ``[registry/]name[:tag][@digest]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
_IMAGE = re.compile(
    rf"(?:(?P<registry>{_HOST}(?::[0-9]{{1,5}})?)/)?(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
MAX_NAME = 512


class ImageError(Exception):
    """An image cannot be had; the text is for whoever builds."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by name.

    Attributes:
        registry: Its host and port, or nothing for whatever the machine's configuration says.
        name: The path in the registry.
        tag: Or nothing.
        digest: Of its manifest, or nothing.
    """

    registry: str
    name: str
    tag: str
    digest: str

    @property
    def plain_http(self) -> bool:
        """Whether it may be fetched without TLS: from this very machine."""
        host = self.registry.rpartition(":")[0] if re.search(r":\d+$", self.registry) else self.registry
        if host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        name = f"{self.registry}/{self.name}" if self.registry else self.name
        # With both, the digest says it all.
        if self.digest:
            return f"{name}@{self.digest}"
        return f"{name}:{self.tag}" if self.tag else name


def parse_image(text: str) -> ImageReference:
    """Read the name of an image.

    Raises:
        ImageError: it is none.

    Example:
        >>> parse_image("localhost:5000/team/app:1").registry
        'localhost:5000'
        >>> parse_image("team/app").registry
        ''
    """
    match = _IMAGE.fullmatch(text) if len(text) <= MAX_NAME else None
    if match is None:
        raise ImageError(f"not the name of an image: {text[:200]!r}")
    registry, name = match["registry"] or "", match["name"]
    if registry and not re.search(r"[.:\[]", registry) and registry != "localhost":
        # Only what looks like a host is one: "team/app" has none.
        if not re.fullmatch(_PART, registry):
            raise ImageError(f"not the name of an image: {text[:200]!r}")
        registry, name = "", f"{registry}/{name}"
    return ImageReference(registry, name, match["tag"] or "", match["digest"] or "")
