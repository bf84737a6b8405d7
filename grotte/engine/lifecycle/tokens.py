"""Whose access token is whose; looked up by digest, so that no timing tells tokens apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.lifecycle.store import REMEMBERED_TOKENS


class Tokens:
    """The access tokens of all sandboxes, and of those that ended last."""

    def __init__(self) -> None:
        self._live: dict[bytes, Sandbox] = {}
        self._ended: dict[bytes, str] = {}

    def enter(self, sandbox: Sandbox) -> None:
        """There is this sandbox from now on."""
        if sandbox.access_token:
            self._live[_digest(sandbox.access_token)] = sandbox

    def leave(self, sandbox: Sandbox) -> None:
        """It has ended."""
        if sandbox.access_token:
            self._live.pop(_digest(sandbox.access_token), None)
            self.remember([(sandbox.access_token, sandbox.sandbox_id)])

    def remember(self, ended: Iterable[tuple[str, str]]) -> None:
        """Tokens and ids of sandboxes that have ended, oldest first."""
        for token, sandbox_id in ended:
            self._ended[_digest(token)] = sandbox_id
        while len(self._ended) > REMEMBERED_TOKENS:
            del self._ended[next(iter(self._ended))]

    def find(self, token: str) -> Sandbox | None:
        """The sandbox whose token this is."""
        return self._live.get(_digest(token))

    def find_ended(self, token: str) -> str | None:
        """The id of the sandbox that had this token and ended not long ago."""
        return self._ended.get(_digest(token))

    def all(self) -> list[Sandbox]:
        """Sandboxes that have a token."""
        return list(self._live.values())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
