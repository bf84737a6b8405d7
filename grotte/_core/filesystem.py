"""The files of a sandbox."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import msgspec

from grotte._core import _aio
from grotte._core.commands import AsyncCommands
from grotte._core.downloads import AsyncFileStreamReader
from grotte._core.entries import AsyncEntries, checked_path, checked_user
from grotte._core.exchange import Request
from grotte._core.transfers import AsyncTransfer
from grotte._core.uploads import BULK, AsyncChunks, AsyncStreamEntry, AsyncWriteData, body_of, compressed, content_of
from grotte._core.watchable import AsyncWatchable
from grotte._proto import arguments
from grotte._proto.calls import CallParams, check_call
from grotte._proto.entries import Uploaded, public_entry, read_uploaded
from grotte._proto.failures import request_limit
from grotte._proto.file_metadata import metadata_headers
from grotte._proto.multipart import Multipart, can_name
from grotte._proto.transport_errors import TransportError
from grotte._proto.versions import FILE_METADATA, OCTET_UPLOAD, at_least
from grotte.errors import InvalidArgumentException, SandboxException, TemplateException
from grotte.models import EntryInfo, TransferProgress, Username, WriteEntry

#: So many details are asked for at once after an upload.
WORKERS = 16


class AsyncFilesystem(AsyncEntries, AsyncWatchable):
    """`sandbox.filesystem`, also called `sandbox.files`.

    Paths are absolute, or start at the user's home; ``~`` is that, too.

    Example:
        ```python
        await sandbox.filesystem.write("/tmp/hello.txt", "world")
        print(await sandbox.filesystem.read("/tmp/hello.txt"))
        ```
    """

    @overload
    async def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        **call: Unpack[CallParams],
    ) -> str: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        **call: Unpack[CallParams],
    ) -> bytes: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["stream"],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        **call: Unpack[CallParams],
    ) -> AsyncFileStreamReader: ...
    async def read(
        self,
        path: str,
        format: Literal["text", "bytes", "stream"] = "text",
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        **call: Unpack[CallParams],
    ) -> str | bytes | AsyncFileStreamReader:
        """Read a file.

        Args:
            path: Where it is.
            format: ``"text"`` (UTF-8, invalid bytes replaced), ``"bytes"``, or ``"stream"``: pieces of bytes as they
                arrive, to be iterated over; close it if it is not read to its end.
            user: Whose home relative paths start at; default: the template's user.
            request_timeout: How long the transfer may pause, in seconds; as a whole it may take as long as it likes.
            gzip: Compress it on its way.
            **call: See `CallParams`.

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
        check_call(call)
        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f"format must be 'text', 'bytes' or 'stream', not {arguments.shown(format)}")
        headers = [("Accept-Encoding", "gzip" if gzip else "identity")]
        request = self._envd.file_request("GET", checked_path(path), checked_user(user), headers)
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
        metadata: Mapping[str, str] | None = None,
        **call: Unpack[CallParams],
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
            metadata: Pairs that are stored with it, in place of those that were; keys become lower-case.
            **call: See `CallParams`.

        Returns:
            The entry of the written file. A server that does not send it with its answer is asked once more.

        Raises:
            InvalidArgumentException: there is a directory.
            NotEnoughSpaceException: the disk is full.
            TemplateException: the sandbox's agent is too old for metadata.

        Example:
            ```python
            entry = await sandbox.files.write("notes/today.txt", "text or bytes")
            print(entry.path, entry.size)  # /home/user/notes/today.txt 13
            ```
        """
        check_call(call)
        path, user = checked_path(path), checked_user(user)
        body = body_of(data)
        if use_octet_stream is None:
            use_octet_stream = not isinstance(body, bytes) or at_least(self._envd.version, OCTET_UPLOAD)
        headers = self._metadata_headers(metadata)
        if not use_octet_stream:
            form = Multipart([("file", await content_of(data) if not isinstance(body, bytes) else body)])
            body = form.body()
            headers.append(("Content-Type", form.content_type))
        else:
            headers.append(("Content-Type", "application/octet-stream"))
        request = self._envd.file_request("POST", path, user, headers)
        entries = await self._upload(request, body, gzip, user, request_timeout)
        if len(entries) != 1:
            text = f"the server reports {len(entries)} files written, not one"
            raise self._envd.context_of(request).fail(SandboxException, text)
        return entries[0]

    async def write_files(
        self,
        files: Sequence[WriteEntry | AsyncStreamEntry],
        user: Username | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        **call: Unpack[CallParams],
    ) -> builtins.list[EntryInfo]:
        """Write several files in one request; their contents are collected in memory first.

        Args:
            files: ``{"path": ..., "data": ...}`` of each; data as for `write`.
            user: As for `write`.
            request_timeout: As for `write`.
            gzip: As for `write`.
            use_octet_stream: True sends a request for each file.
            metadata: As for `write`, for each of the files.
            **call: See `CallParams`.

        Returns:
            The entries, in the order of `files`.

        Raises:
            InvalidArgumentException: a path occurs twice, or is a directory.

        Example:
            ```python
            files = [{"path": "/tmp/a", "data": "text"}, {"path": "/tmp/b", "data": b"bytes"}]
            for entry in await sandbox.files.write_files(files):
                print(entry.path)
            ```
        """
        check_call(call)
        if isinstance(files, str | Mapping) or not isinstance(files, Iterable):
            raise InvalidArgumentException(f"files must be a list of dicts, not {type(files).__name__}")
        wanted = [(checked_path(_item(file, "path")), _item(file, "data")) for file in files]
        user, headers = checked_user(user), self._metadata_headers(metadata)
        one_by_one = use_octet_stream or len(wanted) == 1 or not all(can_name(path) for path, _ in wanted)
        contents = [(path, await content_of(data)) for path, data in wanted]
        if one_by_one:
            return [
                await self.write(path, content, user, request_timeout, gzip, use_octet_stream, metadata)
                for path, content in contents
            ]
        if not contents:
            return []
        form = Multipart(contents)
        request = self._envd.file_request("POST", None, user, [*headers, ("Content-Type", form.content_type)])
        return await self._upload(request, form.body(), gzip, user, request_timeout)

    async def upload(
        self,
        local_path: str | PathLike[str],
        remote_path: str,
        user: Username | None = None,
        request_timeout: float | None = None,
        *,
        on_progress: _aio.OutputHandler[TransferProgress] | None = None,
        **call: Unpack[CallParams],
    ) -> EntryInfo:
        """Copy a file or a directory of this machine to the sandbox, with modes and links.

        A directory's content is put into `remote_path`, over what is there already; sockets and devices are left out.

        Args:
            local_path: What.
            remote_path: Where to; not the directory above.
            user: Who will own it; default: the template's user.
            request_timeout: How long the transfer may pause, in seconds; as a whole it may take as long as it likes.
            on_progress: Called as it goes on.
            **call: See `CallParams`.

        Returns:
            The entry of `remote_path`.

        Raises:
            InvalidArgumentException: there is nothing, something unreadable or something special at `local_path`.
            NotFoundException: the sandbox has no ``tar``, which directories need.
            NotEnoughSpaceException: the disk is full.

        Example:
            ```python
            await sandbox.files.upload("src", "/app/src", on_progress=print)
            ```
        """
        check_call(call)
        transfer = self._transfer(user, request_timeout, on_progress)
        return await transfer.upload(_local_path(local_path), checked_path(remote_path, "remote_path"))

    async def download(
        self,
        remote_path: str,
        local_path: str | PathLike[str],
        user: Username | None = None,
        request_timeout: float | None = None,
        *,
        on_progress: _aio.OutputHandler[TransferProgress] | None = None,
        **call: Unpack[CallParams],
    ) -> Path:
        """Copy a file or a directory of the sandbox to this machine, with modes and links.

        It appears at `local_path` when it is complete, not before. Nothing is written elsewhere, whatever the sandbox
        sends; its links are made as they are, so look before you follow them.

        Args:
            remote_path: What.
            local_path: Where to. A file there is replaced; a directory there must be empty.
            user: Whose home relative paths start at, and who reads a directory.
            request_timeout: As for `upload`.
            on_progress: Called as it goes on.
            **call: See `CallParams`.

        Returns:
            `local_path`.

        Raises:
            FileNotFoundException: there is nothing at `remote_path`.
            InvalidArgumentException: `local_path` cannot be written.
            SandboxException: what the sandbox sends is damaged, or would lie elsewhere.

        Example:
            ```python
            await sandbox.files.download("/app/dist", "dist")
            ```
        """
        check_call(call)
        transfer = self._transfer(user, request_timeout, on_progress)
        return await transfer.download(checked_path(remote_path, "remote_path"), _local_path(local_path))

    def _metadata_headers(self, metadata: Mapping[str, str] | None) -> builtins.list[tuple[str, str]]:
        headers = metadata_headers(metadata)
        if headers and not at_least(self._envd.version, FILE_METADATA):
            text = f"the template's agent {self._envd.version} is too old for metadata: build the template anew"
            raise TemplateException(text, sandbox_id=self._envd.sandbox_id)
        return headers

    def _transfer(
        self,
        user: Username | None,
        request_timeout: float | None,
        on_progress: _aio.OutputHandler[TransferProgress] | None,
    ) -> AsyncTransfer:
        _aio.check_handler(on_progress, "on_progress")
        return AsyncTransfer(self, AsyncCommands(self._envd), checked_user(user), request_timeout, on_progress)

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


def _local_path(path: str | PathLike[str]) -> Path:
    if not isinstance(path, str | PathLike):
        raise InvalidArgumentException(f"local_path must be a str or a path, not {type(path).__name__}")
    found = fspath(path)
    if not isinstance(found, str):
        raise InvalidArgumentException("local_path must be a path in text, not in bytes")
    if not found or "\0" in found or len(found) > arguments.MAX_PATH_BYTES:
        raise InvalidArgumentException("local_path must be a path that is neither empty nor longer than any")
    return Path(found)
