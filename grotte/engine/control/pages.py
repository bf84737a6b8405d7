"""Lists in pages: what stands on one is found again by time and name, whatever came and went meanwhile."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from grotte.engine.faults import ControlFault, Headers

MAX_PAGE = 100


class Dated(Protocol):
    """A row that was made at a moment."""

    @property
    def id(self) -> str: ...

    @property
    def made_at(self) -> int: ...


Row = TypeVar("Row", bound=Dated)


def read_limit(text: str | None, default: int = MAX_PAGE) -> int:
    """How many on a page.

    Raises:
        ControlFault: 400, it is out of bounds.
    """
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise ControlFault(400, f"limit must be between 1 and {MAX_PAGE}")
    return int(text)


def read_page(query: dict[str, str], rows: Sequence[Row]) -> tuple[Sequence[Row], Headers]:
    """The page that a query asks for, and the header that leads to the next one.

    Args:
        rows: All of them, the newest first.

    Raises:
        ControlFault: 400, it asks for none.
    """
    limit, token = read_limit(query.get("limit")), query.get("nextToken")
    if token:
        last = read_token(token, "nextToken")
        rows = [row for row in rows if (row.made_at, row.id) < last]
    more = [("x-next-token", token_of(rows[limit - 1].made_at, rows[limit - 1].id))] if len(rows) > limit else []
    return rows[:limit], more


def token_of(made_at: int, name: str) -> str:
    """What leads to those behind this one."""
    return base64.urlsafe_b64encode(f"{made_at}__{name}".encode()).decode()


def read_token(token: str, what: str) -> tuple[int, str]:
    """Read one back.

    Raises:
        ControlFault: 400, it is none.
    """
    try:
        text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
        made_at, _, name = text.partition("__")
        return int(made_at), name
    except (ValueError, binascii.Error):
        raise ControlFault(400, f"invalid {what}") from None
