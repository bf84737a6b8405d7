"""The handlers behind the logs of sandboxes."""

from __future__ import annotations

import re
from itertools import islice

import msgspec

from grotte.engine.control.routes import Routes
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.journal import LEVELS, Entry, Journal, Level
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import rfc3339

MAX_ENTRIES = 1000
MAX_SEARCH = 256
#: Later than anything that is written down, in milliseconds.
_FAR = 10**18


class LogEntry(msgspec.Struct):
    timestamp: str
    level: str
    message: str
    fields: dict[str, str]


class LogLine(msgspec.Struct):
    timestamp: str
    line: str


class Logs:
    """The handlers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> Routes:
        return {"GET /sandboxes/{id}/logs": self.show_v1, "GET /v2/sandboxes/{id}/logs": self.show_v2}

    async def show_v1(self, request: Request, owner: str, sandbox_id: str) -> None:
        start = _number(request.query, "start", 0)
        limit = min(_number(request.query, "limit", MAX_ENTRIES), MAX_ENTRIES)
        journal = self._journal(sandbox_id, owner)
        entries = list(islice((entry for entry in journal if _millis(entry) >= start), limit))
        lines = [LogLine(rfc3339(entry.at), entry.message) for entry in entries]
        await request.reply_json(200, {"logs": lines, "logEntries": [_shown(entry) for entry in entries]})

    async def show_v2(self, request: Request, owner: str, sandbox_id: str) -> None:
        query = request.query
        limit = _number(query, "limit", MAX_ENTRIES)
        if limit > MAX_ENTRIES:
            raise ControlFault(400, f"limit must be at most {MAX_ENTRIES}")
        direction = query.get("direction", "backward")
        if direction not in ("forward", "backward"):
            raise ControlFault(400, "direction must be forward or backward")
        wanted, search = _wanted_levels(query.get("level")), query.get("search", "")
        if len(search) > MAX_SEARCH:
            raise ControlFault(400, f"search must have at most {MAX_SEARCH} characters")
        journal = self._journal(sandbox_id, owner)
        if direction == "forward":
            first = _number(query, "cursor", 0)
            entries = (entry for entry in journal if _millis(entry) >= first)
        else:
            last = _number(query, "cursor", _FAR)
            entries = (entry for entry in reversed(journal) if _millis(entry) <= last)
        matching = (entry for entry in entries if entry.level in wanted and search in entry.message)
        await request.reply_json(200, {"logs": [_shown(entry) for entry in islice(matching, limit)]})

    def _journal(self, sandbox_id: str, owner: str) -> Journal:
        journal = self._registry.journals.find(sandbox_id, owner)
        if journal is None:
            raise ControlFault(404, f"sandbox {sandbox_id} not found")
        return journal


def _wanted_levels(text: str | None) -> tuple[Level, ...]:
    """The named level and all that are more important."""
    for place, level in enumerate(LEVELS):
        if text == level:
            return LEVELS[place:]
    if text is not None:
        raise ControlFault(400, f"level must be one of {', '.join(LEVELS)}")
    return LEVELS


def _millis(entry: Entry) -> int:
    return entry.at // 1000


def _shown(entry: Entry) -> LogEntry:
    return LogEntry(rfc3339(entry.at), entry.level, entry.message, entry.fields)


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ControlFault(400, f"{name} must be a whole number and not negative")
    return int(text)
