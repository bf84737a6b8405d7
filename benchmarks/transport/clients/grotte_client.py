"""Ours: `grotte._core.transport`, and its generated twin for threads."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from benchmarks.transport.clients.protocol import require_ok
from benchmarks.transport.job import Job
from grotte._core import _aio
from grotte._core.transport import AsyncTransport, Request
from grotte._proto.http import Origin
from grotte._proto.options import TransportOptions

SECONDS = 60.0


@functools.lru_cache(maxsize=1024)
def split(url: str) -> tuple[Origin, str]:
    """Origin and target: the layers above keep them apart, so that no URL is parsed per request."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Origin(parts.scheme, parts.hostname, parts.port), parts.path


def options(job: Job) -> TransportOptions:
    """The defaults, but for trust and for as many connections as very many held streams need."""
    context = ssl.create_default_context(cafile=job.ca)
    if job.scenario.kind == "beside":
        return TransportOptions(ssl_context=context, max_connections=job.scenario.amount // 50)
    return TransportOptions(ssl_context=context)


class GrotteClient:
    """Our async transport."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, url: str) -> bytes:
        """See AsyncClient."""
        origin, target = split(url)
        request = Request("GET", origin, target, coalesce="domain")
        response = await self._transport.fetch(request, deadline=_aio.clock() + SECONDS)
        require_ok(response.status)
        return response.content

    async def post(self, url: str, body: bytes) -> bytes:
        """See AsyncClient."""
        origin, target = split(url)
        request = Request("POST", origin, target, [("content-type", "application/json")], body, coalesce="domain")
        response = await self._transport.fetch(request, deadline=_aio.clock() + SECONDS)
        require_ok(response.status)
        return response.content

    async def download(self, url: str) -> int:
        """See AsyncClient."""
        origin, target = split(url)
        size = 0
        request = Request("GET", origin, target, lane="bulk", coalesce="domain")
        async with self._transport.stream(request, deadline=_aio.clock() + SECONDS) as response:
            require_ok(response.status)
            async for chunk in response:
                size += len(chunk)
        return size

    async def upload(self, url: str, block: bytes, count: int) -> None:
        """See AsyncClient."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield block

        origin, target = split(url)
        request = Request("POST", origin, target, body=blocks(), lane="bulk", coalesce="domain")
        response = await self._transport.fetch(request, deadline=_aio.clock() + SECONDS)
        require_ok(response.status)

    @asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        """See AsyncClient."""
        origin, target = split(url)
        async with self._transport.stream(Request("GET", origin, target, coalesce="domain"), deadline=None) as response:
            require_ok(response.status)
            await anext(response)
            yield


@asynccontextmanager
async def open_async(job: Job) -> AsyncIterator[GrotteClient]:
    """A client for the running event loop."""
    async with AsyncTransport(options(job)) as transport:
        yield GrotteClient(transport)


class GrotteSyncClient:
    """Our sync transport, shared by all threads."""

    def __init__(self, job: Job) -> None:
        from grotte._sync import _sio
        from grotte._sync import transport as twin

        self._clock, self._request = _sio.clock, twin.Request
        self._transport = twin.Transport(options(job))

    def get(self, url: str) -> bytes:
        """See SyncClient."""
        origin, target = split(url)
        request = self._request("GET", origin, target, coalesce="domain")
        response = self._transport.fetch(request, deadline=self._clock() + SECONDS)
        require_ok(response.status)
        return response.content

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


@contextmanager
def open_sync(job: Job) -> Iterator[GrotteSyncClient]:
    """A client for threads."""
    client = GrotteSyncClient(job)
    try:
        yield client
    finally:
        client.close()
