"""The files that COPY steps copy: uploaded once per content, on the disk as they came."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from anyio import to_thread

from grotte.engine.faults import ControlFault
from grotte.engine.host import HostError
from grotte.engine.host.runtime import STANDALONE, environment

#: The largest context as it is sent, and unpacked; both in bytes.
MAX_SENT, MAX_UNPACKED = 8 << 30, 16 << 30
#: How much all contexts together may take before the ones that were used longest ago go, in bytes.
KEPT = 20 << 30
#: How long an address for an upload holds, in seconds, and how many an owner has at most.
UPLOAD_SECONDS, MAX_UPLOADS = 3600.0, 2000
CHECK_SECONDS = 900
#: Memory of the process that checks an archive, in bytes.
CHECK_MEMORY = 1 << 30
_CHECK = (
    f"import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, ({CHECK_MEMORY},) * 2);"
    " sys.path.insert(0, sys.argv.pop(1)); from standalone.archives import main; main()"
)


class Contexts:
    """A directory of archives, by owner and digest, and the addresses that more of them may be sent to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._uploads: dict[str, tuple[str, str, float]] = {}
        directory.mkdir(mode=0o700, exist_ok=True)
        for left in directory.glob("*.part"):
            left.unlink()

    def path(self, owner: str, digest: str) -> Path:
        """Where an archive is, or would be."""
        return self._directory / f"{owner}.{digest}"

    def open(self, owner: str, digest: str) -> int:
        """A descriptor of an archive, which is its caller's to close.

        Raises:
            HostError: there is none.
        """
        path = self.path(owner, digest)
        try:
            os.utime(path)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise HostError("the files of this COPY were not uploaded") from None

    def offer(self, owner: str, digest: str) -> str:
        """A secret name under which an archive may be sent, for an hour."""
        now = anyio.current_time()
        for token in [token for token, (_, _, end) in self._uploads.items() if end < now]:
            del self._uploads[token]
        for other in [other for other, (whose, _, _) in self._uploads.items() if whose == owner][: 1 - MAX_UPLOADS]:
            del self._uploads[other]  # the oldest, and nobody else's
        token = secrets.token_urlsafe(32)
        self._uploads[token] = owner, digest, now + UPLOAD_SECONDS
        return token

    async def receive(self, token: str, chunks: AsyncIterator[bytes]) -> None:
        """Take an archive in, if it is one.

        Raises:
            ControlFault: 400, it is none; 403, the name is unknown or too old; 413, it is too large; 507, the disk is
                full.
        """
        owner, digest, end = self._uploads.get(token, ("", "", 0.0))
        if not owner or end < anyio.current_time():
            raise ControlFault(403, "this address for an upload is not valid, or not any more: ask for another one")
        part = self._directory / f"{secrets.token_hex(8)}.part"
        try:
            await _write(part, chunks)
            await _check(part)
            part.rename(self.path(owner, digest))
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
        self.trim()

    def trim(self) -> None:
        """Remove those that were used longest ago, until the others fit."""
        files = [(path, path.stat()) for path in self._directory.iterdir() if path.suffix != ".part"]
        total = sum(info.st_size for _, info in files)
        for path, info in sorted(files, key=lambda item: item[1].st_mtime):
            if total <= KEPT:
                return
            path.unlink(missing_ok=True)
            total -= info.st_size


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    size = 0
    try:
        async with await anyio.open_file(path, "xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_SENT:
                    raise ControlFault(413, f"a context is at most {MAX_SENT >> 30} GiB")
                await file.write(chunk)
    except OSError as error:
        raise ControlFault(507, f"the context could not be stored: {error.strerror}") from None


async def _check(path: Path) -> None:
    """Have a process of its own read the archive: it is a stranger's."""
    problem = await to_thread.run_sync(_problem_of, path, abandon_on_cancel=False)
    if problem:
        raise ControlFault(400, problem)


def _problem_of(path: Path) -> str:
    arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _CHECK, str(STANDALONE.parent)]
    arguments += [str(MAX_UNPACKED), str(path.stat().st_size)]
    with path.open("rb") as file:
        try:
            done = subprocess.run(
                arguments, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=CHECK_SECONDS,
                env=environment(), cwd="/", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "the archive takes too long to read"
    if done.returncode == 0:
        return ""
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return last or "the archive cannot be read"
