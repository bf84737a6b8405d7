"""What the agent in a sandbox can do, by its version."""

from __future__ import annotations

import functools
import re

MINIMUM = (0, 1, 0)
RECURSIVE_WATCH = (0, 1, 4)
METRICS = (0, 1, 5)
STDIN_FLAG = (0, 3, 0)
DEFAULT_USER = (0, 4, 0)
CLOSE_STDIN = (0, 5, 2)
OCTET_UPLOAD = (0, 5, 7)
FILE_METADATA = (0, 6, 2)
WATCH_ENTRIES = (0, 6, 3)
NETWORK_WATCH = (0, 6, 4)

_LEADING = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")


@functools.lru_cache(256)
def at_least(version: str, wanted: tuple[int, int, int]) -> bool:
    """Whether a version is that or newer; what is no version counts as new.

    Example:
        >>> at_least("0.5.10", (0, 5, 7)), at_least("v0.5.0-rc1", (0, 5, 7))
        (True, False)
    """
    match = _LEADING.match(version)
    return match is None or tuple(int(part or 0) for part in match.groups()) >= wanted
