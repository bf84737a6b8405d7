"""What is where in a sandbox: entries of its file system, looked at, moved, made and removed."""

from __future__ import annotations

import builtins
from typing import Unpack

from grotte._core.rpc import AsyncEnvd, M
from grotte._dual import accepts_old_names
from grotte._proto import arguments
from grotte._proto.calls import CallParams, check_call
from grotte._proto.entries import public_entry
from grotte._proto.messages import (
    Empty,
    EntryResponse,
    ListDirRequest,
    ListDirResponse,
    Message,
    MoveRequest,
    PathRequest,
)
from grotte.errors import FileNotFoundException, SandboxException
from grotte.models import EntryInfo, Username

MAX_DEPTH = 2**31 - 1


class _AlreadyExists(SandboxException):
    """`make_dir` found a directory; never leaves this module."""


_KINDS = {"not_found": FileNotFoundException, "already_exists": _AlreadyExists}


class AsyncEntries:
    """The part of `sandbox.filesystem` that moves no content."""

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    async def list(
        self,
        path: str,
        depth: int | None = 1,
        user: Username | None = None,
        request_timeout: float | None = None,
        **call: Unpack[CallParams],
    ) -> builtins.list[EntryInfo]:
        """List a directory.

        Args:
            path: The directory.
            depth: How many levels; 1 is the directory itself.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            Its files, directories and links; sockets and devices are left out.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is no directory.

        Example:
            ```python
            for entry in await sandbox.files.list("/etc", depth=2):
                print(entry.type, entry.path, entry.size)
            ```
        """
        check_call(call)
        levels = arguments.whole(1 if depth is None else depth, "depth", 1, MAX_DEPTH)
        request = ListDirRequest(path=checked_path(path), depth=levels)
        reply = await self._call("ListDir", request, ListDirResponse, user, request_timeout, idempotent=True)
        entries = [public_entry(entry) for entry in reply.entries]
        return [entry for entry in entries if entry.type is not None]

    async def exists(
        self, path: str, user: Username | None = None, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> bool:
        """Whether there is anything at a path.

        Args:
            path: Where.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            print(await sandbox.files.exists("/etc/passwd"))  # True
            ```
        """
        check_call(call)
        try:
            await self._stat(path, user, request_timeout)
        except FileNotFoundException:
            return False
        return True

    async def get_info(
        self, path: str, user: Username | None = None, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> EntryInfo:
        """What is at a path.

        Args:
            path: Where.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            FileNotFoundException: nothing.

        Example:
            ```python
            entry = await sandbox.files.get_info("/etc/passwd")
            print(entry.owner, entry.permissions, entry.modified_time)
            ```
        """
        check_call(call)
        return public_entry((await self._stat(path, user, request_timeout)).entry)

    async def _stat(self, path: str, user: Username | None, request_timeout: float | None) -> EntryResponse:
        request = PathRequest(path=checked_path(path))
        return await self._call("Stat", request, EntryResponse, user, request_timeout, idempotent=True)

    async def make_dir(
        self, path: str, user: Username | None = None, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> bool:
        """Make a directory, and those above it.

        Args:
            path: Where.
            user: Who will own it.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            True, or False if it was there already.

        Raises:
            InvalidArgumentException: something else is there.

        Example:
            ```python
            print(await sandbox.files.make_dir("/tmp/a/b"))  # True
            print(await sandbox.files.make_dir("/tmp/a/b"))  # False: it is there
            ```
        """
        check_call(call)
        try:
            await self._call("MakeDir", PathRequest(path=checked_path(path)), EntryResponse, user, request_timeout)
        except _AlreadyExists:
            return False
        return True

    @accepts_old_names(old_path="src", new_path="dst")
    async def rename(
        self,
        src: str,
        dst: str,
        user: Username | None = None,
        request_timeout: float | None = None,
        **call: Unpack[CallParams],
    ) -> EntryInfo:
        """Rename or move a file or directory; a file that is there already is replaced.

        Args:
            src: What.
            dst: Where to; directories above it are made.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            FileNotFoundException: there is no such file or directory.

        Example:
            ```python
            await sandbox.files.write("/tmp/draft", "text")
            entry = await sandbox.files.rename("/tmp/draft", "/tmp/final")
            print(entry.path)  # /tmp/final
            ```
        """
        check_call(call)
        request = MoveRequest(source=checked_path(src, "src"), destination=checked_path(dst, "dst"))
        reply = await self._call("Move", request, EntryResponse, user, request_timeout)
        return public_entry(reply.entry)

    async def remove(
        self, path: str, user: Username | None = None, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> None:
        """Remove a file, or a directory with all that is in it; what is not there is no error.

        Args:
            path: What.
            user: Whose home relative paths start at.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            await sandbox.files.write("/tmp/old/file", "text")
            await sandbox.files.remove("/tmp/old")
            ```
        """
        check_call(call)
        await self._call("Remove", PathRequest(path=checked_path(path)), Empty, user, request_timeout, idempotent=True)

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
            user=checked_user(user),
            request_timeout=request_timeout,
            idempotent=idempotent,
            kinds=_KINDS,
        )


def checked_path(path: str, name: str = "path") -> str:
    return arguments.path(path, name)


def checked_user(user: str | None) -> str | None:
    return None if user is None else arguments.user_name(user)
