"""Pairs that are stored with a file, as the headers that carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from grotte._proto import arguments
from grotte.errors import InvalidArgumentException

PREFIX = "X-Metadata-"
#: What a key may take, and all of it together, with the prefix that each has on the disk, in bytes.
MAX_KEY = 246
MAX_ALL = 4096
STORED_PREFIX = "user.e2b."
_KEY = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def metadata_headers(metadata: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """A header for each pair; keys are stored in lower case.

    Raises:
        InvalidArgumentException: a header cannot carry it, or it is too long.
    """
    pairs = arguments.string_map(metadata, "metadata")
    for key, value in pairs.items():
        if len(key) > MAX_KEY or not _KEY.fullmatch(key):
            raise InvalidArgumentException(
                f"a key of metadata must be a header name of at most {MAX_KEY} bytes: {key!r}"
            )
        if not (value.isascii() and value.isprintable()) or value != value.strip():
            raise InvalidArgumentException(f"metadata[{key!r}] must be printable ASCII without spaces around it")
    if len({key.lower() for key in pairs}) != len(pairs):
        raise InvalidArgumentException("two keys of metadata are the same in lower case")
    if sum(len(STORED_PREFIX) + len(key) + len(value) for key, value in pairs.items()) > MAX_ALL:
        raise InvalidArgumentException(f"metadata must not take more than {MAX_ALL} bytes")
    return [(PREFIX + key.lower(), value) for key, value in pairs.items()]
