"""`POST /files/compose`: files of the sandbox become one, whole or not at all."""

from __future__ import annotations

import os

import msgspec

from grotte.engine.data.downloads import Span, read_span
from grotte.engine.data.filesystem_service import check_path
from grotte.engine.data.uploads import Upload, WriteInfo, Writer
from grotte.engine.faults import Fault, RpcFault, plain_fault
from grotte.engine.host import Guest, GuestError
from grotte.engine.http import Request

PATH = "/files/compose"
MAX_BODY = 1 << 20


class Composition(msgspec.Struct):
    """What is to become one file.

    Attributes:
        source_paths: Files in the order of their bytes; they are removed.
        destination: Where the bytes go; what is there is replaced.
        username: Whose paths they are, and whose the new file will be.
    """

    source_paths: list[str]
    destination: str
    username: str | None = None


async def read_composition(request: Request) -> Composition:
    """What a request asks for.

    Raises:
        Fault: 400, it makes no sense; 413, it is too long.
        ClientGone: the client left in the middle.
    """
    try:
        wanted = msgspec.json.decode(await request.body(MAX_BODY), type=Composition)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Fault(400, f"invalid request body: {error}") from None
    if not wanted.source_paths:
        raise Fault(400, "source_paths must not be empty")
    if not wanted.destination:
        raise Fault(400, "destination is required")
    try:
        for path in (*wanted.source_paths, wanted.destination):
            check_path(path)
    except RpcFault as fault:
        raise plain_fault(fault.code, fault.message) from None
    return wanted


async def compose(wanted: Composition, guest: Guest, user: str) -> WriteInfo:
    """Put the sources' bytes into the destination, then remove the sources.

    Raises:
        Fault: 400, a source is the destination; 507, the disk is full. Nothing was changed.
        GuestError: the sandbox refused a path. Nothing was changed, unless it was to remove a source.
    """
    replaced = await _identity(wanted.destination, guest, user)
    upload = Upload(guest, user, {})
    try:
        writer = await upload.open(wanted.destination)
        for path in wanted.source_paths:
            await _append(path, writer, guest, user, replaced)
        await writer.end()
        [written] = await upload.commit()
    finally:
        await upload.abort()
    for path in wanted.source_paths:
        await guest.remove(path, user)
    return written


async def _identity(path: str, guest: Guest, user: str) -> tuple[int, int] | None:
    """Which file is there, by whatever name; None if there is none."""
    try:
        file = await guest.open_read(path, user)
    except GuestError as error:
        if error.code == "not_found":
            return None
        raise
    try:
        return _number(file.fd)
    finally:
        os.close(file.fd)


async def _append(path: str, writer: Writer, guest: Guest, user: str, replaced: tuple[int, int] | None) -> None:
    file = await guest.open_read(path, user)
    try:
        # Links count: a source is removed in the end, and must not take what was composed with it.
        if _number(file.fd) == replaced:
            raise Fault(400, f"source path '{file.path}' cannot be the same as the destination")
        async for piece in read_span(file.fd, Span(0, file.size)):
            await writer.add(piece)
    except OSError as error:
        raise Fault(500, f"error composing '{file.path}': {error}") from None
    finally:
        os.close(file.fd)


def _number(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
