"""niquests, multiplexed: an answer is a promise until `gather` has fetched it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import niquests

from benchmarks.transport.clients.protocol import require_ok
from benchmarks.transport.job import Job

POOL = 512
SECONDS = 60.0


class NiquestsClient:
    """A `niquests.AsyncSession`."""

    def __init__(self, session: niquests.AsyncSession) -> None:
        self._session = session

    async def get(self, url: str) -> bytes:
        """See AsyncClient."""
        response = await self._session.get(url)
        await self._session.gather(response)
        require_ok(response.status_code)
        return response.content or b""

    async def post(self, url: str, body: bytes) -> bytes:
        """See AsyncClient."""
        response = await self._session.post(url, data=body, headers={"content-type": "application/json"})
        await self._session.gather(response)
        require_ok(response.status_code)
        return response.content or b""

    async def download(self, url: str) -> int:
        """See AsyncClient."""
        size = 0
        response = await self._session.get(url, stream=True)
        await self._session.gather(response)
        require_ok(response.status_code)
        async for chunk in await response.iter_content(-1):
            size += len(chunk)
        return size

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """See AsyncClient."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield block

        response = await self._session.post(url, data=blocks())
        await self._session.gather(response)
        require_ok(response.status_code)

    @asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        """See AsyncClient."""
        response = await self._session.get(url, stream=True)
        await self._session.gather(response)
        require_ok(response.status_code)
        await anext(await response.iter_content(-1))
        try:
            yield
        finally:
            await response.close()


@asynccontextmanager
async def open_async(job: Job) -> AsyncIterator[NiquestsClient]:
    """A client for the running event loop."""
    async with niquests.AsyncSession(
        multiplexed=True, disable_http3=True, pool_connections=POOL, pool_maxsize=POOL, timeout=SECONDS
    ) as session:
        session.verify = job.ca
        session.trust_env = False
        yield NiquestsClient(session)


class NiquestsSyncClient:
    """A `niquests.Session`, in its plain form: it gives each thread what it asked for."""

    def __init__(self, session: niquests.Session) -> None:
        self._session = session

    def get(self, url: str) -> bytes:
        """See SyncClient."""
        response = self._session.get(url)
        require_ok(response.status_code)
        return response.content or b""


@contextmanager
def open_sync(job: Job) -> Iterator[NiquestsSyncClient]:
    """A client for threads."""
    with niquests.Session(disable_http3=True, pool_connections=POOL, pool_maxsize=POOL, timeout=SECONDS) as session:
        session.verify = job.ca
        session.trust_env = False
        yield NiquestsSyncClient(session)
