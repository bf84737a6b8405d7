"""aiohttp: HTTP/1.1, a connection for each request in flight, on asyncio and uvloop."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.transport.clients.protocol import require_ok
from benchmarks.transport.job import Job


class AiohttpClient:
    """An `aiohttp.ClientSession`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, url: str) -> bytes:
        """See AsyncClient."""
        async with self._session.get(url) as response:
            require_ok(response.status)
            content: bytes = await response.read()
            return content

    async def post(self, url: str, body: bytes) -> bytes:
        """See AsyncClient."""
        async with self._session.post(url, data=body, headers={"content-type": "application/json"}) as response:
            require_ok(response.status)
            content: bytes = await response.read()
            return content

    async def download(self, url: str) -> int:
        """See AsyncClient."""
        size = 0
        async with self._session.get(url) as response:
            require_ok(response.status)
            async for chunk in response.content.iter_any():
                size += len(chunk)
        return size

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """See AsyncClient."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield block

        async with self._session.post(url, data=blocks()) as response:
            require_ok(response.status)
            await response.read()

    @asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        """See AsyncClient."""
        async with self._session.get(url) as response:
            require_ok(response.status)
            await response.content.readany()
            yield


@asynccontextmanager
async def open_async(job: Job) -> AsyncIterator[AiohttpClient]:
    """A client for the running event loop."""
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=job.ca))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield AiohttpClient(session)
