"""What the benchmark asks of a client library; each adapter does it as the library's own documentation recommends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class AsyncClient(Protocol):
    """One client object for all requests of a job. A status other than 200 raises."""

    async def get(self, url: str) -> bytes:
        """GET, the whole body."""

    async def post(self, url: str, body: bytes) -> bytes:
        """POST a small body, the whole answer."""

    async def download(self, url: str) -> int:
        """GET a large body piece by piece; return its size."""

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """POST `count` times `block`, piece by piece."""

    def hold(self, url: str) -> AbstractAsyncContextManager[None]:
        """GET an answer that does not end; enter when its first byte is there, give it up on leaving."""


class SyncClient(Protocol):
    """One client object for all threads."""

    def get(self, url: str) -> bytes:
        """GET, the whole body; a status other than 200 raises."""


class BadStatus(Exception):
    """The answer's status is not 200."""


def require_ok(status: int | None) -> None:
    """Raise unless the status is 200."""
    if status != 200:
        raise BadStatus(f"status {status}")
