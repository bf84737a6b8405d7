"""`GET /files`: a file's bytes, whole, in part, or compressed."""

from __future__ import annotations

import math
import mimetypes
import os
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from urllib.parse import quote

from anyio import to_thread

from grotte.engine.data.rpc import until_disconnected
from grotte.engine.faults import Fault, Headers
from grotte.engine.host import OpenedFile
from grotte.engine.http import Request
from grotte.engine.lifecycle.sandbox import FIRST_TIME, LAST_TIME

#: How much is read at once.
PIECE = 512 * 1024
#: What is read on the event loop: a thread's hand-over costs more than such a read.
SMALL = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_OCTETS = "application/octet-stream"
#: What a name of two parts ends with counts: who reads the bytes gets no text of ``a.txt.gz``.
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes to send, the last one not included."""

    start: int
    stop: int


async def send_file(request: Request, file: OpenedFile, headers: Headers) -> None:
    """Answer with a file; the caller closes it.

    Raises:
        Fault: 406, 412 or 416, it cannot be sent in the way that was asked for.
        ClientGone: the client left in the middle.
    """
    modified = min(max(math.floor(file.mtime), FIRST_TIME), LAST_TIME)
    name = os.path.basename(file.path)
    head = [
        ("vary", "Accept-Encoding"),
        ("content-disposition", _disposition(name)),
        ("last-modified", formatdate(modified, usegmt=True)),
        *headers,
    ]
    accepted = _qualities(request.headers.get("accept-encoding"))
    plain = any(header in request.headers for header in ("range", "if-range", "if-none-match", "if-modified-since"))
    if plain and not _accepts_identity(accepted):
        raise Fault(406, "identity encoding is refused, but a part or a condition was asked for")
    if not plain and accepted.get("gzip", 0) > 0 and accepted["gzip"] >= accepted.get("identity", 0):
        return await _send_compressed(request, file, name, head)
    if not _accepts_identity(accepted):
        raise Fault(406, "no acceptable encoding: gzip and identity are offered")
    if _came_too_late(request, modified):
        raise Fault(412, "the file is not the one that was asked for")
    if _not_modified(request, modified):
        return await request.reply(304, headers=head)
    return await _send_plain(request, file, name, head, modified)


async def _send_plain(request: Request, file: OpenedFile, name: str, head: Headers, modified: int) -> None:
    span = _span(request, file.size, modified)
    whole = Span(0, file.size)
    head = [*head, ("accept-ranges", "bytes"), ("content-type", await _sniffed_type(file, name))]
    if span is not None:
        head.append(("content-range", f"bytes {span.start}-{span.stop - 1}/{file.size}"))
    chosen = span or whole
    head.append(("content-length", str(chosen.stop - chosen.start)))
    await request.start(206 if span else 200, head)
    await until_disconnected(request, partial(_write_all, request, read_span(file.fd, chosen)))


async def _send_compressed(request: Request, file: OpenedFile, name: str, head: Headers) -> None:
    kind = _named_type(name) or _OCTETS
    await request.start(200, [*head, ("content-encoding", "gzip"), ("content-type", _with_charset(kind))])
    pieces = _compressed(read_span(file.fd, Span(0, file.size)))
    await until_disconnected(request, partial(_write_all, request, pieces))


async def _write_all(request: Request, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        await request.write(piece)
    await request.finish()


async def read_span(fd: int, span: Span) -> AsyncIterator[bytes]:
    """The bytes of a file, in large pieces, at constant memory.

    A file that shrinks meanwhile ends the answer early, which breaks it off: the client must not take it for whole.
    """
    position = span.start
    while position < span.stop:
        size = min(PIECE, span.stop - position)
        if size <= SMALL:
            piece = os.pread(fd, size, position)
        else:
            piece = await to_thread.run_sync(os.pread, fd, size, position)
        if not piece:
            raise OSError("the file became shorter while it was read")
        position += len(piece)
        yield piece


async def _compressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    async for piece in pieces:
        packed = packer.compress(piece) if len(piece) <= SMALL else await to_thread.run_sync(packer.compress, piece)
        if packed:
            yield packed
    yield packer.flush()


# -- what the request asks for -----------------------------------------------------------------------------------


def _qualities(header: str | None) -> dict[str, float]:
    """``Accept-Encoding`` as a table; malformed parts are left out."""
    found: dict[str, float] = {}
    for part in (header or "").lower().split(","):
        name, _, parameters = part.strip().partition(";")
        match = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameters) if parameters else None
        if name and (match or not parameters):
            found[name.strip()] = float(match.group(1)) if match else 1.0
    if "*" in found:
        found.setdefault("gzip", found["*"])
        found.setdefault("identity", found["*"])
    return found


def _accepts_identity(accepted: dict[str, float]) -> bool:
    return accepted.get("identity", 1.0) > 0


def _came_too_late(request: Request, modified: int) -> bool:
    """Whether the client wants what was there before; files have no tags here, so none is the one that it knows."""
    if (known := request.headers.get("if-match")) is not None:
        return known.strip() != "*"
    since = _date(request.headers.get("if-unmodified-since"))
    return since is not None and modified > since


def _not_modified(request: Request, modified: int) -> bool:
    if (known := request.headers.get("if-none-match")) is not None:
        return known.strip() == "*"
    since = _date(request.headers.get("if-modified-since"))
    return since is not None and modified <= since


def _span(request: Request, size: int, modified: int) -> Span | None:
    """The one range that was asked for; None for the whole file.

    Raises:
        Fault: 416, the file has no such part.
    """
    header = request.headers.get("range", "")
    match = re.fullmatch(r"bytes=\s*([0-9]{0,300})-([0-9]{0,300})\s*", header)
    if match is None or match.group(0).strip() in ("bytes=-", "bytes= -"):
        return None  # several ranges, other units, nonsense: a server may ignore them
    if "if-range" in request.headers and _date(request.headers["if-range"]) != modified:
        return None
    first, last = match.groups()
    if first:
        span = Span(int(first), min(int(last) + 1, size) if last else size)
        if last and int(last) < int(first):
            return None
    else:
        span = Span(max(0, size - int(last)), size)
    if span.start >= span.stop:
        raise Fault(416, "the file has no such range", [("content-range", f"bytes */{size}")])
    return span


def _date(text: str | None) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp()) if text else None
    except (ValueError, OverflowError):
        return None


# -- what the file is --------------------------------------------------------------------------------------------


async def _sniffed_type(file: OpenedFile, name: str) -> str:
    if (known := _named_type(name)) is not None:
        return _with_charset(known)
    start = os.pread(file.fd, 512, 0)
    text = all(byte >= 0x20 or byte in b"\t\n\f\r\x1b" for byte in start)
    return "text/plain; charset=utf-8" if text else _OCTETS


def _named_type(name: str) -> str | None:
    kind, packed = mimetypes.guess_type(name, strict=False)
    return _PACKED.get(packed, _OCTETS) if packed else kind


def _with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _disposition(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return f"inline; filename={name}"
    if name.isascii() and name.isprintable():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'inline; filename="{escaped}"'
    return f"inline; filename*=utf-8''{quote(name, safe='', errors='surrogateescape')}"
