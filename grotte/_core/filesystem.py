"""The files of a sandbox."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, overload

import msgspec

from grotte._core import _aio
from grotte._core.downloads import AsyncFileStreamReader
from grotte._core.exchange import Request
from grotte._core.rpc import AsyncEnvd, M
from grotte._core.uploads import BULK, AsyncChunks, AsyncStreamEntry, AsyncWriteData, body_of, compressed, content_of
from grotte._dual import accepts_old_names
from grotte._proto import arguments
from grotte._proto.entries import Uploaded, public_entry, read_uploaded
from grotte._proto.failures import request_limit
from grotte._proto.messages import (
    Empty,
    EntryResponse,
    ListDirRequest,
    ListDirResponse,
    Message,
    MoveRequest,
    PathRequest,
)
from grotte._proto.multipart import Multipart, can_name
from grotte._proto.transport_errors import TransportError
from grotte._proto.versions import OCTET_UPLOAD, at_least
from grotte.errors import FileNotFoundException, InvalidArgumentException, SandboxException
from grotte.models import EntryInfo, Username, WriteEntry

#: So many details are asked for at once after an upload.
WORKERS = 16
MAX_DEPTH = 2**31 - 1


class _AlreadyExists(SandboxException):
    """`make_dir` found a directory; never leaves this module."""


_KINDS = {"not_found": FileNotFoundException, "already_exists": _AlreadyExists}


class AsyncFilesystem:
    """`sandbox.filesystem`, also called `sandbox.files`.

    Paths are absolute, or start at the user's home; ``~`` is that, too.

    Example:
        ```python
        await sandbox.filesystem.write("/tmp/hello.txt", "world")
        print(await sandbox.filesystem.read("/tmp/hello.txt"))
        ```
    """

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    @overload
    async def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> str: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> bytes: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["stream"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> AsyncFileStreamReader: ...
    async def read(
        self,
        path: str,
        format: Literal["text", "bytes", "stream"] = "text",
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
    ) -> str | bytes | AsyncFileStreamReader:
        """Read a file.

        Args:
            path: Where it is.
            format: ``"text"`` (UTF-8, invalid bytes replaced), ``"bytes"``, or ``"stream"``: pieces of bytes as they
                arrive, to be iterated over; close it if it is not read to its end.
            user: Whose home relative paths start at; default: the template's user.
            request_timeout: How long the transfer may pause, in seconds; as a whole it may take as long as it likes.
            gzip: Compress it on its way.

        Raises:
            FileNotFoundException: there is no such file.
            InvalidArgumentException: it is a directory.

        Example:
            ```python
            async with await sandbox.files.read("/var/log/syslog", "stream") as pieces:
                async for piece in pieces:
                    print(len(piece))
            ```
        """
        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f"format must be 'text', 'bytes' or 'stream', not {format!r}")
        headers = [("Accept-Encoding", "gzip" if gzip else "identity")]
        request = self._envd.file_request("GET", _path(path), _user(user), headers)
        request.lane = "bulk"
        reader = await AsyncFileStreamReader.open(self._envd, request, request_timeout)
        if format == "stream":
            return reader
        async with reader:
            content = await reader.aread()
        return content if format == "bytes" else content.decode(errors="replace")

    async def write(
        self,
        path: str,
        data: AsyncWriteData,
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
    ) -> EntryInfo:
        """Write a file; the directories above it are made, and what was there is replaced.

        Args:
            path: Where.
            data: Text (written as UTF-8), bytes, a file, or an iterable of bytes; files and iterables are sent piece
                by piece.
            user: Who will own it; default: the template's user.
            request_timeout: How long the transfer may pause, in seconds; as a whole it may take as long as it likes.
            gzip: Compress it on its way.
            use_octet_stream: Send the bytes as they are (True) or as a form (False); default: what the sandbox
                understands, and streams as they are.

        Returns:
            The entry of the written file. A server that does not send it with its answer is asked once more.

        Raises:
            InvalidArgumentException: there is a directory.
            NotEnoughSpaceException: the disk is full.
        """
        path, user = _path(path), _user(user)
        body = body_of(data)
        if use_octet_stream is None:
            use_octet_stream = not isinstance(body, bytes) or at_least(self._envd.version, OCTET_UPLOAD)
        headers: list[tuple[str, str]] = []
        if not use_octet_stream:
            form = Multipart([("file", await content_of(data) if not isinstance(body, bytes) else body)])
            body = form.body()
            headers.append(("Content-Type", form.content_type))
        else:
            headers.append(("Content-Type", "application/octet-stream"))
        request = self._envd.file_request("POST", path, user, headers)
        entries = await self._upload(request, body, gzip, user, request_timeout)
        if len(entries) != 1:
            raise SandboxException(f"the server reports {len(entries)} files written", sandbox_id=self._envd.sandbox_id)
        return entries[0]

    async def write_files(
        self,
        files: Sequence[WriteEntry | AsyncStreamEntry],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
    ) -> builtins.list[EntryInfo]:
        """Write several files in one request; their contents are collected in memory first.

        Args:
            files: ``{"path": ..., "data": ...}`` of each; data as for `write`.
            user: As for `write`.
            request_timeout: As for `write`.
            gzip: As for `write`.
            use_octet_stream: True sends a request for each file.

        Returns:
            The entries, in the order of `files`.

        Raises:
            InvalidArgumentException: a path occurs twice, or is a directory.
        """
        wanted = [(_path(_item(file, "path")), _item(file, "data")) for file in files]
        user = _user(user)
        one_by_one = use_octet_stream or len(wanted) == 1 or not all(can_name(path) for path, _ in wanted)
        contents = [(path, await content_of(data)) for path, data in wanted]
        if one_by_one:
            return [
                await self.write(path, content, user, request_timeout, gzip, use_octet_stream)
                for path, content in contents
            ]
        if not contents:
            return []
        form = Multipart(contents)
        request = self._envd.file_request("POST", None, user, [("Content-Type", form.content_type)])
        return await self._upload(request, form.body(), gzip, user, request_timeout)

    async def list(
        self,
        path: str,
        depth: int | None = 1,
        user: Username | None = None,
        request_timeout: float | None = None,
    ) -> builtins.list[EntryInfo]:
        """List a directory.

        Args:
            path: The directory.
            depth: How many levels; 1 is the directory itself.
            user: Whose home relative paths start at.
            request_timeout: In seconds.

        Returns:
            Its files, directories and links; sockets and devices are left out.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is no directory.
        """
        levels = arguments.whole(1 if depth is None else depth, "depth", 1, MAX_DEPTH)
        request = ListDirRequest(path=_path(path), depth=levels)
        reply = await self._call("ListDir", request, ListDirResponse, user, request_timeout, idempotent=True)
        entries = [public_entry(entry) for entry in reply.entries]
        return [entry for entry in entries if entry.type is not None]

    async def exists(self, path: str, user: Username | None = None, request_timeout: float | None = None) -> bool:
        """Whether there is anything at a path.

        Args:
            path: Where.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
        """
        try:
            await self.get_info(path, user, request_timeout)
        except FileNotFoundException:
            return False
        return True

    async def get_info(
        self, path: str, user: Username | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """What is at a path.

        Args:
            path: Where.
            user: Whose home relative paths start at.
            request_timeout: In seconds.

        Raises:
            FileNotFoundException: nothing.
        """
        request = PathRequest(path=_path(path))
        reply = await self._call("Stat", request, EntryResponse, user, request_timeout, idempotent=True)
        return public_entry(reply.entry)

    async def make_dir(self, path: str, user: Username | None = None, request_timeout: float | None = None) -> bool:
        """Make a directory, and those above it.

        Args:
            path: Where.
            user: Who will own it.
            request_timeout: In seconds.

        Returns:
            True, or False if it was there already.

        Raises:
            InvalidArgumentException: something else is there.
        """
        try:
            await self._call("MakeDir", PathRequest(path=_path(path)), EntryResponse, user, request_timeout)
        except _AlreadyExists:
            return False
        return True

    @accepts_old_names(old_path="src", new_path="dst")
    async def rename(
        self, src: str, dst: str, user: Username | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """Rename or move a file or directory; a file that is there already is replaced.

        Args:
            src: What.
            dst: Where to; directories above it are made.
            user: Whose home relative paths start at.
            request_timeout: In seconds.

        Raises:
            FileNotFoundException: there is no such file or directory.
        """
        request = MoveRequest(source=_path(src, "src"), destination=_path(dst, "dst"))
        reply = await self._call("Move", request, EntryResponse, user, request_timeout)
        return public_entry(reply.entry)

    async def remove(self, path: str, user: Username | None = None, request_timeout: float | None = None) -> None:
        """Remove a file, or a directory with all that is in it; what is not there is no error.

        Args:
            path: What.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
        """
        await self._call("Remove", PathRequest(path=_path(path)), Empty, user, request_timeout, idempotent=True)

    async def _call(
        self,
        method: str,
        message: Message,
        reply: type[M],
        user: str | None,
        request_timeout: float | None,
        *,
        idempotent: bool = False,
    ) -> M:
        return await self._envd.unary(
            f"filesystem.Filesystem/{method}",
            message,
            reply,
            user=_user(user),
            request_timeout=request_timeout,
            idempotent=idempotent,
            kinds=_KINDS,
        )

    async def _upload(
        self,
        request: Request,
        body: bytes | AsyncChunks,
        gzip: bool,
        user: str | None,
        request_timeout: float | None,
    ) -> builtins.list[EntryInfo]:
        # ours answers with whole entries when asked; the others do not know the header
        request.headers.append(("Grotte-Entry-Info", "1"))
        if gzip:
            body = compressed(body)
            request.headers.append(("Content-Encoding", "gzip"))
        request.body = body
        request.lane = "rpc" if isinstance(body, bytes) and len(body) <= BULK else "bulk"
        content = await self._post(request, request_timeout)
        try:
            uploaded = read_uploaded(content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            text = f"the answer is not understood: {error}"
            raise self._envd.context_of(request).fail(SandboxException, text) from None
        return await self._complete(uploaded, user, request_timeout)

    async def _post(self, request: Request, request_timeout: float | None) -> bytes:
        async with AsyncExitStack() as stack:
            response = await self._envd.stream_http(stack, request, request_timeout)
            try:
                return await response.aread()
            except TransportError as error:
                limit = request_limit(self._envd.config.timeout(request_timeout))
                raise await self._envd.lost(error, request, limit) from error
        raise AssertionError("unreachable: the stack swallows nothing")

    async def _complete(
        self, uploaded: builtins.list[Uploaded], user: str | None, request_timeout: float | None
    ) -> builtins.list[EntryInfo]:
        """The entries of what was written; a few askers share what the server did not tell."""
        found = [public_entry(item.entry) if item.entry else None for item in uploaded]
        missing = [index for index, entry in enumerate(found) if entry is None]
        queue = builtins.list(missing)

        async def ask() -> None:
            while queue:
                index = queue.pop()
                found[index] = await self.get_info(uploaded[index].path, user, request_timeout)

        if len(missing) == 1:
            await ask()
        elif missing:
            async with _aio.open_nursery() as nursery:
                for _ in range(min(WORKERS, len(missing))):
                    nursery.start_soon(ask)
        return [entry for entry in found if entry is not None]


def _item(file: object, name: Literal["path", "data"]) -> Any:
    if not isinstance(file, Mapping) or name not in file:
        raise InvalidArgumentException("each of files must be a dict with 'path' and 'data'")
    return file[name]


def _path(path: str, name: str = "path") -> str:
    return arguments.text(path, name)


def _user(user: str | None) -> str | None:
    return None if user is None else arguments.user_name(user)
