"""Which sandbox, and which port of it, a request is for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from grotte._proto.signature import Operation, sign
from grotte.engine.faults import ControlFault, ProxyFault, TextFault, sandbox_gone
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import plain_sandbox_id
from grotte.engine.lifecycle.keys import same_secret
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Sandbox

ENVD_PORT = 49983
#: A request that wakes a sandbox gives it so many seconds at least.
WAKE_SECONDS = 300
#: No path is as long that a file can have, percent-encoded.
MAX_SIGNED = 16 * 1024

_RPC_PREFIXES = ("/process.Process/", "/filesystem.Filesystem/")
#: Routes of the daemon inside the sandbox, and those that its edge keeps from the outside.
INTERNAL_PATHS = frozenset({"/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"})
_DATA_PATHS = frozenset({"/files", "/files/compose", "/health", "/metrics", "/envs"}) | INTERNAL_PATHS
_HEADER_PAIRS = (("grotte-sandbox-id", "grotte-sandbox-port"), ("e2b-sandbox-id", "e2b-sandbox-port"))
#: A number is a port whatever follows; anything else is meant as one before an id alone, for a host of the control
#: plane may have hyphens in its name.
_HOST_LABEL = re.compile(r"(\d+)-([a-z0-9]+)(?:-.*)?|([^-]*)-(i[a-z0-9]{20})(?:-.*)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A port of a sandbox, by name."""

    sandbox_id: str
    port: int


def address_in_host(request: Request) -> Address | None:
    """The address in the first label of the host, ``{port}-{id}.domain``; None if the host is of another kind.

    Raises:
        TextFault: 400, it is meant to be one and is malformed.
    """
    host = request.headers.get("host", "").lower().partition(":")[0]
    label, dot, _ = host.partition(".")
    match = _HOST_LABEL.fullmatch(label)
    if match is None:
        return None
    port, name = match.group(1) or match.group(3) or "", match.group(2) or match.group(4)
    sandbox_id = plain_sandbox_id(name)
    if not dot and sandbox_id is None:
        return None  # whoever gave this machine its name knew nothing of sandboxes
    if not dot:
        raise TextFault(400, "invalid host: the domain is missing")
    if sandbox_id is None:
        raise TextFault(400, "invalid host: the sandbox id is malformed")
    return Address(sandbox_id, _port(port, "invalid host: the port is malformed"))


def address_in_headers(request: Request) -> Address | None:
    """The address in the routing headers of either kind of client; None if there are none.

    Raises:
        TextFault: 400, one of the two is missing or malformed.
    """
    for id_name, port_name in _HEADER_PAIRS:
        sandbox_id, port = request.headers.get(id_name), request.headers.get(port_name)
        if sandbox_id is None and port is None:
            continue
        if sandbox_id is None or port is None:
            raise TextFault(400, f"missing header: {id_name if sandbox_id is None else port_name}")
        plain = plain_sandbox_id(sandbox_id.strip())
        if plain is None:
            raise TextFault(400, f"invalid header: {id_name}")
        return Address(plain, _port(port.strip(), f"invalid header: {port_name}"))
    return None


def address_of(request: Request) -> Address | None:
    """The address that a request names: a host that is one wins over headers, which are for hosts that are none.

    Raises:
        TextFault: 400, it names one in a malformed way.
    """
    return address_in_host(request) or address_in_headers(request)


def is_for_sandbox(request: Request, is_controls: Callable[[str], bool]) -> bool:
    """Whether a request belongs to the data plane.

    The grotte client sends routing headers with one call to the control plane too, so that headers alone do not
    decide, unless they name a port that no control plane has.

    Args:
        request: The request.
        is_controls: Whether the control plane serves a path.
    """
    if request.path.startswith(_RPC_PREFIXES) or request.path in _DATA_PATHS or address_in_host(request):
        return True
    ports = [request.headers.get(name) for _, name in _HEADER_PAIRS]
    if any(port is not None and port.strip() != str(ENVD_PORT) for port in ports):
        return True
    named = any(name in request.headers for pair in _HEADER_PAIRS for name in pair)
    return named and not is_controls(request.path)


def is_unaddressed(request: Request) -> bool:
    """Whether a request names no sandbox in any way.

    Raises:
        TextFault: 400, it names one in a malformed way.
    """
    return address_of(request) is None and "x-access-token" not in request.headers


def is_for_port(request: Request) -> bool:
    """Whether a request names a port of a sandbox that is not the daemon's.

    Raises:
        TextFault: 400, it names one in a malformed way.
    """
    address = address_of(request)
    return address is not None and address.port != ENVD_PORT


def find_port(request: Request, registry: Registry) -> tuple[Sandbox, int]:
    """The sandbox and port that a request names.

    Raises:
        ProxyFault: 502, that sandbox does not run.
    """
    found = find_sandbox(request, registry)
    assert found is not None
    return found


def find_sandbox(request: Request, registry: Registry) -> tuple[Sandbox, int] | None:
    """The sandbox and port that a request is for; None if it does not say.

    Raises:
        TextFault: 400, it says so in a malformed way.
        ProxyFault: 502, that sandbox does not run, and no request resumes it.
    """
    address = address_of(request)
    if address is not None:
        sandbox = registry.find(address.sandbox_id)
        if sandbox is None:
            raise sandbox_gone(address.sandbox_id)
    else:
        sandbox = _by_token(request, registry) or _by_signature(request, registry)
        if sandbox is None:
            return None
    if sandbox.paused and not sandbox.wakes:
        raise sandbox_gone(sandbox.sandbox_id)
    return sandbox, address.port if address else ENVD_PORT


async def wake(sandbox: Sandbox, registry: Registry) -> None:
    """Let a request that was let in resume its sandbox.

    Raises:
        ProxyFault: 502, the sandbox has ended meanwhile; 429 and 500, it cannot be resumed.
    """
    try:
        await registry.resume(sandbox, max(sandbox.timeout, WAKE_SECONDS))
    except ControlFault as fault:
        if fault.status == 404:
            raise sandbox_gone(sandbox.sandbox_id) from None
        raise ProxyFault(fault.status, fault.message, sandbox.sandbox_id) from None


def _by_token(request: Request, registry: Registry) -> Sandbox | None:
    token = request.headers.get("x-access-token")
    if not token:
        return None
    if (ended := registry.ended_by_token(token)) is not None:
        raise sandbox_gone(ended)
    return registry.by_token(token)


def _by_signature(request: Request, registry: Registry) -> Sandbox | None:
    """A signed file URL on a shared address names nothing: its sandbox is the one whose token makes the signature."""
    given = request.query.get("signature") if request.path == "/files" else None
    if not given or len(request.query_string) > MAX_SIGNED:  # it is looked at once for every sandbox there is
        return None
    for sandbox in registry.secured():
        if sandbox.access_token and same_secret(given, expected_signature(request, sandbox.access_token)):
            return sandbox
    return None


def expected_signature(request: Request, token: str) -> str:
    """The signature that this request must carry to be let in by this token; of an expired one, too."""
    query = request.query
    expiration = query.get("signature_expiration")
    number = int(expiration) if expiration and re.fullmatch(r"-?[0-9]{1,18}", expiration) else None
    operation: Operation = "write" if request.method == "POST" else "read"
    return sign(query.get("path", ""), operation, query.get("username", ""), token, number)


def _port(text: str, message: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise TextFault(400, message)
    return int(text)
