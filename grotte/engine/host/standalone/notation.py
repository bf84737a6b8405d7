"""JSON by the same C code as in `json`, without the regular expressions that this compiles when it is imported."""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

SPACE = " \t\n\r"


class _Grammar:
    """What the scanner asks for: plain JSON, and nothing of what Python adds to it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_int = int
    parse_float = float

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ValueError(f"{name} is no JSON")


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is no JSON")


_scan = make_scanner(_Grammar)  # type: ignore[arg-type]  # any object with these attributes will do
_write = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)


def dumps(value: object) -> bytes:
    """Write a value, as short as can be.

    Raises:
        TypeError: It is none that JSON knows.
        ValueError: The same of a number.
    """
    return "".join(_write(value, 0)).encode()


def loads(data: bytes | bytearray) -> object:
    """Read a value.

    Raises:
        ValueError: This is no JSON.
    """
    text = data.decode()
    try:
        value, end = _scan(text, len(text) - len(text.lstrip(SPACE)))
    except StopIteration:
        raise ValueError("this is no JSON") from None
    if text[end:].strip(SPACE):
        raise ValueError("more than one value")
    return value
