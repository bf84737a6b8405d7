"""The rows of the tables in ``docs/errors.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `([\w-]+)` \| (.+?) \| `(\w+)` \| (.*?) ?\|$", re.MULTILINE)
#: The words of the last column.
ATTRIBUTES = {
    "sandbox": "sandbox_id",
    "request": "request",
    "status": "status_code",
    "message": "server_message",
}


@dataclass(frozen=True)
class Row:
    """What a condition raises, and which attributes that has."""

    condition: str
    exception: str
    attributes: frozenset[str]


def rows() -> list[Row]:
    found = []
    for condition, _, exception, words in ROW.findall(PAGE.read_text()):
        named = filter(None, words.split(", "))
        found.append(Row(condition, exception, frozenset(ATTRIBUTES[word] for word in named)))
    return found


def attributes_of(error: Exception) -> set[str]:
    """The attributes that an exception really has."""
    return {name for name in ATTRIBUTES.values() if getattr(error, name) is not None}
