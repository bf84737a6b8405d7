"""Who may do what: API keys of the control plane, access tokens of sandboxes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from grotte.engine.faults import ControlFault
from grotte.engine.http import Request


def new_api_key() -> str:
    return "grt_" + secrets.token_hex(20)


def new_access_token() -> str:
    return secrets.token_urlsafe(32)


def same_secret(given: str, expected: str) -> bool:
    """Compare in a time that says nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class Keyring:
    """The API keys of an engine; only their digests are kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def owner(self, request: Request) -> str:
        """The owner that a request's key stands for.

        Raises:
            ControlFault: 401, no key or not one of ours.
        """
        key = _key_of(request)
        if not key:
            raise ControlFault(401, "the API key is missing: send it as X-API-KEY")
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        # All are compared, always: the time does not tell which one was close.
        matches = [hmac.compare_digest(digest, ours) for ours in self._digests]
        if not any(matches):
            raise ControlFault(401, "the API key is not valid here")
        return _name(digest)

    def check_first(self, request: Request) -> None:
        """Let in the holder of the first key alone: whoever runs the engine.

        Raises:
            ControlFault: 401, no key or not one of ours; 403, another of ours.
        """
        if self.owner(request) != _name(self._digests[0]):
            raise ControlFault(403, "this is for the holder of the engine's first API key")


def _name(digest: bytes) -> str:
    """What an owner is called here."""
    return digest.hex()[:32]


def _key_of(request: Request) -> str:
    if key := request.headers.get("x-api-key", "").strip():
        return key
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
