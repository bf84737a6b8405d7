"""The engine's memory beyond its own life: one SQLite file, readable by its user alone.

Statements run on the event loop: with a write-ahead log and no sync per commit they take tens of microseconds, and
what was committed survives a kill -9 of the engine.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from grotte.engine.builds.schema import SCHEMA as _TEMPLATES_SCHEMA
from grotte.engine.datadir import make_private
from grotte.engine.host.standalone.syscalls import allocate
from grotte.engine.lifecycle.network import Network
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.volumes import VolumeMount
from grotte.errors import EngineUnavailableException

SCHEMA_VERSION = 4
#: How long an ended sandbox and an idempotency key are remembered, in seconds.
MEMORY = 86400
#: How much of the disk the database and its log have ahead of them, in bytes; the log is used again at 4 MiB.
SPACE_AHEAD = 8 << 20
#: Ended sandboxes whose tokens are still told from wrong ones.
REMEMBERED_TOKENS = 1000

_SCHEMA_1 = """
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
_SCHEMA_2 = """
ALTER TABLE sandboxes ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
"""
_SCHEMA_3 = """
CREATE TABLE snapshots (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, hidden INTEGER NOT NULL,
    below TEXT NOT NULL, sandbox TEXT NOT NULL, made_at INTEGER NOT NULL
) STRICT;
"""
_STEPS = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3, _TEMPLATES_SCHEMA)


class Settings(msgspec.Struct, frozen=True):
    """What a sandbox was told to be."""

    timeout: float = 300
    auto_pause: bool = False
    auto_resume: bool = False
    network: Network = Network()
    build: str = ""
    auto_pause_memory: bool = True
    mounts: tuple[VolumeMount, ...] = ()
    reboots: bool = False


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
    settings: Settings


class SnapshotRow(msgspec.Struct, frozen=True):
    """What a sandbox had written at one moment.

    Attributes:
        id: Names its template and its layer.
        name: Its name among people, or nothing.
        hidden: No reference finds it; it goes when nothing stands on it any more.
        below: The snapshots that it stands on, topmost first.
        sandbox: Whose files it has.
        made_at: Unix microseconds.
        setup: That of the template which the sandbox started from.
    """

    id: str
    owner: str
    name: str
    tag: str
    hidden: bool
    below: list[str]
    sandbox: str
    made_at: int
    setup: Setup = Setup()


class Store:
    """The database, open for as long as the context lasts.

    Raises:
        EngineUnavailableException: it is damaged, cannot be written, or a newer engine wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[int] = []
        self._db: sqlite3.Connection

    def __enter__(self) -> Self:
        try:
            make_private(self._path)
            self._files = [os.open(self._path, os.O_RDWR | os.O_CLOEXEC)]
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._check()
            self._migrate()
            self._keep_space()
        except (OSError, sqlite3.Error) as error:
            raise EngineUnavailableException(f"the database {self._path} cannot be used: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        # Not before: closing any descriptor of a file gives up the locks that SQLite has on it.
        for file in self._files:
            os.close(file)

    def _keep_space(self) -> None:
        """Take what the database and its log will need on the disk, so that others may fill it."""
        log = self._path.with_name(f"{self._path.name}-wal")
        self._db.execute("BEGIN IMMEDIATE")  # makes the log
        self._db.execute("ROLLBACK")
        with suppress(OSError):  # a full disk, or one that has no such thing: then it is as it was
            if log.exists():
                self._files.append(os.open(log, os.O_RDWR | os.O_CLOEXEC))
            for file in self._files:
                allocate(file, os.fstat(file).st_size + SPACE_AHEAD)

    def _check(self) -> None:
        """Better not start than lose what a damaged file still has."""
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {found.splitlines()[-1]}: put a copy of it in its place")

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            self._db.close()
            raise EngineUnavailableException(f"the database {self._path} was written by a newer grotte")
        if version < SCHEMA_VERSION:
            missing = "".join(_STEPS[version:])
            self._db.executescript(f"BEGIN; {missing} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    @property
    def database(self) -> sqlite3.Connection:
        """The database, for those who keep tables of their own in it."""
        return self._db

    def kept(self) -> list[str]:
        """The sandboxes that did not end, although their engine may have, the snapshots and the layers."""
        rows = self._db.execute(
            "SELECT id FROM sandboxes WHERE state <> 'ended' UNION ALL SELECT id FROM snapshots"
            " UNION ALL SELECT id FROM layers WHERE id <> ''"
        )
        return [row[0] for row in rows]

    def recover(self) -> None:
        """What ran under an engine or a launcher that was killed is paused now, unless its time was up meanwhile.

        To be called before the host starts, which removes the files of all that is over.
        """
        now = _now()
        running = "FROM sandboxes WHERE state = 'running'"
        over = self._db.execute(f"SELECT id, settings {running} AND end_at <= ?", (now,)).fetchall()
        for sandbox_id, settings in over:
            if not msgspec.json.decode(settings, type=Settings).auto_pause:
                self.end(sandbox_id)
        self._db.execute(
            "UPDATE sandboxes SET state = 'paused', end_at = min(end_at, ?) WHERE state = 'running'", (now,)
        )
        self.forget_old()

    def forget_old(self) -> None:
        """Remove what ended, and what was answered, too long ago for anybody to ask."""
        oldest = _now() - MEMORY * 1_000_000
        self._db.execute("DELETE FROM sandboxes WHERE state = 'ended' AND ended_at < ?", (oldest,))
        self._db.execute("DELETE FROM idempotency WHERE made_at < ?", (oldest,))

    def paused(self) -> list[SandboxRow]:
        """All paused sandboxes."""
        columns = "id, owner, template, started_at, end_at, access_token, traffic_token, metadata, envs, settings"
        rows = self._db.execute(f"SELECT {columns} FROM sandboxes WHERE state = 'paused'").fetchall()  # noqa: S608  (ours)
        return [_sandbox_row(row) for row in rows]

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
            " metadata, envs, settings) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?)",
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
                msgspec.json.encode(row.settings).decode(),
            ),
        )

    def set_settings(self, sandbox_id: str, settings: Settings) -> None:
        text = msgspec.json.encode(settings).decode()
        self._db.execute("UPDATE sandboxes SET settings = ? WHERE id = ?", (text, sandbox_id))

    def set_end(self, sandbox_id: str, end_at: int, state: Literal["running", "paused"] = "running") -> None:
        self._db.execute("UPDATE sandboxes SET end_at = ?, state = ? WHERE id = ?", (end_at, state, sandbox_id))

    def end(self, sandbox_id: str) -> None:
        self._db.execute("UPDATE sandboxes SET state = 'ended', ended_at = ? WHERE id = ?", (_now(), sandbox_id))

    def snapshots(self) -> list[SnapshotRow]:
        """All of them, oldest first."""
        rows = self._db.execute(
            "SELECT id, owner, name, tag, hidden, below, sandbox, made_at, setup FROM snapshots ORDER BY made_at, id"
        ).fetchall()
        return [_snapshot_row(row) for row in rows]

    def add_snapshot(self, row: SnapshotRow) -> None:
        below, setup = (msgspec.json.encode(value).decode() for value in (row.below, row.setup))
        self._db.execute(
            "INSERT INTO snapshots (id, owner, name, tag, hidden, below, sandbox, made_at, setup)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.id, row.owner, row.name, row.tag, row.hidden, below, row.sandbox, row.made_at, setup),
        )

    def hide_snapshot(self, snapshot_id: str) -> None:
        self._db.execute("UPDATE snapshots SET hidden = 1 WHERE id = ?", (snapshot_id,))

    def unname_snapshot(self, snapshot_id: str) -> None:
        """Its name is another's now."""
        self._db.execute("UPDATE snapshots SET name = '' WHERE id = ?", (snapshot_id,))

    def remove_snapshot(self, snapshot_id: str) -> None:
        self._db.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,))

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

    def forget(self, owner: str, key: str) -> None:
        """The key stands for nothing any more."""
        self._db.execute("DELETE FROM idempotency WHERE owner = ? AND key = ?", (owner, key))


def _sandbox_row(row: tuple[str, str, str, int, int, str | None, str | None, str, str, str]) -> SandboxRow:
    metadata, envs = (msgspec.json.decode(text, type=dict[str, str]) for text in row[7:9])
    return SandboxRow(*row[:7], metadata, envs, msgspec.json.decode(row[9], type=Settings))


def _snapshot_row(row: tuple[str, str, str, str, int, str, str, int, str]) -> SnapshotRow:
    below, setup = msgspec.json.decode(row[5], type=list[str]), msgspec.json.decode(row[8], type=Setup)
    return SnapshotRow(*row[:4], bool(row[4]), below, *row[6:8], setup)


def _now() -> int:
    return time.time_ns() // 1000
