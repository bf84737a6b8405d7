"""Files and directories of this machine to a sandbox, and back.

A directory travels as one archive: one request, however many files, with their modes and links. The other side needs
``tar`` for that.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from grotte._archive import ArchiveError, PackedDirectory, packed_size, unpack
from grotte._core import _aio
from grotte._core.commands import AsyncCommands
from grotte._core.uploads import PIECE
from grotte.errors import GrotteException, InvalidArgumentException, NotFoundException, SandboxException
from grotte.models import CommandResult, EntryInfo, FileType, TransferProgress, Username

if TYPE_CHECKING:
    from grotte._core.filesystem import AsyncFilesystem

T = TypeVar("T")

#: What cleaning up may take, in seconds.
CLEANUP_SECONDS = 10.0
#: Pauses before the remains of a transfer that failed are looked for again, in seconds.
SECOND_LOOKS = (0.05, 0.2, 0.5)
NO_COMMAND = 127
#: What tar exits with when it has made an archive although files changed meanwhile.
CHANGED = 1


class AsyncTransfer:
    """One upload or download."""

    def __init__(
        self,
        files: AsyncFilesystem,
        commands: AsyncCommands,
        user: Username | None,
        request_timeout: float | None,
        on_progress: _aio.OutputHandler[TransferProgress] | None,
    ) -> None:
        self._files = files
        self._commands = commands
        self._user = user
        self._request_timeout = request_timeout
        self._on_progress = on_progress
        #: A directory of the sandbox and a prefix of local names, which nobody else uses.
        token = os.urandom(8).hex()
        self._remote = f"/tmp/.grotte-{token}"  # noqa: S108 - made with a random name and mode 0700
        self._mark = f".grotte-{token}"
        self._complete = False

    # -- up --------------------------------------------------------------------------------------------------------

    async def upload(self, local: Path, path: str) -> EntryInfo:
        info = await _locally(os.stat, local)
        if stat.S_ISDIR(info.st_mode):
            return await self._upload_directory(local, path)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidArgumentException(f"{local} is neither a file nor a directory")
        file = await _locally(_to_read, local)
        try:
            pieces = AsyncReported(file.read, info.st_size, self._on_progress)
            entry = await self._files.write(path, pieces, self._user, self._request_timeout)
        finally:
            file.close()
        mode = stat.S_IMODE(info.st_mode) & 0o777
        if entry.mode == mode:
            return entry
        await self._run(f"chmod {mode:o} -- {shlex.quote(entry.path)}")
        return await self._files.get_info(entry.path, self._user, self._request_timeout)

    async def _upload_directory(self, local: Path, path: str) -> EntryInfo:
        size = await _locally(packed_size, local)
        await self._files.make_dir(path, self._user, self._request_timeout)
        entry = await self._files.get_info(path, self._user, self._request_timeout)
        try:
            await self._run(f"mkdir -m 700 {self._remote}")
            pieces = AsyncReported(PackedDirectory(local).read, size, self._on_progress)
            await self._files.write(f"{self._remote}/tar", pieces, self._user, self._request_timeout)
            await self._run(f"exec tar -xpof {self._remote}/tar -C {shlex.quote(entry.path)}")
            self._complete = True
        finally:
            await self._clean_up()
        return entry

    # -- down ------------------------------------------------------------------------------------------------------

    async def download(self, path: str, local: Path) -> Path:
        entry = await self._files.get_info(path, self._user, self._request_timeout)
        if entry.type is FileType.SYMLINK and entry.symlink_target is not None:
            entry = await self._files.get_info(entry.symlink_target, self._user, self._request_timeout)
        await _locally(_make_parent, local)
        if entry.type is FileType.DIR:
            await _locally(_must_be_free, local)
            await self._download_directory(entry, local)
        else:
            part = local.with_name(f"{self._mark}.part")
            try:
                await self._receive(entry.path, part, entry.size)
                await _locally(os.chmod, part, entry.mode & 0o777)
                await _locally(os.replace, part, local)
            finally:
                part.unlink(missing_ok=True)
        return local

    async def _download_directory(self, entry: EntryInfo, local: Path) -> None:
        archive, directory = local.with_name(f"{self._mark}.tar"), local.with_name(f"{self._mark}.d")
        try:
            await self._run(f"mkdir -m 700 {self._remote}")
            pack = f"exec tar -cf {self._remote}/tar -C {shlex.quote(entry.path)} ."
            await self._run(pack, accept=CHANGED)
            packed = await self._files.get_info(f"{self._remote}/tar", self._user, self._request_timeout)
            await self._receive(packed.path, archive, packed.size)
            await _locally(os.mkdir, directory, 0o700)
            await _unpack(archive, directory)
            await _locally(_publish, directory, local, entry.mode & 0o777)
            self._complete = True
        finally:
            archive.unlink(missing_ok=True)
            await self._clean_up(directory)

    async def _receive(self, path: str, part: Path, size: int) -> None:
        file = await _locally(_to_write, part)
        done = 0
        try:
            await _report(self._on_progress, 0, size)
            async with await self._files.read(path, "stream", self._user, self._request_timeout) as pieces:
                async for piece in pieces:
                    await _locally(file.write, piece)
                    done += len(piece)
                    await _report(self._on_progress, done, max(size, done))
        finally:
            file.close()

    # -- pieces ----------------------------------------------------------------------------------------------------

    async def _run(self, line: str, accept: int = 0) -> CommandResult:
        result = await self._commands.run(
            f"umask 077; {line}", user=self._user, timeout=0, request_timeout=self._request_timeout, check=False
        )
        if result.exit_code in (0, accept):
            return result
        said = " ".join(result.stderr.split())
        if result.exit_code == NO_COMMAND:
            raise NotFoundException(f"the sandbox lacks a program that directories need: {said}")
        raise SandboxException(f"the transfer failed in the sandbox: {said or result.error}")

    async def _clean_up(self, directory: Path | None = None) -> None:
        with _aio.shield(CLEANUP_SECONDS):
            if directory is not None:
                await _aio.run_in_thread(_remove_tree, directory)
            with suppress(GrotteException):
                await self._files.remove(self._remote, self._user)
            if self._complete:
                return
            # a server may still be at work for a request that was given up, and make the directory again
            for pause in SECOND_LOOKS:
                await _aio.sleep(pause)
                with suppress(GrotteException):
                    await self._files.remove(self._remote, self._user)


class AsyncReported:
    """The pieces of what is sent, each of which is reported."""

    def __init__(
        self, read: Callable[[int], bytes], total: int, on_progress: _aio.OutputHandler[TransferProgress] | None
    ) -> None:
        self._read = read
        self._total = total
        self._on_progress = on_progress
        self._done = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await _report(self._on_progress, self._done, max(self._total, self._done))
        piece = await _locally(self._read, PIECE)
        if not piece:
            raise StopAsyncIteration
        self._done += len(piece)
        return piece


async def _report(on_progress: _aio.OutputHandler[TransferProgress] | None, done: int, total: int) -> None:
    if on_progress is not None:
        await _aio.call(on_progress, TransferProgress(done, total))


async def _locally(function: Callable[..., T], *arguments: object) -> T:
    """Work on the files of this machine, beside the event loop."""
    try:
        return await _aio.run_in_thread(function, *arguments)
    except ArchiveError as error:
        raise InvalidArgumentException(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise InvalidArgumentException(f"on this machine: {where}{error.strerror}") from error


async def _unpack(archive: Path, directory: Path) -> None:
    file = await _locally(_to_read, archive)
    try:
        steps = unpack(file, directory)
        while await _aio.run_in_thread(_step, steps):
            pass
    except ArchiveError as error:
        raise SandboxException(str(error)) from error
    finally:
        file.close()


def _step(steps: Iterator[int]) -> bool:
    return next(steps, None) is not None


def _to_read(path: Path) -> IO[bytes]:
    return path.open("rb")


def _to_write(path: Path) -> IO[bytes]:
    return path.open("xb")


def _make_parent(local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)


def _must_be_free(local: Path) -> None:
    if os.path.lexists(local) and (local.is_symlink() or not local.is_dir() or any(local.iterdir())):
        raise ArchiveError(f"{local} exists already and is no empty directory")


def _publish(directory: Path, local: Path, mode: int) -> None:
    """From its provisional place, which was closed to others, to its own."""
    directory.chmod(mode)
    os.rename(directory, local)


def _remove_tree(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
