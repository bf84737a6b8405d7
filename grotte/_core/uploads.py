"""What can be written to a file in a sandbox, as the body of a request."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import IO, TypeAlias, TypedDict

from grotte._core import _aio
from grotte._proto.arguments import text_bytes
from grotte.errors import InvalidArgumentException

AsyncChunks: TypeAlias = AsyncIterable[bytes]
AsyncWriteData: TypeAlias = str | bytes | bytearray | memoryview | IO[bytes] | IO[str] | Iterable[bytes] | AsyncChunks

#: How much of a file is read at a time; and where all that is read is sent as it is: each read takes a thread.
PIECE = 256 * 1024
LARGE_PIECE = 1024 * 1024
#: Larger bodies travel beside the short calls, not among them.
BULK = 256 * 1024
#: zlib's name for a gzip header around its best window.
GZIP_WINDOW = 16 + zlib.MAX_WBITS


class AsyncStreamEntry(TypedDict):
    """One file for `write_files`, of which the content may be anything that `write` takes."""

    path: str
    data: AsyncWriteData


def body_of(data: object) -> bytes | AsyncChunks:
    """The body for some data.

    Raises:
        InvalidArgumentException: it is nothing that can be written.
    """
    if isinstance(data, str):
        return text_bytes(data)
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    read = getattr(data, "read", None)
    if callable(read):
        return AsyncFilePieces(read)
    ordered = not isinstance(data, Mapping | AbstractSet)
    if ordered and hasattr(data, "__aiter__"):
        return AsyncPieces(aiter(data))
    if ordered and isinstance(data, Iterable):
        return AsyncItems(data)
    raise InvalidArgumentException(
        f"data must be str, bytes, a file or an iterable of bytes, not {type(data).__name__}"
    )


async def content_of(data: object) -> bytes:
    """All of some data, in memory."""
    body = body_of(data)
    if isinstance(body, bytes):
        return body
    pieces = []
    async for piece in body:
        pieces.append(piece)  # noqa: PERF401 - the sync tree has no async comprehension
    return b"".join(pieces)


def compressed(body: bytes | AsyncChunks) -> bytes | AsyncChunks:
    """The same in gzip form."""
    if isinstance(body, bytes):
        packer = zlib.compressobj(wbits=GZIP_WINDOW)
        return packer.compress(body) + packer.flush()
    return AsyncGzip(body)


def checked(piece: object) -> bytes:
    """A piece of a body: bytes, or text of a file that was opened as text."""
    if isinstance(piece, str):
        return text_bytes(piece)
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise InvalidArgumentException(f"the pieces of data must be bytes, not {type(piece).__name__}")


class AsyncFilePieces:
    """A file of this machine, read beside the event loop; empty pieces end it."""

    def __init__(self, read: Callable[[int], object]) -> None:
        self._read = read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = checked(await _aio.run_in_thread(self._read, LARGE_PIECE))
        if not piece:
            raise StopAsyncIteration
        return piece


class AsyncPieces:
    """An async iterable of bytes."""

    def __init__(self, pieces: AsyncIterator[object]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return checked(await anext(self._pieces))


class AsyncItems:
    """An iterable of bytes."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items.__iter__()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for item in self._items:
            return checked(item)
        raise StopAsyncIteration


class AsyncGzip:
    """Another body, compressed on its way."""

    def __init__(self, body: AsyncChunks) -> None:
        self._body = aiter(body)
        self._packer = zlib.compressobj(wbits=GZIP_WINDOW)
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                piece = self._packer.compress(await anext(self._body))
            except StopAsyncIteration:
                self._ended = True
                piece = self._packer.flush()
            if piece:
                return piece
        raise StopAsyncIteration
