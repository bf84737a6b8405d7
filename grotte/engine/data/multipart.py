"""Multipart bodies as a stream: parts begin, get data, end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from grotte.engine.faults import Fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_HEADER = 64 * 1024


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts.

    Attributes:
        name: The form field.
        filename: As sent, directories and escapes included; None if there is none.
    """

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    pass


PartEvent = PartBegin | PartData | PartEnd


async def read_parts(content_type: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[PartEvent]:
    """Cut a multipart body into its parts.

    Raises:
        Fault: 400, it is malformed or ends too early.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Fault(400, "error parsing multipart form: no boundary in the content type")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        preamble = _Preamble(boundary)
        async for chunk in chunks:
            parser.write(preamble.strip(chunk))
            for event in collector.take():
                yield event
    except FormParserError:
        raise Fault(400, "error parsing multipart form: malformed body") from None
    if not collector.complete:
        raise Fault(400, "error parsing multipart form: the body ended too early")


class _Preamble:
    """What stands before the first boundary, which is to be ignored and which the parser does not know."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._seen = b"\r\n"  # a boundary at the very beginning has no line before it
        self._left = MAX_HEADER
        self._over = False

    def strip(self, chunk: bytes) -> bytes:
        """Return what the parser has to see of the next piece of the body."""
        if self._over:
            return chunk
        seen = self._seen + chunk
        start = seen.find(self._delimiter)
        self._over = start >= 0
        if self._over:
            return seen[start + 2 :]
        self._left -= len(chunk)
        if self._left < 0:
            raise FormParserError("there is no boundary in sight")
        self._seen = seen[-len(self._delimiter) :]
        return b""


class _Collector:
    """Turns the parser's callbacks into events."""

    def __init__(self) -> None:
        self.complete = False
        self._events: list[PartEvent] = []
        self._name = bytearray()
        self._value = bytearray()
        self._disposition = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_header_field": self._field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def take(self) -> list[PartEvent]:
        events, self._events = self._events, []
        return events

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._add(self._name, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._add(self._value, data[start:end])

    def _add(self, target: bytearray, piece: bytes) -> None:
        if len(target) + len(piece) > MAX_HEADER:
            raise FormParserError("a part's header is too long")
        target += piece

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _begin(self) -> None:
        parameters = disposition_parameters(self._disposition)
        self._disposition = b""
        self._events.append(PartBegin(parameters.get("name", ""), parameters.get("filename")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(bytes(data[start:end])))

    def _part_end(self) -> None:
        self._events.append(PartEnd())

    def _end(self) -> None:
        self.complete = True


_EXTENDED = re.compile(r"(utf-8|us-ascii)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(rb';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))')


def disposition_parameters(header: bytes) -> dict[str, str]:
    r"""The parameters of a Content-Disposition, values as sent: ``%22`` stays, ``\"`` becomes ``"``.

    A ``filename*``, which is percent-encoded and says so, comes before a ``filename``.

    Raises:
        Fault: 400, a value is not UTF-8.
    """
    found: dict[str, str] = {}
    try:
        for name, quoted, token in _PARAMETER.findall(header):
            value = re.sub(rb'\\(["\\])', rb"\1", quoted) if quoted else token
            found.setdefault(name.decode().lower(), value.decode())
        if (extended := _EXTENDED.fullmatch(found.get("filename*", ""))) is not None:
            found["filename"] = unquote(extended[2], errors="strict")
    except UnicodeDecodeError:
        raise Fault(400, "error parsing multipart form: a file name is not valid UTF-8") from None
    return found
