"""The content of volumes over HTTP: files and directories, by the token of the volume."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from grotte.engine.control.creation import read_json
from grotte.engine.control.routes import Routes
from grotte.engine.data.downloads import Span, read_span
from grotte.engine.data.rpc import until_disconnected
from grotte.engine.data.uploads import Writer
from grotte.engine.faults import ControlFault, Fault, plain_fault
from grotte.engine.host import GuestError, VolumeEntry, VolumeKeeper
from grotte.engine.http import Request
from grotte.engine.lifecycle.sandbox import rfc3339
from grotte.engine.lifecycle.volumes import Volumes

MAX_BODY = 64 * 1024
MAX_DEPTH = 64
MAX_ID = 65534
#: Whose files are that nobody says anything about: the user's that commands run as.
DEFAULT_ID = 1000
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
_OCTETS = "application/octet-stream"
#: Connect code → HTTP status, where the way of the plain routes is another.
_STATUS = {"already_exists": 409}

Operation = Callable[[Request, VolumeKeeper, str, str], Awaitable[None]]


class Stat(msgspec.Struct, omit_defaults=True):
    """A file as clients read it."""

    name: str
    type: str
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    atime: str
    mtime: str
    ctime: str
    target: str | None = None


class VolumeContent:
    """The handlers behind ``/volumecontent``; each checks the volume's token itself."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def keyless(self) -> Routes:
        """What it answers: ``handler(request, volume)``."""
        operations = {
            "GET /volumecontent/{volume}/path": _stat,
            "PATCH /volumecontent/{volume}/path": _patch,
            "DELETE /volumecontent/{volume}/path": _remove,
            "GET /volumecontent/{volume}/dir": _list,
            "POST /volumecontent/{volume}/dir": _make_dir,
            "GET /volumecontent/{volume}/file": _read,
            "PUT /volumecontent/{volume}/file": _write,
        }
        return {route: self._for_holders(operation) for route, operation in operations.items()}

    def _for_holders(self, operation: Operation) -> Callable[[Request, str], Awaitable[None]]:
        async def handle(request: Request, volume: str) -> None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise ControlFault(401, "the volume's token is missing: send it as Authorization: Bearer")
            found = self._volumes.by_token(unquote(volume), token.strip())
            path = request.query.get("path")
            if path is None:
                raise ControlFault(400, "the query parameter 'path' is required")
            try:
                await operation(request, self._volumes.keeper, found.id, path)
            except GuestError as error:
                raise _fault(error) from None

        return handle


def _fault(error: GuestError) -> Fault:
    status = _STATUS.get(error.code)
    return plain_fault(error.code, error.message) if status is None else Fault(status, error.message)


async def _stat(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    await request.reply_json(200, _shown(await keeper.stat(volume, path)))


async def _patch(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    fields = read_json(await request.body(MAX_BODY))
    uid, gid, mode = (_field(fields, name, top) for name, top in (("uid", MAX_ID), ("gid", MAX_ID), ("mode", 0o7777)))
    await request.reply_json(200, _shown(await keeper.patch(volume, path, uid, gid, mode)))


async def _remove(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    await keeper.remove(volume, path)
    await request.reply(204)


async def _list(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    depth = _number(request.query, "depth", 1, MAX_DEPTH)
    entries = await keeper.list_dir(volume, path, depth)
    await request.reply_json(200, [_shown(entry) for entry in entries])


async def _make_dir(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    uid, gid, mode, force = _ownership(request.query, DIRECTORY_MODE)
    made = await keeper.make_dir(volume, path, uid, gid, mode, force=force)
    await request.reply_json(201, _shown(made))


async def _read(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    file = await keeper.open_read(volume, path)
    try:
        await request.start(200, [("content-type", _OCTETS), ("content-length", str(file.size))])

        async def send() -> None:
            async for piece in read_span(file.fd, Span(0, file.size)):
                await request.write(piece)
            await request.finish()

        await until_disconnected(request, send)
    finally:
        os.close(file.fd)


async def _write(request: Request, keeper: VolumeKeeper, volume: str, path: str) -> None:
    uid, gid, mode, force = _ownership(request.query, FILE_MODE)
    upload = await keeper.open_write(volume, path, uid, gid, mode, force=force)
    writer = Writer(upload.fd, keeper.take)
    try:
        async for chunk in request.chunks():
            await writer.add(chunk)
        await writer.end()
    except BaseException:
        writer.close()
        keeper.forget(upload)
        raise
    await request.reply_json(201, _shown(await keeper.commit(upload)))


def _ownership(query: dict[str, str], mode: int) -> tuple[int, int, int, bool]:
    """User, group, mode and `force`, as the query says them."""
    force = query.get("force", "false").lower()
    if force not in ("true", "false", "1", "0"):
        raise ControlFault(400, "force must be true or false")
    uid, gid = (_number(query, name, DEFAULT_ID, MAX_ID) for name in ("uid", "gid"))
    return uid, gid, _number(query, "mode", mode, 0o7777), force in ("true", "1")


def _number(query: dict[str, str], name: str, default: int, top: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > top:
        raise ControlFault(400, f"{name} must be a whole number of 0 to {top}")
    return int(text)


def _field(fields: dict[str, Any], name: str, top: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= top:
        raise ControlFault(400, f"{name} must be a whole number of 0 to {top}")
    return value


def _shown(entry: VolumeEntry) -> Stat:
    accessed, modified, changed = (rfc3339(nanoseconds // 1000) for nanoseconds in entry.times)
    return Stat(
        name=entry.name,
        type=entry.type,
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        atime=accessed,
        mtime=modified,
        ctime=changed,
        target=entry.target,
    )
