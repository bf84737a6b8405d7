"""A file of a sandbox or a volume on its way to this machine."""

from __future__ import annotations

import io
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from grotte._core.client import transport_of
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._core.uploads import GZIP_WINDOW
from grotte._proto.failures import Context, request_limit
from grotte._proto.pinned import Pinned
from grotte._proto.transport_errors import TransportError
from grotte.config import TimeLimits
from grotte.errors import GrotteException, SandboxException

#: No more than this is unpacked at a time, however well it was packed.
PIECE = 1024 * 1024


class AsyncFileSource(Protocol):
    """Where files are read from: a sandbox's agent, or a volume."""

    @property
    def config(self) -> TimeLimits:
        """Its time limits."""

    async def stream_http(
        self, stack: AsyncExitStack, request: Request, request_timeout: float | None
    ) -> AsyncStreamResponse:
        """Send a request and return when the answer begins; an answer without success is raised."""

    async def lost(self, error: TransportError, request: Request, limit: str) -> GrotteException:
        """The exception for an answer that is not complete."""

    def context_of(self, request: Request) -> Context:
        """What an exception says of a request."""


class AsyncFileStreamReader(Pinned):
    """The pieces of a file as they arrive. Read it to its end, or close it: `async with` does.

    Example:
        ```python
        async with await sandbox.files.read("/data.bin", "stream") as pieces:
            async for piece in pieces:
                print(len(piece))
        ```
    """

    _instead = "it is a transfer under way; read the file, and pass on what it holds"

    def __init__(
        self,
        source: AsyncFileSource,
        stack: AsyncExitStack,
        request: Request,
        response: AsyncStreamResponse,
        request_timeout: float | None,
    ) -> None:
        self._source = source
        self._stack = stack
        self._request = request
        self._response = response
        self._request_timeout = request_timeout
        self._transport = transport_of(request)
        packed = response.headers.get("content-encoding", "identity") == "gzip"
        self._unpacker = zlib.decompressobj(wbits=GZIP_WINDOW) if packed else None
        self._closed = False

    def __repr__(self) -> str:
        context = self._source.context_of(self._request)
        where = f"sandbox_id={context.sandbox_id!r}, " if context.sandbox_id else ""
        return f"{type(self).__name__}({where}closed={self._closed})"

    @classmethod
    async def open(
        cls, source: AsyncFileSource, request: Request, request_timeout: float | None
    ) -> AsyncFileStreamReader:
        """Send the request, and return when the file begins."""
        async with AsyncExitStack() as stack:
            response = await source.stream_http(stack, request, request_timeout)
            return cls(source, stack.pop_all(), request, response, request_timeout)
        raise AssertionError("unreachable: the stack swallows nothing")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        while True:
            piece = self._unpacked(b"") or self._unpacked(await self._next())
            if piece:
                return piece

    async def _next(self) -> bytes:
        if transport_of(self._request) is not self._transport:
            context = self._source.context_of(self._request)
            raise context.fail(
                SandboxException, "the transfer belongs to another event loop: read the file in this one"
            )
        try:
            return await anext(self._response)
        except StopAsyncIteration:
            await self.aclose()
            if self._unpacker is not None and not self._unpacker.eof:
                context = self._source.context_of(self._request)
                raise context.fail(SandboxException, "the compressed file ended early") from None
            raise
        except TransportError as error:
            await self.aclose()
            limit = request_limit(self._source.config.timeout(self._request_timeout))
            raise await self._source.lost(error, self._request, limit) from error

    def _unpacked(self, packed: bytes) -> bytes:
        if self._unpacker is None:
            return packed
        try:
            return self._unpacker.decompress(self._unpacker.unconsumed_tail + packed, PIECE)
        except zlib.error as error:
            context = self._source.context_of(self._request)
            raise context.fail(SandboxException, f"the compressed file is damaged: {error}") from None

    async def aread(self) -> bytes:
        """What is left of the file.

        Example:
            ```python
            async with await sandbox.files.read("/etc/passwd", "stream") as pieces:
                print(len(await pieces.aread()))
            ```
        """
        content = io.BytesIO()  # which hands out what it holds without another copy
        async for piece in self:
            content.write(piece)
        return content.getvalue()

    async def aclose(self) -> None:
        """End the transfer; may be called more than once.

        Example:
            ```python
            pieces = await sandbox.files.read("/etc/passwd", "stream")
            first = await anext(pieces)
            await pieces.aclose()
            ```
        """
        self._closed = True
        if not self._transport.is_elsewhere():  # there it ends once nobody holds it any more
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
