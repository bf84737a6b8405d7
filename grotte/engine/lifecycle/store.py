"""The engine's memory beyond its own life: one SQLite file, readable by its user alone.

Statements run on the event loop: with a write-ahead log and no sync per commit they take tens of microseconds, and
what was committed survives a kill -9 of the engine.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from grotte.engine.datadir import make_private
from grotte.errors import EngineUnavailableException

SCHEMA_VERSION = 1
#: How long an ended sandbox and an idempotency key are remembered, in seconds.
MEMORY = 86400
#: Ended sandboxes whose tokens are still told from wrong ones.
REMEMBERED_TOKENS = 1000

_SCHEMA = """
CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, template TEXT NOT NULL, state TEXT NOT NULL,
    started_at INTEGER NOT NULL, end_at INTEGER NOT NULL, ended_at INTEGER,
    access_token TEXT, traffic_token TEXT, metadata TEXT NOT NULL, envs TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_by_end ON sandboxes (state, ended_at);
CREATE TABLE idempotency (
    owner TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL, made_at INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT;
"""


class SandboxRow(msgspec.Struct, frozen=True):
    """A sandbox as it is stored; times are unix microseconds."""

    id: str
    owner: str
    template: str
    started_at: int
    end_at: int
    access_token: str | None
    traffic_token: str | None
    metadata: dict[str, str]
    envs: dict[str, str]


class Store:
    """The database, open for as long as the context lasts.

    Raises:
        EngineUnavailableException: it is damaged, cannot be written, or a newer engine wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection

    def __enter__(self) -> Self:
        try:
            make_private(self._path)
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise EngineUnavailableException(f"the database {self._path} cannot be used: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            self._db.close()
            raise EngineUnavailableException(f"the database {self._path} was written by a newer grotte")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def recover(self) -> int:
        """After a start: what ran under an engine that was killed is over. Returns how many sandboxes that were."""
        now = _now()
        ended = self._db.execute(
            "UPDATE sandboxes SET state = 'ended', ended_at = ? WHERE state = 'running'", (now,)
        ).rowcount
        oldest = now - MEMORY * 1_000_000
        self._db.execute("DELETE FROM sandboxes WHERE state = 'ended' AND ended_at < ?", (oldest,))
        self._db.execute("DELETE FROM idempotency WHERE made_at < ?", (oldest,))
        return ended

    def ended_tokens(self) -> list[tuple[str, str]]:
        """Access token and id of the sandboxes that ended last, oldest first."""
        rows = self._db.execute(
            "SELECT access_token, id FROM sandboxes WHERE state = 'ended' AND access_token IS NOT NULL"
            " ORDER BY ended_at DESC LIMIT ?",
            (REMEMBERED_TOKENS,),
        ).fetchall()
        return [(token, sandbox_id) for token, sandbox_id in reversed(rows)]

    def add(self, row: SandboxRow) -> None:
        self._db.execute(
            "INSERT INTO sandboxes (id, owner, template, state, started_at, end_at, access_token, traffic_token,"
            " metadata, envs) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?)",
            (
                row.id,
                row.owner,
                row.template,
                row.started_at,
                row.end_at,
                row.access_token,
                row.traffic_token,
                msgspec.json.encode(row.metadata).decode(),
                msgspec.json.encode(row.envs).decode(),
            ),
        )

    def set_end(self, sandbox_id: str, end_at: int) -> None:
        self._db.execute("UPDATE sandboxes SET end_at = ? WHERE id = ?", (end_at, sandbox_id))

    def end(self, sandbox_id: str) -> None:
        self._db.execute("UPDATE sandboxes SET state = 'ended', ended_at = ? WHERE id = ?", (_now(), sandbox_id))

    def answer(self, owner: str, key: str) -> tuple[bytes, bytes] | None:
        """The digest of the request and the answer that an idempotency key stands for."""
        row: tuple[bytes, bytes] | None = self._db.execute(
            "SELECT digest, answer FROM idempotency WHERE owner = ? AND key = ? AND made_at >= ?",
            (owner, key, _now() - MEMORY * 1_000_000),
        ).fetchone()
        return row

    def remember(self, owner: str, key: str, digest: bytes, answer: bytes) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)", (owner, key, digest, answer, _now())
        )


def _now() -> int:
    return time.time_ns() // 1000
