"""Proxies: which one a request goes through, and what is said to it. No I/O.

Through an HTTP proxy, TLS connections are asked for with CONNECT (RFC 9110 §9.3.6) and carry HTTP/2 like any other;
requests without TLS it forwards one by one, over HTTP/1.1. Either way it may want TLS for itself. A SOCKS5 proxy
(RFC 1928) carries whatever it is given.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote, urlsplit

from grotte._proto import arguments
from grotte._proto.http import Origin
from grotte._proto.transport_errors import ConnectFailed
from grotte.errors import InvalidArgumentException

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
#: A proxy's answer to CONNECT may not be longer.
LONGEST_ANSWER = 16 * 1024


@dataclass(slots=True, frozen=True)
class Proxy:
    """Where a proxy is, and what it is told of us.

    Attributes:
        scheme: "http", "https", "socks5" or "socks5h".
        host: A name or an address.
        port: The TCP port.
        username: Empty for none.
        password: Its password.
        url: As it was given.
    """

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    url: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def origin(self) -> Origin:
        """Whom to connect to."""
        return Origin("http", self.host, self.port)

    def tunnels(self, origin: Origin) -> bool:
        """Whether a connection can be had through it; it must be asked request by request otherwise."""
        return self.scheme.startswith("socks5") or origin.scheme == "https"


def parse_proxy(url: object) -> Proxy:
    """Read the URL of a proxy.

    Raises:
        InvalidArgumentException: it is none; the message does not repeat it, for it may hold a password.
    """
    if not isinstance(url, str):
        raise InvalidArgumentException(f"a proxy must be a URL as a str, not {type(url).__name__}")
    if not arguments.is_visible(url):
        raise InvalidArgumentException("a proxy's URL must be visible ASCII characters: quote others as %XX")
    return _parsed(url)


@lru_cache(64)
def _parsed(url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise InvalidArgumentException("the proxy's URL cannot be read") from None
    host = parts.hostname or ""
    if parts.scheme not in PORTS or not arguments.is_host(host):
        raise InvalidArgumentException(f"a proxy's URL names a host and starts with one of {', '.join(PORTS)}, and ://")
    return Proxy(
        scheme=parts.scheme,
        host=host,
        port=PORTS[parts.scheme] if port is None else port,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        url=parts.geturl(),
    )


class Proxies:
    """Which proxy an origin is reached through: the given one, else that of ``HTTP(S)_PROXY``, ``ALL_PROXY`` and
    ``NO_PROXY`` as they were when this was made. This machine is reached without one, unless one was given."""

    def __init__(self, given: str | None) -> None:
        self._given = None if given is None else parse_proxy(given)
        self._environment = _read_environment()

    def of(self, origin: Origin, wished: str | None) -> Proxy | None:
        """The proxy for an origin; `wished` is the request's own, and goes before all."""
        if wished is not None and origin.scheme != "unix":
            return parse_proxy(wished)
        if not (self._given or self._environment) or origin.scheme == "unix":
            return None
        return self._given or self._by_environment(origin)

    def _by_environment(self, origin: Origin) -> Proxy | None:
        url = self._environment.get(origin.scheme) or self._environment.get("all")
        if not url:
            return None
        from grotte._proto.no_proxy import bypasses, is_here  # most programs have no proxy

        direct = is_here(origin.host) or bypasses(self._environment.get("no", ""), origin.host, origin.port)
        return None if direct else parse_proxy(url)


def _read_environment() -> dict[str, str]:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    from urllib.request import getproxies_environment  # heavy, and rarely needed

    return getproxies_environment()


class Tunnel(Protocol):
    """A conversation with a proxy until it is a connection to somebody else.

    Attributes:
        outgoing: What is to be sent.
        wanted: How many bytes to read at most, so that none of the far end's is taken; 0 when it is complete.
    """

    outgoing: bytearray
    wanted: int

    def receive(self, data: bytes) -> None:
        """Take bytes from the proxy.

        Raises:
            ConnectFailed: the proxy refuses, or is none.
        """


def open_tunnel(proxy: Proxy, origin: Origin) -> Tunnel:
    """Begin the conversation."""
    return SocksTunnel(proxy, origin) if proxy.scheme.startswith("socks5") else ConnectTunnel(proxy, origin)


class ConnectTunnel:
    """CONNECT."""

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.username:
            secret = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {secret}")
        self.outgoing = bytearray("\r\n".join([*lines, "", ""]).encode())
        self.wanted = 1  # the answer says only at its end how long it was
        self._proxy = proxy
        self._answer = bytearray()

    def receive(self, data: bytes) -> None:
        """See `Tunnel.receive`."""
        self._answer += data
        if len(self._answer) > LONGEST_ANSWER:
            raise ConnectFailed(f"the proxy {self._proxy} does not answer as a proxy does")
        if not self._answer.endswith(b"\r\n\r\n"):
            return
        version, _, rest = self._answer.partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise ConnectFailed(f"the proxy {self._proxy} does not answer as a proxy does")
        if status.startswith(b"1"):
            self._answer.clear()  # there will be another one
        elif status.startswith(b"2"):
            self.wanted = 0
        else:
            hint = ": it wants credentials, or other ones" if status == b"407" else ""
            raise ConnectFailed(f"the proxy {self._proxy} refused the connection ({status.decode()}){hint}")


class SocksTunnel:
    """SOCKS5; the proxy resolves names."""

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        try:
            from socksio import ProtocolError, socks5
        except ImportError:
            raise InvalidArgumentException("SOCKS proxies need one more package: pip install 'grotte[socks]'") from None
        self._socks5 = socks5
        self._malformed = ProtocolError
        self._proxy = proxy
        self._target = (origin.host, origin.port)
        self._connection = socks5.SOCKS5Connection()
        methods = socks5.SOCKS5AuthMethod
        self._method = methods.USERNAME_PASSWORD if proxy.username else methods.NO_AUTH_REQUIRED
        self._answer = bytearray()
        self.outgoing = bytearray()
        self.wanted = 2
        self._say(socks5.SOCKS5AuthMethodsRequest([self._method]))

    def _say(self, message: object) -> None:
        self._connection.send(message)
        self.outgoing += self._connection.data_to_send()

    def receive(self, data: bytes) -> None:
        """See `Tunnel.receive`."""
        self._answer += data
        self.wanted -= len(data)
        if self.wanted:
            return
        if len(self._answer) == 5:  # of the last answer, as far as it says how long it is
            fixed = {1: 4, 3: 1 + self._answer[4], 4: 16}
            self.wanted = fixed.get(self._answer[3], 4) + 1
            return
        answer = bytes(self._answer)
        self._answer.clear()
        try:
            self._on_answer(self._connection.receive_data(answer))
        except self._malformed as error:
            raise ConnectFailed(f"the proxy {self._proxy} does not answer as a proxy does") from error

    def _on_answer(self, answer: object) -> None:
        socks5 = self._socks5
        if isinstance(answer, socks5.SOCKS5AuthReply) and answer.method == self._method:
            if self._proxy.username:
                self.wanted = 2
                names = self._proxy.username.encode(), self._proxy.password.encode()
                self._say(socks5.SOCKS5UsernamePasswordRequest(*names))
                return
        elif isinstance(answer, socks5.SOCKS5Reply) and answer.reply_code == socks5.SOCKS5ReplyCode.SUCCEEDED:
            return
        elif not (isinstance(answer, socks5.SOCKS5UsernamePasswordReply) and answer.success):
            raise ConnectFailed(f"the proxy {self._proxy} refused the connection: {_refusal(answer)}")
        self.wanted = 5
        self._say(socks5.SOCKS5CommandRequest.from_address(socks5.SOCKS5Command.CONNECT, self._target))


def _refusal(answer: object) -> str:
    code = getattr(answer, "reply_code", None)
    return "it wants other credentials" if code is None else str(code.name).lower().replace("_", " ")
