"""Who may talk to a sandbox, as whom, and from which web page."""

from __future__ import annotations

import base64
import binascii
import re
import time

from grotte.engine.data.routing import expected_signature
from grotte.engine.faults import Fault, Headers
from grotte.engine.http import Request
from grotte.engine.lifecycle.keys import same_secret
from grotte.engine.lifecycle.sandbox import Sandbox

#: Open to everybody, or checked by the route itself.
_EXEMPT = frozenset({("GET", "/health"), ("GET", "/files"), ("POST", "/files"), ("POST", "/init")})
_METHODS = "HEAD, GET, POST, PUT, PATCH, DELETE"


def check_token(request: Request, sandbox: Sandbox) -> None:
    """Let in who shows the sandbox's access token.

    Raises:
        Fault: 401, it is missing or wrong.
    """
    if sandbox.access_token is None or (request.method, request.path) in _EXEMPT:
        return
    if not same_secret(request.headers.get("x-access-token", ""), sandbox.access_token):
        raise Fault(401, "unauthorized access: a valid X-Access-Token is required")


def check_file_access(request: Request, sandbox: Sandbox) -> None:
    """Let in who shows the access token or, instead of it, a valid signature.

    Raises:
        Fault: 401, neither is there, or what is there is wrong or expired.
    """
    token = sandbox.access_token
    if token is None:
        return
    if (given := request.headers.get("x-access-token")) is not None:
        if not same_secret(given, token):
            raise Fault(401, "access token present in header but does not match")
        return
    signature = request.query.get("signature")
    if signature is None:
        raise Fault(401, "missing signature query parameter")
    expiration = request.query.get("signature_expiration")
    if expiration is not None and not re.fullmatch(r"-?[0-9]{1,18}", expiration):
        raise Fault(401, "invalid signature expiration")
    if not same_secret(signature, expected_signature(request, token)):
        raise Fault(401, "invalid signature")
    if expiration is not None and int(expiration) < time.time():
        raise Fault(401, "signature is already expired")


def basic_user(request: Request) -> str | None:
    """The user that a request wants to be, by HTTP Basic with an ignored password; None for the default."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, _ = text.partition(":")
    return name or None if colon else None


def cors(request: Request) -> Headers:
    """What lets a web page read the answer."""
    if "origin" not in request.headers:
        return []
    return [("access-control-allow-origin", "*"), ("access-control-expose-headers", "*"), ("vary", "Origin")]


def preflight(request: Request) -> Headers | None:
    """The answer to a browser that asks first; None if this is no such question."""
    if request.method != "OPTIONS" or "access-control-request-method" not in request.headers:
        return None
    return [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", request.headers.get("access-control-request-headers", "*")),
        ("access-control-max-age", "7200"),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
