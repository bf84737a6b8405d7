"""What builds say, kept until their template goes."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Literal

import msgspec

log = logging.getLogger("grotte.engine")

Level = Literal["debug", "info", "warn", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warn", "error")
#: The longest message, and how many messages a build may write; both in what a person could still read.
MAX_MESSAGE = 16 * 1024
MAX_ENTRIES = 50_000


class Entry(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        at: Unix microseconds.
        step: What was being done: ``base``, ``finalize``, or the number of a step.
    """

    at: int
    level: Level
    step: str
    message: str


class BuildLogs:
    """The messages of all builds."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def writer(self, build_id: str) -> LogWriter:
        """Write on behalf of a build, after what it said before."""
        (count,) = self._db.execute("SELECT count(*) FROM build_logs WHERE build = ?", (build_id,)).fetchone()
        return LogWriter(self._db, build_id, count)

    def page(self, build_id: str, offset: int, limit: int, level: Level = "debug") -> list[Entry]:
        """Messages of a level or above it, after the first so many of them."""
        wanted = LEVELS[LEVELS.index(level) :]
        rows = self._db.execute(
            "SELECT at, level, step, message FROM build_logs WHERE build = ?"
            " AND level IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT ? OFFSET ?",
            (build_id, msgspec.json.encode(wanted).decode(), limit, offset),
        )
        return [Entry(*row) for row in rows]

    def around(self, build_id: str, cursor: int | None, limit: int, level: Level, *, backward: bool) -> list[Entry]:
        """Messages from a moment on, or backwards from it."""
        entries = self.page(build_id, 0, MAX_ENTRIES, level)
        if backward:
            return [entry for entry in entries if cursor is None or entry.at <= cursor][::-1][:limit]
        return [entry for entry in entries if cursor is None or entry.at >= cursor][:limit]


class LogWriter:
    """The log of one build; the oldest messages win when there is no room for more."""

    def __init__(self, database: sqlite3.Connection, build_id: str, count: int) -> None:
        self._db = database
        self._build_id = build_id
        self._count = count
        self._last: list[Entry] = []

    @property
    def last(self) -> list[Entry]:
        """The last few messages."""
        return list(self._last)

    def write(self, message: str, level: Level = "info", step: str = "base") -> None:
        """Add a message."""
        if len(message) > MAX_MESSAGE:
            message = message[:MAX_MESSAGE] + "…"
        # errors are few, and what everybody looks for
        if self._count >= MAX_ENTRIES and level != "error":
            if self._count > MAX_ENTRIES:
                return
            level, message = "warn", f"no more than {MAX_ENTRIES} messages are kept"
        entry = Entry(time.time_ns() // 1000, level, step, message)
        self._last = [*self._last[-9:], entry]
        row = (self._build_id, self._count, entry.at, level, step, message)
        try:
            self._db.execute("INSERT INTO build_logs VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:  # a full disk: whoever needs one says so
            log.warning("event=build_log_not_stored build=%s reason=%s", self._build_id, error)
            return
        self._count += 1
