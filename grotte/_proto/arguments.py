"""Checks of what callers pass in: a wrong number, name or path is refused before any byte is sent."""

from __future__ import annotations

import functools
import inspect
import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from types import CodeType
from urllib.parse import urlsplit

from grotte.errors import InvalidArgumentException

#: No Linux passes a longer argument to a program, whatever its page size (32 pages of 64 KiB).
MAX_COMMAND_BYTES = 2 * 1024 * 1024
#: What one message brings to a process, far below what servers take.
MAX_INPUT_BYTES = 8 * 1024 * 1024
#: What Linux takes as a path, its end not counted.
MAX_PATH_BYTES = 4095
#: No directory of users has longer names.
MAX_USER = 256
#: The control plane's ids and template references are far shorter.
MAX_NAME = 512
MAX_PID = 2**32 - 1
#: Nobody waits longer, in seconds: 10,000 years.
MAX_SECONDS = 10_000 * 366 * 86_400.0
#: How much of a wrong value stands in a message.
MAX_SHOWN = 200
#: What the domain name system takes as a name, and as a part of it.
MAX_HOST, MAX_LABEL = 253, 63
#: What an object that is called like a function has, and what an async function has in its code.
CALL = "__call__"
ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?(?::\d{1,5})?")


def shown(value: object) -> str:
    """A value as a message shows it: not at any length, and whatever it is."""
    try:
        said = repr(value)
    except Exception:  # noqa: BLE001 - of somebody else's class, or a number of too many digits
        return f"a {type(value).__name__} that cannot be shown"
    return said if len(said) <= MAX_SHOWN else f"{said[:MAX_SHOWN]}… ({len(said)} characters)"


def text(value: object, name: str, *, empty: bool = False) -> str:
    """A string without NUL that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidArgumentException(f"{name} must be a str, not {type(value).__name__}")
    if not value and not empty:
        raise InvalidArgumentException(f"{name} must not be empty")
    if "\0" in value:
        raise InvalidArgumentException(f"{name} must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentException(f"{name} has lone surrogates, which UTF-8 cannot carry") from None
    return value


def path(value: object, name: str) -> str:
    """A path in a sandbox."""
    value = text(value, name)
    size = len(value.encode())
    if size > MAX_PATH_BYTES:
        raise InvalidArgumentException(f"{name} is {size} bytes long, and no system takes more than {MAX_PATH_BYTES}")
    return value


def handler(value: object, name: str) -> None:
    """A callback, or None."""
    if value is not None and not callable(value):
        raise InvalidArgumentException(f"{name} must be a function, not {type(value).__name__}")


def plain_handler(value: object, name: str) -> None:
    """A callback where nobody could await what an async function returns, or None."""
    handler(value, name)
    if value is not None and _is_async(value):
        raise InvalidArgumentException(never_awaited(name))


def _is_async(function: object) -> bool:
    """Whether calling it only makes something to be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None) or getattr(getattr(type(function), CALL, None), "__code__", None)
    return isinstance(code, CodeType) and bool(code.co_flags & ASYNC_FLAGS)


def never_awaited(name: str) -> str:
    """What is wrong with an async function in the sync world."""
    return f"{name} must not be an async function: nothing would await it here; use a plain one, or the async classes"


def identifier(value: object, name: str) -> str:
    """An id or a template reference: visible ASCII."""
    value = text(value, name)
    if len(value) > MAX_NAME or not _VISIBLE.fullmatch(value):
        raise InvalidArgumentException(f"{name} must be at most {MAX_NAME} visible ASCII characters")
    return value


def user_name(value: object) -> str:
    """A user of the sandbox, as Basic authorization can carry it."""
    value = text(value, "user")
    if ":" in value or not value.isprintable() or len(value) > MAX_USER:
        raise InvalidArgumentException(f"user must be at most {MAX_USER} characters, none a colon or control character")
    return value


def command_line(value: object) -> str:
    value = text(value, "command")
    size = len(value.encode())
    if size > MAX_COMMAND_BYTES:
        raise InvalidArgumentException(
            f"the command is {size} bytes long, and no system takes more than {MAX_COMMAND_BYTES}: "
            "write it to a file in the sandbox and run that, or send the data to its stdin"
        )
    return value


def environment(value: object, name: str = "envs") -> dict[str, str]:
    """Environment variables; None for none."""
    found = string_map(value, name)
    for key in found:
        if not key or "=" in key:
            raise InvalidArgumentException(f"{name}: {key[:100]!r} is no name of an environment variable")
        if len(key.encode()) + len(found[key].encode()) > MAX_COMMAND_BYTES:
            raise InvalidArgumentException(f"{name}: {key[:100]!r} is longer than any system takes: write it to a file")
    return found


def string_map(value: object, name: str) -> dict[str, str]:
    """A mapping of strings to strings; None for an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgumentException(f"{name} must be a dict of strings, not {type(value).__name__}")
    return {
        text(key, f"a key of {name}", empty=True): text(item, f"{name}[{shown(key)}]", empty=True)
        for key, item in value.items()
    }


def seconds(value: object, name: str) -> float | None:
    """A time limit in seconds; None and 0 stand for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentException(f"{name} must be a number of seconds, not {type(value).__name__}")
    if value != value or value < 0:
        raise InvalidArgumentException(f"{name} must not be negative or NaN: {shown(value)}")
    return None if value == 0 or value > MAX_SECONDS else float(value)


def lifetime(value: object, name: str = "timeout", *, zero: bool = False) -> int:
    """A lifetime in whole seconds, rounded up."""
    number = seconds(value, name)
    if number is None and not (zero and value == 0):
        raise InvalidArgumentException(f"{name} must be a positive number of seconds, not {shown(value)}")
    return math.ceil(number or 0)


def whole(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentException(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise InvalidArgumentException(f"{name} must be between {low} and {high}, not {shown(value)}")
    return value


def terminal_side(value: object, name: str) -> int:
    """Rows or columns: what 16 bits hold."""
    return whole(value, name, 1, 65535)


def text_bytes(value: str) -> bytes:
    """Text as UTF-8; bytes that were decoded with ``surrogateescape`` as they were."""
    try:
        return value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise InvalidArgumentException("data has lone surrogates, which UTF-8 cannot carry") from None


def input_bytes(value: object) -> bytes:
    """What is written to a process; text as UTF-8."""
    if isinstance(value, str):
        return text_bytes(value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidArgumentException(f"data must be str or bytes, not {type(value).__name__}")
    return bytes(value)


def input_pieces(value: object) -> Iterator[str]:
    """The same in base64, in pieces of which each fits into one message; at least one."""
    data = input_bytes(value)
    for start in range(0, max(1, len(data)), MAX_INPUT_BYTES):
        yield b64encode(data[start : start + MAX_INPUT_BYTES]).decode()


def process_id(value: object) -> int:
    return whole(value, "pid", 1, MAX_PID)


def port_number(value: object) -> int:
    return whole(value, "port", 1, 65535)


def domain(value: object) -> str:
    """A host name with or without a port."""
    if not isinstance(value, str) or not _HOST.fullmatch(value) or not is_host(value.partition(":")[0]):
        raise InvalidArgumentException(f"domain must be a host name such as 'grotte.dev', not {shown(value)}")
    return value


def is_host(host: str) -> bool:
    """Whether a name could be looked up at all; one dot may be its end."""
    host = host.removesuffix(".")
    return len(host) <= MAX_HOST and all(0 < len(label) <= MAX_LABEL for label in host.split("."))


def url(value: object, name: str) -> str:
    """An ``http`` or ``https`` URL without user, query or fragment; the trailing slash is removed."""
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise InvalidArgumentException(f"{name} must be a URL of visible ASCII characters")
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and is_host(host) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgumentException(f"{name} must be an http:// or https:// URL with a host, not {shown(value)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidArgumentException(f"{name} must not have a user, a query or a fragment")
    return value.rstrip("/")


def is_visible(value: str) -> bool:
    """Whether it is visible ASCII characters alone."""
    return _VISIBLE.fullmatch(value) is not None


def secret(value: object, name: str) -> str:
    """A key: visible ASCII. It never stands in the message."""
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise InvalidArgumentException(f"{name} must be visible ASCII characters, without spaces or line breaks")
    return value


def headers(value: object) -> dict[str, str]:
    """Additional request headers."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgumentException(f"headers must be a dict of strings, not {type(value).__name__}")
    for name, item in value.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidArgumentException(f"{shown(name)} is no name of a header")
        if not isinstance(item, str) or not _HEADER_VALUE.fullmatch(item):
            raise InvalidArgumentException(
                f"the value of the header {shown(name)} has characters that no header can carry"
            )
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te"):
            raise InvalidArgumentException(f"the header {name!r} belongs to the transport")
    return dict(value)
