"""Where do sandboxes run? Resolved once for each call that starts from nothing, and never changed afterwards.

The first that is set wins: arguments, ``GROTTE_*`` variables, the engine on this machine if its extra is installed.
Variables of other products are never read.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypedDict, TypeVar, cast, get_args
from urllib.parse import urlsplit

from grotte._proto import arguments
from grotte._proto.pinned import Pinned
from grotte._proto.proxy import parse_proxy
from grotte._version import __version__
from grotte.errors import AuthenticationException, InvalidArgumentException

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, Unpack

logger = logging.getLogger("grotte")

DEFAULT_DOMAIN = "grotte.dev"
DEFAULT_REQUEST_TIMEOUT = 60.0
#: Where the agent inside every sandbox listens.
ENVD_PORT = 49983
DEBUG_API_URL = "http://localhost:3000"
DEBUG_VOLUME_URL = "http://localhost:8080"
LOCAL = "local"
#: What the `engine` extra brings.
ENGINE_MODULES = ("granian", "h11", "python_multipart", "wsproto")
#: E2B's own domains, where all sandboxes are reached through one host.
SHARED_HOST_DOMAINS = frozenset(
    {"e2b.app", "e2b.dev", "e2b.pro", "e2b-staging.dev", "e2b-tango.dev", "e2b-juliett.dev", "foxtrot-2.e2b.dev"}
)


class ApiParams(TypedDict, total=False):
    """What every call accepts. A sandbox keeps what it was created with, and a call on it may override that.

    Attributes:
        request_timeout: How long one request may take, in seconds; 0 for no limit. Default 60.
        headers: Additional headers of every request, to the control plane and to sandboxes.
        api_key: Default: ``GROTTE_API_KEY``.
        domain: Where the control plane and the sandboxes are. Default: ``GROTTE_DOMAIN``, else ``grotte.dev``.
        api_url: The control plane, or ``"local"`` for the engine on this machine. Default: ``GROTTE_API_URL``, else
            ``https://api.{domain}``.
        debug: Talk to a control plane and a sandbox agent on localhost. Default: ``GROTTE_DEBUG``.
        proxy: The URL of a proxy for all requests: http, https or socks5, with credentials if need be. Default: what
            ``HTTP(S)_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` say.
        sandbox_url: One URL for all sandboxes. Default: ``GROTTE_SANDBOX_URL``.
    """

    request_timeout: float | None
    headers: Mapping[str, str] | None
    api_key: str | None
    domain: str | None
    api_url: str | None
    debug: bool | None
    proxy: str | None
    sandbox_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig(Pinned):
    """Where sandboxes run, and how to talk to them; immutable.

    Attributes:
        api_url: The control plane, or ``"local"`` as long as the engine on this machine has not been found.
        api_key: The key; never part of the representation.
        domain: Where sandboxes are when the control plane does not say otherwise.
        sandbox_url: One URL for all sandboxes; None for a host each.
        request_timeout: How long one request may take, in seconds; None for no limit.
        headers: Additional headers of every request.
        debug: Whether there is no control plane and one agent on localhost.
        proxy: The URL of a proxy for all requests; never part of the representation.
        transports: Whose connections are used: those of a `Grotte` or `AsyncGrotte` object; None: those that all who
            have none share.
        volume_api_url: Where the files of volumes are; None: at the control plane.
    """

    api_url: str
    api_key: str | None = field(default=None, repr=False)
    domain: str = DEFAULT_DOMAIN
    sandbox_url: str | None = None
    request_timeout: float | None = DEFAULT_REQUEST_TIMEOUT
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    debug: bool = False
    proxy: str | None = field(default=None, repr=False)
    transports: object | None = field(default=None, repr=False, compare=False)
    volume_api_url: str | None = None

    _instead = "it holds a key and connections; pass on the options that it was made of"

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # as of all that never changes

    def __copy__(self) -> Self:
        return self

    @classmethod
    def resolve(cls, environ: Mapping[str, str] | None = None, **options: Unpack[ApiParams]) -> Self:
        """Read arguments and environment, in this order.

        Args:
            environ: The environment; default: the process's.
            **options: See `ApiParams`.

        Raises:
            InvalidArgumentException: one of them cannot be right.
            AuthenticationException: there is no key, and no engine on this machine.
        """
        _check_options(options)
        found = _Sources(os.environ if environ is None else environ, options)
        debug = found.debug()
        domain = found.text("domain")
        api_url = found.text("api_url")
        api_key = found.text("api_key")
        if not (debug or domain or api_url or api_key):
            api_url = _fall_back()
        local = api_url == LOCAL
        if not (debug or local or api_key):
            raise AuthenticationException(NO_KEY)
        domain = arguments.domain(domain or DEFAULT_DOMAIN)
        default_url = DEBUG_API_URL if debug else f"https://api.{domain}"
        sandbox_url = found.text("sandbox_url")
        return cls(
            api_url=LOCAL if local else arguments.url(api_url or default_url, "api_url"),
            api_key=arguments.secret(api_key, "api_key") if api_key else None,
            domain=domain,
            sandbox_url=arguments.url(sandbox_url, "sandbox_url") if sandbox_url else None,
            request_timeout=_request_timeout(options.get("request_timeout"), DEFAULT_REQUEST_TIMEOUT),
            headers=MappingProxyType(arguments.headers(options.get("headers"))),
            debug=debug,
            proxy=_proxy(options),
            volume_api_url=found.volume_api_url(),
        )

    def override(self, **options: Unpack[ApiParams]) -> Self:
        """The same with the options of one call; None leaves an option as it is."""
        _check_options(options)
        if all(value is None for value in options.values()):
            return self
        headers = {**self.headers, **arguments.headers(options.get("headers"))}
        return replace(
            self._moved(options),
            request_timeout=self.timeout(options.get("request_timeout")),
            headers=MappingProxyType(headers),
        )

    def _moved(self, options: ApiParams) -> Self:
        """Another place or another key: the rest stays."""
        domain = arguments.domain(options.get("domain") or self.domain)
        api_url = options.get("api_url")
        if api_url is None:
            api_url = f"https://api.{domain}" if options.get("domain") else self.api_url
        key, sandbox_url, debug = options.get("api_key"), options.get("sandbox_url"), options.get("debug")
        return replace(
            self,
            api_url=LOCAL if api_url == LOCAL else arguments.url(api_url, "api_url"),
            api_key=arguments.secret(key, "api_key") if key is not None else self.api_key,
            domain=domain,
            sandbox_url=arguments.url(sandbox_url, "sandbox_url") if sandbox_url else self.sandbox_url,
            debug=self.debug if debug is None else debug,
            proxy=_proxy(options) or self.proxy,
            volume_api_url=None if options.get("domain") or options.get("api_url") else self.volume_api_url,
        )

    @property
    def is_local(self) -> bool:
        """Whether the engine on this machine is meant but not found yet."""
        return self.api_url == LOCAL

    def located(self, api_url: str, api_key: str) -> Self:
        """The same with the address of the engine on this machine, to which no proxy leads."""
        return replace(self, api_url=api_url, api_key=api_key, sandbox_url=self.sandbox_url or api_url, proxy=None)

    def timeout(self, request_timeout: float | None = None) -> float | None:
        """The time limit of one request in seconds: the call's own, else the configured one; None for none."""
        return _request_timeout(request_timeout, self.request_timeout)

    def sandbox_domain(self, domain: str | None) -> str:
        """Where a sandbox's ports are: what the control plane says of it, else the engine at hand, else `domain`."""
        if domain is not None:
            return domain
        api = urlsplit(self.api_url)
        if api.scheme == "http" and is_loopback_name(api.netloc):
            return "localhost" if api.port is None else f"localhost:{api.port}"
        return self.domain

    def sandbox_host(self, sandbox_id: str, domain: str | None, port: int) -> str:
        """The host, without a scheme, under which a port of a sandbox is reached."""
        if self.debug:
            return f"localhost:{port}"
        return f"{port}-{sandbox_id}.{self.sandbox_domain(domain)}"

    def port_scheme(self, domain: str | None) -> Literal["http", "https"]:
        """How a port of a sandbox is reached."""
        return "http" if self.debug or is_loopback_name(self.sandbox_domain(domain)) else "https"

    def envd_url(self, sandbox_id: str, domain: str | None) -> str:
        """The base URL of the agent in a sandbox."""
        if self.sandbox_url:
            return self.sandbox_url
        if self.debug:
            return f"http://localhost:{ENVD_PORT}"
        if domain is None and urlsplit(self.api_url).scheme == "http":
            # a control plane in the clear is an engine at hand, which is its own gateway
            return self.api_url
        where = domain or self.domain
        if is_loopback_name(where):
            return f"http://{_authority_of_loopback(where)}"
        if where in SHARED_HOST_DOMAINS:
            return f"https://sandbox.{where}"
        return f"https://{self.sandbox_host(sandbox_id, domain, ENVD_PORT)}"

    def files_url(self, sandbox_id: str, domain: str | None, *, signed: bool) -> str:
        """Where file URLs of a sandbox start, which any program may fetch: they carry no header that says which."""
        explicit = self.sandbox_url is not None and self.sandbox_url != self.api_url
        at_hand = domain is None and urlsplit(self.api_url).scheme == "http"
        scheme = self.port_scheme(domain)
        # an engine at hand finds the sandbox by the signature, and names below localhost do not resolve everywhere
        if explicit or self.debug or (signed and (at_hand or scheme == "http")) or (at_hand and scheme == "https"):
            return self.envd_url(sandbox_id, domain)
        return f"{scheme}://{self.sandbox_host(sandbox_id, domain, ENVD_PORT)}"


class VolumeApiParams(ApiParams, total=False):
    """What calls on the files of a volume accept: as all calls, and a token.

    Attributes:
        token: What the files are reached with. Default: the volume's own, else ``GROTTE_ACCESS_TOKEN``.
        api_url: Where the files are. Default: ``GROTTE_VOLUME_API_URL``, else where the volume's domain is.
    """

    token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeConnectionConfig:
    """Where the files of a volume are, and how to talk to them; immutable.

    Attributes:
        api_url: The base URL.
        token: What they are reached with; never part of the representation.
        connection: What else is configured: time limits, headers, proxy.
        coalesce: Whether the URL is one of those that lie behind one gateway.
    """

    api_url: str
    token: str | None = field(repr=False)
    connection: ConnectionConfig
    coalesce: bool = False

    @classmethod
    def of(cls, config: ConnectionConfig, token: str | None, domain: str | None, options: VolumeApiParams) -> Self:
        """For one call on a volume.

        Args:
            config: What the volume was made or found with.
            token: Its own token.
            domain: Its own domain, if it has one.
            options: The arguments of the call.
        """
        given = options.get("token")
        token = arguments.secret(given, "token") if given is not None else token
        url, place = options.get("api_url"), options.get("domain")
        rest = cast("ApiParams", {key: value for key, value in options.items() if key not in ("token", "api_url")})
        connection = config.override(**rest)
        if place is None and domain is not None:
            connection = replace(connection, domain=arguments.domain(domain), api_url=f"https://api.{domain}")
        default = DEBUG_VOLUME_URL if connection.debug else connection.volume_api_url or connection.api_url
        return cls(
            api_url=default if url is None else arguments.url(url, "api_url"),
            token=token or os.environ.get("GROTTE_ACCESS_TOKEN") or None,
            connection=connection,
            coalesce=url is None and default == f"https://api.{connection.domain}",
        )

    def timeout(self, request_timeout: float | None = None) -> float | None:
        """The time limit of one request in seconds; None for none."""
        return self.connection.timeout(request_timeout)


class TimeLimits(Protocol):
    """What knows how long a request may take."""

    def timeout(self, request_timeout: float | None = None) -> float | None:
        """The time limit of one request in seconds: the call's own, else the configured one; None for none."""


class Bound:
    """What a `Grotte` or `AsyncGrotte` object has a copy of: a class whose calls without a handle are its own."""

    _account: ClassVar[ConnectionConfig | None] = None

    @classmethod
    def _configured(cls, options: ApiParams) -> ConnectionConfig:
        """Where a call on the class goes: where its client says, else where arguments and environment say."""
        return ConnectionConfig.resolve(**options) if cls._account is None else cls._account.override(**options)


B = TypeVar("B", bound=Bound)


def bound(kind: type[B], config: ConnectionConfig) -> type[B]:
    """The same class for one client."""
    names = {"_account": config, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return cast("type[B]", type(kind.__name__, (kind,), names))


NO_KEY = (
    "No API key: pass api_key= or set GROTTE_API_KEY to use the hosted service (set GROTTE_API_URL or GROTTE_DOMAIN as "
    "well for a cluster of your own), or run sandboxes on this machine: pip install 'grotte[engine]', "
    "which then is the default, or can be asked for with api_url='local'."
)


def _fall_back() -> str | None:
    """Nothing says where: the engine on this machine, if it is installed."""
    if not engine_installed():
        return None
    _announce()
    return LOCAL


@cache
def _announce() -> None:
    """Say it once per process."""
    logger.info("No GROTTE_API_KEY is set: sandboxes run in the engine on this machine (api_url='local')")


def engine_installed() -> bool:
    """Whether the `engine` extra is there."""
    return all(importlib.util.find_spec(module) is not None for module in ENGINE_MODULES)


def is_loopback_name(domain: str) -> bool:
    """Whether a domain is this machine by its name (RFC 6761) or address."""
    host = domain.rsplit(":", 1)[0].lower()
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.")


def _authority_of_loopback(domain: str) -> str:
    """One host for all sandboxes, so that they share connections: the routing headers tell them apart."""
    host, colon, port = domain.partition(":")
    return (host if host.startswith("127.") else "localhost") + colon + port


def user_agent() -> str:
    return f"grotte-python-sdk/{__version__}"


def _request_timeout(value: float | None, default: float | None) -> float | None:
    return default if value is None else arguments.seconds(value, "request_timeout")


def _proxy(options: ApiParams) -> str | None:
    url = options.get("proxy")
    if url is not None:
        parse_proxy(url)
    return url


def _check_options(options: ApiParams) -> None:
    unknown = sorted(options.keys() - ApiParams.__annotations__.keys())
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    if not isinstance(options.get("debug"), bool | None):
        raise InvalidArgumentException(f"debug must be a bool, not {type(options.get('debug')).__name__}")


TextOption = Literal["api_key", "domain", "api_url", "sandbox_url"]


class _Sources:
    """An option, from the arguments, else from the environment."""

    def __init__(self, environ: Mapping[str, str], options: ApiParams) -> None:
        self._environ = environ
        self._options = options

    def text(self, name: TextOption) -> str | None:
        assert name in get_args(TextOption)
        value = self._options.get(name)
        if not isinstance(value, str | None):
            raise InvalidArgumentException(f"{name} must be a str, not {type(value).__name__}")
        if value == "":
            raise InvalidArgumentException(f"{name} must not be empty; leave it out to use the environment")
        if value is None and self._elsewhere(name):
            return None
        return value if value is not None else self._environ.get(f"GROTTE_{name.upper()}") or None

    def _elsewhere(self, name: TextOption) -> bool:
        """Whether the arguments name a place, so that the URLs of the environment are those of another one."""
        places = ("domain", "api_url") if name == "sandbox_url" else ("domain",)
        return name in ("api_url", "sandbox_url") and any(self._options.get(place) for place in places)

    def volume_api_url(self) -> str | None:
        url = self._environ.get("GROTTE_VOLUME_API_URL")
        elsewhere = self._elsewhere("sandbox_url")
        return arguments.url(url, "GROTTE_VOLUME_API_URL") if url and not elsewhere else None

    def debug(self) -> bool:
        value = self._options.get("debug")
        return value if value is not None else self._environ.get("GROTTE_DEBUG", "false").lower() == "true"
