"""httpx with HTTP/2, on asyncio, trio and threads. It is what `grotte` 0.2.0 sends its requests through."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx

from benchmarks.transport.clients.protocol import require_ok
from benchmarks.transport.job import Job

#: As many connections as it wants, and time enough: what is measured must not be a limit of ours.
LIMITS = httpx.Limits(max_connections=4000, max_keepalive_connections=4000)
TIMEOUT = httpx.Timeout(60)


class HttpxClient:
    """An `httpx.AsyncClient`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, url: str) -> bytes:
        """See AsyncClient."""
        response = await self._client.get(url)
        require_ok(response.status_code)
        return response.content

    async def post(self, url: str, body: bytes) -> bytes:
        """See AsyncClient."""
        response = await self._client.post(url, content=body, headers={"content-type": "application/json"})
        require_ok(response.status_code)
        return response.content

    async def download(self, url: str) -> int:
        """See AsyncClient."""
        size = 0
        async with self._client.stream("GET", url) as response:
            require_ok(response.status_code)
            async for chunk in response.aiter_raw():
                size += len(chunk)
        return size

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """See AsyncClient."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield block

        response = await self._client.post(url, content=blocks())
        require_ok(response.status_code)

    @asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        """See AsyncClient."""
        async with self._client.stream("GET", url) as response:
            require_ok(response.status_code)
            await anext(response.aiter_raw())
            yield


@asynccontextmanager
async def open_async(job: Job) -> AsyncIterator[HttpxClient]:
    """A client for the running event loop."""
    context = ssl.create_default_context(cafile=job.ca)
    async with httpx.AsyncClient(http2=True, verify=context, limits=LIMITS, timeout=TIMEOUT, trust_env=False) as client:
        yield HttpxClient(client)


class HttpxSyncClient:
    """An `httpx.Client`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, url: str) -> bytes:
        """See SyncClient."""
        response = self._client.get(url)
        require_ok(response.status_code)
        return response.content


@contextmanager
def open_sync(job: Job) -> Iterator[HttpxSyncClient]:
    """A client for threads."""
    context = ssl.create_default_context(cafile=job.ca)
    with httpx.Client(http2=True, verify=context, limits=LIMITS, timeout=TIMEOUT, trust_env=False) as client:
        yield HttpxSyncClient(client)
