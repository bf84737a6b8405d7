"""What the layers above the transport and the transport itself speak of: origins, headers, answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from grotte.errors import InvalidArgumentException

#: Bulk bodies travel on connections of their own, so that a file never delays a command.
Lane = Literal["rpc", "bulk"]
#: Which hosts may share a connection: those of one parent domain, those of one certificate and address, none.
Coalesce = Literal["domain", "strict", "off"]

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """Where requests go: scheme, host and port.

    Attributes:
        scheme: "http" or "https"; "unix" for HTTP/2 in the clear over a unix socket whose path is `host`.
        host: A name or an address, without brackets; lower case.
        port: The TCP port.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of `:authority` and `host`: the port is left out when it is the scheme's own."""
        if self.scheme == "unix":
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host if self.scheme == 'unix' else self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """Split an http or https URL into its origin and its request target.

    Example:
        >>> split_url("http://localhost:3000/health?x=1")
        (Origin(scheme='http', host='localhost', port=3000), '/health?x=1')

    Raises:
        InvalidArgumentException: it is no URL that could be requested.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgumentException(f"not a URL: {error}") from None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in DEFAULT_PORTS or not host:
        raise InvalidArgumentException("a URL must start with http:// or https:// and name a host")
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    return Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port), target


class Headers(Mapping[str, str]):
    """Response headers: names in lower case, looked up in any case; repeated fields are joined by ", "."""

    __slots__ = ("_fields", "_found")

    def __init__(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        self._fields = fields
        #: Made when somebody asks: most answers are judged by their status alone.
        self._found: dict[str, str] | None = None

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """The fields in order, as they came; without `:status`."""
        return [field for field in self._fields if not field[0].startswith(b":")]

    @property
    def _values(self) -> dict[str, str]:
        if self._found is None:
            values: dict[str, str] = {}
            for name_bytes, value_bytes in self.raw:
                name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
                known = values.get(name)
                values[name] = value if known is None else f"{known}, {value}"
            self._found = values
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({sorted(self._values)})"  # names only: values may be secrets


class Response(msgspec.Struct, frozen=True):
    """A complete answer."""

    status: int
    headers: Headers
    content: bytes
