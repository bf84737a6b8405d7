"""`GET /v2/sandboxes`: which sandboxes, in which order, from where on."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus

from grotte.engine.control.pages import read_limit
from grotte.engine.faults import ControlFault
from grotte.engine.lifecycle.ids import parse_template
from grotte.engine.lifecycle.sandbox import Sandbox, rfc3339

_STATES = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the last page ended: the start of its last sandbox, and its id where starts are equal."""

    started_at: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A checked query."""

    metadata: dict[str, str]
    states: frozenset[str]
    limit: int
    ascending: bool
    started_after: int | None
    template: str | None
    cursor: Cursor | None

    def matches(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox is wanted, on whatever page."""
        template = sandbox.template
        return (
            sandbox.state in self.states
            and self.metadata.items() <= sandbox.metadata.items()
            and (self.started_after is None or sandbox.started_at > self.started_after)
            and (self.template is None or self.template in (template.alias, template.template_id))
        )

    def page(self, matching: list[Sandbox]) -> tuple[list[Sandbox], str | None]:
        """One page of the sandboxes, and the token of the next one."""
        ordered = sorted(matching, key=_position, reverse=not self.ascending)
        if self.cursor is not None:
            last = (self.cursor.started_at, self.cursor.sandbox_id)
            ordered = [s for s in ordered if (_position(s) > last) == self.ascending and _position(s) != last]
        page = ordered[: self.limit]
        return page, self._token(page[-1]) if len(ordered) > self.limit else None

    def _token(self, last: Sandbox) -> str:
        text = f"{rfc3339(last.started_at)}__{last.sandbox_id}" + ("__asc" if self.ascending else "")
        return base64.urlsafe_b64encode(text.encode()).decode()


def read_listing(query: dict[str, str]) -> Listing:
    """Check a query.

    Raises:
        ControlFault: 400, a parameter makes no sense.
    """
    order = query.get("order") or "desc"
    if order not in ("asc", "desc"):
        raise ControlFault(400, "order must be asc or desc")
    started_after = query.get("startedAfter")
    template = query.get("template")
    return Listing(
        metadata=read_metadata(query.get("metadata")),
        states=_states(query.get("state")),
        limit=read_limit(query.get("limit")),
        ascending=order == "asc",
        started_after=_moment(started_after) if started_after else None,
        template=parse_template(template).alias if template else None,
        cursor=_cursor(query.get("nextToken"), ascending=order == "asc"),
    )


def read_metadata(text: str | None) -> dict[str, str]:
    """The metadata filter. Clients quote keys and values, then the pairs, then the query: two layers are left.

    Raises:
        ControlFault: 400, it is no list of ``key=value``.
    """
    if not text:
        return {}
    found: dict[str, str] = {}
    for pair in unquote_plus(text).split("&"):
        if pair.count("=") != 1:
            raise ControlFault(400, "metadata must be key=value pairs, joined by '&'")
        key, _, value = pair.partition("=")
        found[unquote_plus(key)] = unquote_plus(value)
    return found


def _position(sandbox: Sandbox) -> tuple[int, str]:
    return sandbox.started_at, sandbox.sandbox_id


def _states(text: str | None) -> frozenset[str]:
    if not text:
        return _STATES
    states = frozenset(part.strip() for part in text.split(","))
    if not states <= _STATES:
        raise ControlFault(400, "state must be running, paused or both, joined by ','")
    return states


def _moment(text: str) -> int:
    """RFC 3339 as unix microseconds."""
    # A '+' that nobody quoted arrives as a space.
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+ -]\d\d:\d\d)", text)
    try:
        if match is None:
            raise ValueError
        whole, fraction, zone = match.groups()
        seconds = datetime.fromisoformat(whole.upper() + zone.upper().replace(" ", "+")).timestamp()
    except (ValueError, OverflowError):
        raise ControlFault(400, "expected a time as in 2026-01-31T12:00:00Z") from None
    return round(seconds) * 1_000_000 + int((fraction or "0").ljust(6, "0")[:6])


def _cursor(token: str | None, *, ascending: bool) -> Cursor | None:
    if not token:
        return None
    try:
        parts = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode().split("__")
        if len(parts) not in (2, 3) or (len(parts) == 3) != ascending or parts[2:] not in ([], ["asc"]):
            raise ValueError
        return Cursor(_moment(parts[0]), parts[1])
    except (ValueError, binascii.Error, ControlFault):
        raise ControlFault(400, "invalid nextToken") from None
