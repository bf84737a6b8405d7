"""`POST /files`: bytes into files, straight from the socket, each file whole or not at all."""

from __future__ import annotations

import errno
import os
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Literal

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from grotte.engine.data.filesystem_service import check_path
from grotte.engine.data.multipart import PartBegin, PartData, PartEnd, read_parts
from grotte.engine.faults import Fault, RpcFault
from grotte.engine.host import Guest, GuestError, UploadSlot
from grotte.engine.http import Request

#: How much is collected before it is written.
PIECE = 1024 * 1024
#: How long undoing may take, in seconds.
ABORT_GRACE = 10.0
METADATA_HEADER = "x-metadata-"
#: How many files one request may hold.
MAX_FILES = 50_000
#: What the attributes' names begin with; the limits count it.
METADATA_PREFIX = "user.e2b."
MAX_METADATA_KEY = 246
MAX_METADATA = 4096
_GZIP = 16 + zlib.MAX_WBITS


class WriteInfo(msgspec.Struct, omit_defaults=True):
    """A written file; old clients refuse every field that they do not know."""

    path: str
    name: str
    type: Literal["file"] | None = None
    metadata: dict[str, str] = {}


class Upload:
    """The files of one request; what is not committed at the end is undone."""

    def __init__(self, guest: Guest, user: str, metadata: dict[str, str]) -> None:
        self._guest = guest
        self._user = user
        self._metadata = metadata
        self._open: deque[tuple[UploadSlot, Writer]] = deque()
        self._paths: set[str] = set()
        #: Where pieces are written while the next ones come in; it ends before anything is committed or undone.
        self.behind: TaskGroup | None = None

    async def open(self, path: str) -> Writer:
        """Start a file.

        Raises:
            Fault: 400, the path cannot be, or was given twice, or there are too many.
            GuestError: the sandbox refused it.
        """
        try:
            check_path(path)
        except RpcFault as fault:
            raise Fault(400, fault.message) from None
        if len(self._open) >= MAX_FILES:
            raise Fault(400, f"you cannot upload more than {MAX_FILES} files at once")
        slot = await self._guest.open_write(path, self._user, self._metadata)
        twice = slot.path in self._paths
        self._paths.add(slot.path)
        writer = Writer(slot.fd, self._take, self.behind)
        self._open.append((slot, writer))
        if twice:
            raise Fault(400, f"you cannot upload multiple files to the same path '{slot.path}'")
        return writer

    def _take(self, size: int) -> None:
        if self._guest.closed.is_set():  # whoever is still sending need not send all
            raise GuestError("unavailable", "the sandbox is gone")
        self._guest.quota.take(size)

    async def commit(self) -> list[WriteInfo]:
        """Put all files in their places, in the order in which they came."""
        written = []
        while self._open:
            slot, _ = self._open[0]
            await self._guest.commit(slot)
            self._open.popleft()
            written.append(WriteInfo(slot.path, os.path.basename(slot.path), "file", self._metadata))
        return written

    async def abort(self) -> None:
        """Undo what is not committed."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(ABORT_GRACE):
            for slot, writer in self._open:
                writer.close()
                with suppress(GuestError):  # it is forgotten already where it was refused in the end
                    await self._guest.abort(slot)


class Writer:
    """Collects a file's bytes and writes them in large pieces, in a thread.

    Args:
        fd: The file.
        take: Called before so many bytes are written; raises what keeps them from being.
        behind: Where a piece is written while the next one comes in; None: that waits. It must have ended before the
            file is closed.
    """

    def __init__(self, fd: int, take: Callable[[int], None], behind: TaskGroup | None = None) -> None:
        self._fd: int | None = fd
        self._take = take
        self._behind = behind
        self._written: anyio.Event | None = None
        self._failure: OSError | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    async def add(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Fault: 507, the disk is full; 500, writing failed otherwise.
        """
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            await self._flush()

    async def end(self) -> None:
        """Write what is left; nothing more comes."""
        await self._flush()
        await self._settle()
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    async def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        size, self._size = self._size, 0
        if self._fd is None or not size:
            return
        await self._settle()
        self._take(size)
        if size < PIECE:
            self._write_now(self._fd, pieces)
        elif self._behind is None:
            await to_thread.run_sync(self._write_now, self._fd, pieces)
        else:
            self._written = anyio.Event()
            self._behind.start_soon(self._write_behind, self._fd, pieces)
        self._check()

    async def _settle(self) -> None:
        """Wait for the piece that is being written."""
        if self._written is not None:
            await self._written.wait()
            self._written = None
            self._check()

    async def _write_behind(self, fd: int, pieces: list[bytes]) -> None:
        assert self._written is not None
        try:
            await to_thread.run_sync(self._write_now, fd, pieces)
        finally:
            self._written.set()

    def _write_now(self, fd: int, pieces: list[bytes]) -> None:
        try:
            _write_all(fd, pieces)
        except OSError as error:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            if self._failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Fault(507, "not enough disk space available")
            raise Fault(500, f"error writing file: {self._failure.strerror}")


def _write_all(fd: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


async def receive_files(request: Request, guest: Guest, user: str) -> list[WriteInfo]:
    """Take the files of a request.

    Raises:
        Fault: 400 for a request that makes no sense, 507 for a full disk.
        GuestError: the sandbox refused a path.
        ClientGone: the client left in the middle; nothing was changed.
    """
    body = _decoded(request)
    receive = _RECEIVERS.get(request.media_type)
    if receive is None:
        raise Fault(400, "unsupported content type: send multipart/form-data or application/octet-stream")
    upload = Upload(guest, user, read_metadata(request))
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as upload.behind:
            try:
                await receive(request, body, upload)
            except Exception as error:  # noqa: BLE001 - raised below, as itself and not in a group
                failure = error
        if failure is not None:
            raise failure
        return await upload.commit()
    finally:
        failure = None  # its traceback holds this frame
        await upload.abort()


def read_metadata(request: Request) -> dict[str, str]:
    """The metadata that a request's headers give its files.

    Raises:
        Fault: 400, it is too long, or not printable.
    """
    found = {
        name.removeprefix(METADATA_HEADER): value
        for name, value in request.headers.items()
        if name.startswith(METADATA_HEADER)
    }
    for key, value in found.items():
        if not 0 < len(key) <= MAX_METADATA_KEY:
            raise Fault(400, f"a metadata key must have 1 to {MAX_METADATA_KEY} bytes")
        if not (value.isascii() and value.isprintable()):
            raise Fault(400, "metadata must be printable ASCII")
    if sum(len(METADATA_PREFIX) + len(key) + len(value) for key, value in found.items()) > MAX_METADATA:
        raise Fault(400, f"metadata must not take more than {MAX_METADATA} bytes")
    return found


async def _receive_octets(request: Request, body: AsyncIterator[bytes], upload: Upload) -> None:
    path = request.query.get("path")
    if not path:
        raise Fault(400, "the query parameter 'path' is required for application/octet-stream")
    writer = await upload.open(path)
    async for chunk in body:
        await writer.add(chunk)
    await writer.end()


async def _receive_parts(request: Request, body: AsyncIterator[bytes], upload: Upload) -> None:
    writer: Writer | None = None
    async for event in read_parts(request.headers["content-type"], body):
        match event:
            case PartBegin("file", filename):
                path = request.query.get("path") or filename
                if not path:
                    raise Fault(400, "a file part has no file name, and the query has no path")
                writer = await upload.open(path)
            case PartData(data) if writer:
                await writer.add(data)
            case PartEnd() if writer:
                await writer.end()
                writer = None


_Receiver = Callable[[Request, AsyncIterator[bytes], Upload], Awaitable[None]]
_RECEIVERS: dict[str, _Receiver] = {
    "application/octet-stream": _receive_octets,
    "multipart/form-data": _receive_parts,
}


def _decoded(request: Request) -> AsyncIterator[bytes]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return request.chunks()
    if encoding != "gzip":
        raise Fault(400, "unsupported content encoding: send identity or gzip")
    return _unpacked(request.chunks())


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Inflate in pieces of bounded size, whatever the body claims to be."""
    unpacker = zlib.decompressobj(_GZIP)
    fresh = empty = True
    try:
        async for chunk in chunks:
            more = True
            empty = empty and not chunk
            while more:
                # Off the event loop: a small chunk may unpack to a lot.
                piece = await to_thread.run_sync(unpacker.decompress, chunk, PIECE)
                if piece:
                    yield piece
                fresh, chunk = False, unpacker.unconsumed_tail
                if unpacker.eof:
                    chunk = unpacker.unused_data
                    unpacker, fresh = zlib.decompressobj(_GZIP), True
                # A full piece may have left output inside although all input is consumed.
                more = bool(chunk) or (len(piece) == PIECE and not fresh)
    except zlib.error:
        raise Fault(400, "the body is not valid gzip") from None
    if empty or not fresh:
        raise Fault(400, "the gzip body ended too early")
