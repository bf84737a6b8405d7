"""pyqwest: Rust's reqwest on a runtime of its own. It is what `e2b` 2.63 sends its requests through; its settings are
e2b's, but that the system resolves names: its own resolver takes seconds for names of a hosts file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pyqwest

from benchmarks.transport.clients.protocol import require_ok
from benchmarks.transport.job import Job

IDLE_CONNECTIONS, CONNECTIONS = 20, 200


class PyqwestClient:
    """A `pyqwest.Client`."""

    def __init__(self, client: pyqwest.Client) -> None:
        self._client = client

    async def get(self, url: str) -> bytes:
        """See AsyncClient."""
        response = await self._client.get(url)
        require_ok(response.status)
        return bytes(response.content)

    async def post(self, url: str, body: bytes) -> bytes:
        """See AsyncClient."""
        response = await self._client.post(url, {"content-type": "application/json"}, body)
        require_ok(response.status)
        return bytes(response.content)

    async def download(self, url: str) -> int:
        """See AsyncClient."""
        size = 0
        async with self._client.stream("GET", url) as response:
            require_ok(response.status)
            async for chunk in response.content:
                size += len(chunk)
        return size

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """See AsyncClient."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield block

        response = await self._client.post(url, content=blocks())
        require_ok(response.status)

    @asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        """See AsyncClient."""
        async with self._client.stream("GET", url) as response:
            require_ok(response.status)
            await anext(aiter(response.content))
            yield


@asynccontextmanager
async def open_async(job: Job) -> AsyncIterator[PyqwestClient]:
    """A client for the running event loop."""
    transport = pyqwest.HTTPTransport(
        tls_ca_cert=job.ca_file.read_bytes(),
        pool_max_idle_per_host=IDLE_CONNECTIONS,
        max_connections_per_address=CONNECTIONS,
        use_system_dns=True,
        follow_redirects=False,
    )
    async with transport:
        yield PyqwestClient(pyqwest.Client(transport))


class PyqwestSyncClient:
    """A `pyqwest.SyncClient`."""

    def __init__(self, client: pyqwest.SyncClient) -> None:
        self._client = client

    def get(self, url: str) -> bytes:
        """See SyncClient."""
        response = self._client.get(url)
        require_ok(response.status)
        return bytes(response.content)


@contextmanager
def open_sync(job: Job) -> Iterator[PyqwestSyncClient]:
    """A client for threads."""
    transport = pyqwest.SyncHTTPTransport(
        tls_ca_cert=job.ca_file.read_bytes(),
        pool_max_idle_per_host=IDLE_CONNECTIONS,
        max_connections_per_address=CONNECTIONS,
        use_system_dns=True,
        follow_redirects=False,
    )
    with transport:
        yield PyqwestSyncClient(pyqwest.SyncClient(transport))
