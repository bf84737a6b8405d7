"""The files of one volume over HTTP: requests, answers, and what their failures mean."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from grotte._core.client import fetch_patiently, open_stream
from grotte._core.downloads import AsyncFileStreamReader
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._core.uploads import BULK, AsyncWriteData, body_of
from grotte._proto.failures import Context, api_failure, request_limit, transport_failure
from grotte._proto.http import split_url
from grotte._proto.transport_errors import TransportError
from grotte._proto.volumes import EntryStat
from grotte.config import VolumeConnectionConfig, user_agent
from grotte.errors import (
    ApiUnreachableException,
    GrotteException,
    NotEnoughSpaceException,
    VolumeException,
    VolumePathNotFoundException,
)

M = TypeVar("M")

_KINDS: dict[int, type[GrotteException]] = {
    400: VolumeException,
    404: VolumePathNotFoundException,
    507: NotEnoughSpaceException,
}


class AsyncVolumeContent:
    """The calls on the files of one volume, with the options of one call."""

    def __init__(self, volume_id: str, config: VolumeConnectionConfig) -> None:
        self._volume_id = volume_id
        self.config = config

    async def call(
        self, method: str, what: str, query: Mapping[str, str], kind: type[M], body: Struct | None = None
    ) -> M:
        """Ask for something that is answered in JSON; all of it may be repeated."""
        request = self._request(method, what, query, idempotent=True)
        if body is not None:
            request.headers.append(("Content-Type", "application/json"))
            request.body = msgspec.json.encode(body)
        return self._read(await self._fetch(request), kind, request)

    async def delete(self, query: Mapping[str, str]) -> None:
        """Remove what is at a path."""
        await self._fetch(self._request("DELETE", "path", query, idempotent=True))

    async def download(self, query: Mapping[str, str]) -> AsyncFileStreamReader:
        """Start to read a file."""
        request = self._request("GET", "file", query, idempotent=True)
        request.lane = "bulk"
        return await AsyncFileStreamReader.open(self, request, None)

    async def upload(self, query: Mapping[str, str], data: AsyncWriteData) -> EntryStat:
        """Write a file."""
        request = self._request("PUT", "file", query, idempotent=False)
        request.headers.append(("Content-Type", "application/octet-stream"))
        request.body = body_of(data)
        request.lane = "rpc" if isinstance(request.body, bytes) and len(request.body) <= BULK else "bulk"
        async with AsyncExitStack() as stack:
            response = await self.stream_http(stack, request, None)
            try:
                content = await response.aread()
            except TransportError as error:
                raise await self.lost(error, request, request_limit(self.config.timeout())) from error
        return self._read(content, EntryStat, request)

    # -- what a reader of files asks for -----------------------------------------------------------------------------

    async def stream_http(
        self, stack: AsyncExitStack, request: Request, request_timeout: float | None
    ) -> AsyncStreamResponse:
        """Send a request and return when the answer begins; an answer without success is raised."""
        timeout = self.config.timeout(request_timeout)
        try:
            response = await stack.enter_async_context(open_stream(request, deadline=None, idle_timeout=timeout))
            if response.status < 300:
                return response
            content = await response.aread()
        except TransportError as error:
            raise await self.lost(error, request, request_limit(timeout)) from error
        raise self._failure(response.status, content, request)

    async def lost(self, error: TransportError, request: Request, limit: str) -> GrotteException:
        """The exception for a request that got no complete answer."""
        return transport_failure(error, self.context_of(request), ApiUnreachableException, limit)

    def context_of(self, request: Request) -> Context:
        """What an exception says of a request."""
        return Context(f"{request.method} {request.target.partition('?')[0]}")

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _request(self, method: str, what: str, query: Mapping[str, str], *, idempotent: bool) -> Request:
        origin, base = split_url(self.config.api_url)
        target = f"{base.rstrip('/')}/volumecontent/{quote(self._volume_id, safe='')}/{what}"
        connection = self.config.connection
        headers = [*connection.headers.items(), ("User-Agent", user_agent())]
        if self.config.token is not None:
            headers.append(("Authorization", f"Bearer {self.config.token}"))
        return Request(
            method,
            origin,
            f"{target}?{urlencode(query, quote_via=quote)}",
            headers=headers,
            body=b"" if method == "POST" else None,
            coalesce="domain" if self.config.coalesce else "off",
            idempotent=idempotent,
            proxy=connection.proxy,
            transports=connection.transports,
        )

    async def _fetch(self, request: Request) -> bytes:
        response = await fetch_patiently(request, self.config.timeout(), self.context_of(request), idempotent=True)
        if response.status >= 300:
            raise self._failure(response.status, response.content, request)
        return response.content

    def _failure(self, status: int, content: bytes, request: Request) -> GrotteException:
        return api_failure(status, content, self.context_of(request), _KINDS, VolumeException)

    def _read(self, content: bytes, kind: type[M], request: Request) -> M:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.context_of(request).fail(VolumeException, f"the answer is not understood: {error}") from None
