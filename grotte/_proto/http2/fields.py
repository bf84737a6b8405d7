"""What a response's header and trailer sections may hold (RFC 9113 §8)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from grotte._proto.http2.codec import Header

_NAME = re.compile(rb"[!-9;-@\[-~]+")
#: No NUL, CR or LF anywhere, no white space at either end.
_VALUE = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_STATUS = re.compile(rb"[1-9][0-9][0-9]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CONNECTION_SPECIFIC = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
#: Fields that are remembered as valid, and the longest value among them: a bound on memory.
_REMEMBERED = 256
_REMEMBERED_VALUE = 256

_ORDINARY = 0
_LENGTH_FIELD = 1


class Malformed(Exception):
    """The section breaks a rule, which ends its stream."""


class Response(msgspec.Struct, frozen=True):
    """What the codec must know of a response's header section.

    Attributes:
        status: Three digits.
        content_length: The content-length field, or None.
    """

    status: int
    content_length: int | None


class FieldRules:
    """Checks sections, and remembers which fields were fine: the same ones come back with every response."""

    def __init__(self) -> None:
        self._valid: dict[Header, int] = {}
        self._statuses: dict[bytes, int] = {}
        #: The section that was judged last, and the verdict: the decoder returns the same list for the same block.
        self._last: tuple[list[Header], Response] | None = None

    def response(self, headers: list[Header]) -> Response:
        """Check a final or informational header section.

        Raises:
            Malformed: the section breaks a rule.
        """
        if self._last is not None and self._last[0] is headers:
            return self._last[1]
        if not headers or headers[0][0] != b":status":
            raise Malformed("the response does not start with :status")
        text = headers[0][1]
        status = self._statuses.get(text)
        if status is None:
            status = self._statuses[text] = _parse_status(text)
        verdict = Response(status, self._check(headers[1:]))
        self._last = headers, verdict
        return verdict

    def trailers(self, headers: list[Header]) -> None:
        """Check a trailer section.

        Raises:
            Malformed: the section breaks a rule.
        """
        self._check(headers)

    def _check(self, headers: Iterable[Header]) -> int | None:
        """Check fields none of which may be a pseudo-header, and return the content-length."""
        valid = self._valid
        length: bytes | None = None
        for header in headers:
            kind = valid.get(header)
            if kind is None:
                kind = self._learn(header)
            if kind == _LENGTH_FIELD:
                if length is not None and int(length) != int(header[1]):
                    raise Malformed("the response has two different content-length fields")
                length = header[1]
        return None if length is None else int(length)

    def _learn(self, header: Header) -> int:
        kind = _classify(header)
        if len(header[0]) + len(header[1]) <= _REMEMBERED_VALUE:
            if len(self._valid) >= _REMEMBERED:
                self._valid.clear()
            self._valid[header] = kind
        return kind


def _parse_status(text: bytes) -> int:
    if not _STATUS.fullmatch(text):
        raise Malformed("the response's :status is no three digits")
    if text == b"101":
        raise Malformed("status 101 does not exist in HTTP/2")
    return int(text)


def _classify(header: Header) -> int:
    name, value = header
    if not _NAME.fullmatch(name):
        raise Malformed(f"the field name {name[:64]!r} is not allowed")
    if not _VALUE.fullmatch(value):
        raise Malformed(f"the value of the field {name[:64]!r} is not allowed")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed(f"the field {name!r} is specific to HTTP/1 connections")
    if name != b"content-length":
        return _ORDINARY
    if not _LENGTH.fullmatch(value):
        raise Malformed("the content-length field is no number")
    return _LENGTH_FIELD
