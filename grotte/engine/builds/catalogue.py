"""The templates that people built: names, builds, tags, and the layers that they share."""

from __future__ import annotations

import secrets
import sqlite3
import string
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from grotte.engine.lifecycle.ids import TemplateReference
from grotte.engine.lifecycle.setup import Setup

_ALPHABET = string.ascii_lowercase + string.digits
Status = Literal["waiting", "building", "ready", "error"]


class Reason(msgspec.Struct, frozen=True):
    """Why a build failed.

    Attributes:
        step: ``base``, ``finalize``, or the number of the step, from 1 on.
    """

    message: str
    step: str


class TemplateRow(msgspec.Struct, frozen=True):
    """A template; times are unix microseconds."""

    id: str
    owner: str
    name: str
    public: bool
    made_at: int
    changed_at: int
    spawned: int
    spawned_at: int | None


class BuildRow(msgspec.Struct, frozen=True):
    """One attempt to build a template.

    Attributes:
        id: A UUID.
        tags: What it will be called when it is ready.
        layers: What it has made so far, topmost first.
    """

    id: str
    template: str
    status: Status
    tags: list[str]
    layers: list[str]
    setup: Setup
    reason: Reason | None
    made_at: int
    changed_at: int
    ended_at: int | None


class TagRow(msgspec.Struct, frozen=True):
    """What a tag means."""

    tag: str
    build: str
    made_at: int


_TEMPLATE = "SELECT id, owner, name, public, made_at, changed_at, spawned, spawned_at FROM templates"
_BUILD = "SELECT id, template, status, tags, layers, setup, reason, made_at, changed_at, ended_at FROM builds"


class Catalogue:
    """Rows of the engine's database; statements run on the event loop, as the store's do."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """All statements of a block take effect, or none: whenever the engine is killed, and if the disk is full."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    # -- templates -------------------------------------------------------------------------------------------------

    def template(self, reference: TemplateReference, owner: str) -> TemplateRow | None:
        """An owner's template, by name or id."""
        if reference.namespace is not None:
            return None
        where = f"{_TEMPLATE} WHERE owner = ? AND (name = ? OR id = ?) ORDER BY name = ? DESC"
        return self._template(where, owner, *[reference.alias] * 3)

    def public_template(self, reference: TemplateReference) -> TemplateRow | None:
        """Anybody's template that is for everybody; of several with one name, the oldest."""
        if reference.namespace is not None:
            return None
        where = f"{_TEMPLATE} WHERE public = 1 AND (name = ? OR id = ?) ORDER BY made_at, id"
        return self._template(where, reference.alias, reference.alias)

    def template_by_id(self, template_id: str) -> TemplateRow | None:
        return self._template(f"{_TEMPLATE} WHERE id = ?", template_id)

    def _template(self, statement: str, *values: object) -> TemplateRow | None:
        row = self._db.execute(statement, values).fetchone()
        return None if row is None else _template_row(row)

    def templates(self, owner: str) -> list[TemplateRow]:
        """An owner's templates, newest first."""
        rows = self._db.execute(f"{_TEMPLATE} WHERE owner = ? ORDER BY made_at DESC, id DESC", (owner,)).fetchall()
        return [_template_row(row) for row in rows]

    def add_template(self, owner: str, name: str) -> TemplateRow:
        now = _now()
        template_id = new_layer_id()
        self._db.execute(
            "INSERT INTO templates (id, owner, name, public, made_at, changed_at) VALUES (?, ?, ?, 0, ?, ?)",
            (template_id, owner, name, now, now),
        )
        return TemplateRow(template_id, owner, name, False, now, now, 0, None)

    def set_public(self, template_id: str, public: bool) -> None:
        self._db.execute("UPDATE templates SET public = ?, changed_at = ? WHERE id = ?", (public, _now(), template_id))

    def spawned(self, template_id: str) -> None:
        """A sandbox has started from it."""
        self._db.execute(
            "UPDATE templates SET spawned = spawned + 1, spawned_at = ? WHERE id = ?", (_now(), template_id)
        )

    def remove_template(self, template_id: str) -> None:
        """Forget it, with its builds, tags and logs."""
        builds = "(SELECT id FROM builds WHERE template = ?)"
        with self._at_once():
            for statement in (
                f"DELETE FROM build_logs WHERE build IN {builds}",  # noqa: S608  (ours)
                "DELETE FROM tags WHERE template = ?",
                "DELETE FROM builds WHERE template = ?",
                "DELETE FROM templates WHERE id = ?",
            ):
                self._db.execute(statement, (template_id,))

    # -- builds ----------------------------------------------------------------------------------------------------

    def add_build(self, template_id: str, tags: list[str], setup: Setup) -> BuildRow:
        now = _now()
        row = BuildRow(str(uuid.uuid4()), template_id, "waiting", tags, [], setup, None, now, now, None)
        self._db.execute(
            "INSERT INTO builds VALUES (?, ?, 'waiting', ?, '[]', ?, NULL, ?, ?, NULL)",
            (row.id, template_id, _text(tags), _text(setup), now, now),
        )
        return row

    def build(self, build_id: str) -> BuildRow | None:
        row = self._db.execute(f"{_BUILD} WHERE id = ?", (build_id,)).fetchone()
        return None if row is None else _build_row(row)

    def builds(self, template_id: str) -> list[BuildRow]:
        """All builds of a template, newest first."""
        statement = f"{_BUILD} WHERE template = ? ORDER BY made_at DESC, id DESC"
        return [_build_row(row) for row in self._db.execute(statement, (template_id,))]

    def set_building(self, build_id: str) -> None:
        self._db.execute("UPDATE builds SET status = 'building', changed_at = ? WHERE id = ?", (_now(), build_id))

    def set_progress(self, build_id: str, layers: list[str], setup: Setup) -> None:
        """What a build has come to: its layers are needed from now on."""
        self._db.execute(
            "UPDATE builds SET layers = ?, setup = ?, changed_at = ? WHERE id = ?",
            (_text(layers), _text(setup), _now(), build_id),
        )

    def set_ready(self, build: BuildRow) -> None:
        """A build has succeeded: its tags mean it now."""
        now = _now()
        with self._at_once():
            self._db.execute(
                "UPDATE builds SET status = 'ready', changed_at = ?, ended_at = ? WHERE id = ?", (now, now, build.id)
            )
            self._db.execute("UPDATE templates SET changed_at = ? WHERE id = ?", (now, build.template))
            self._set_tags(build.template, build.id, build.tags)

    def set_failed(self, build_id: str, reason: Reason) -> None:
        now = _now()
        self._db.execute(
            "UPDATE builds SET status = 'error', reason = ?, changed_at = ?, ended_at = ? WHERE id = ?",
            (_text(reason), now, now, build_id),
        )

    def recover(self) -> None:
        """After a start: builds that an engine was at are over."""
        for (build_id,) in self._db.execute("SELECT id FROM builds WHERE status = 'building'").fetchall():
            self.set_failed(build_id, Reason("the engine was stopped during the build: build again", "base"))

    # -- tags ------------------------------------------------------------------------------------------------------

    def tags(self, template_id: str) -> list[TagRow]:
        """A template's tags, the latest first."""
        rows = self._db.execute(
            "SELECT tag, build, made_at FROM tags WHERE template = ? ORDER BY made_at DESC, tag", (template_id,)
        )
        return [TagRow(*row) for row in rows]

    def tagged(self, template_id: str, tag: str) -> BuildRow | None:
        """The build that a tag means."""
        row = self._db.execute("SELECT build FROM tags WHERE template = ? AND tag = ?", (template_id, tag)).fetchone()
        return None if row is None else self.build(row[0])

    def set_tags(self, template_id: str, build_id: str, tags: Iterable[str]) -> None:
        with self._at_once():
            self._set_tags(template_id, build_id, tags)

    def _set_tags(self, template_id: str, build_id: str, tags: Iterable[str]) -> None:
        now = _now()
        self._db.executemany(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)", [(template_id, tag, build_id, now) for tag in tags]
        )

    def remove_tags(self, template_id: str, tags: Iterable[str]) -> None:
        with self._at_once():
            self._db.executemany(
                "DELETE FROM tags WHERE template = ? AND tag = ?", [(template_id, tag) for tag in tags]
            )

    # -- layers ----------------------------------------------------------------------------------------------------

    def layer(self, key: str) -> str | None:
        """The layer that a key stands for; empty if what it stands for has changed no file."""
        row = self._db.execute("SELECT id FROM layers WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def add_layer(self, key: str, layer: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO layers VALUES (?, ?, ?)", (key, layer, _now()))

    def layers(self) -> set[str]:
        """All layers that builds have made."""
        return {row[0] for row in self._db.execute("SELECT id FROM layers WHERE id <> ''")}

    def remove_layer(self, layer: str) -> None:
        self._db.execute("DELETE FROM layers WHERE id = ?", (layer,))

    def needed_layers(self) -> set[str]:
        """The layers of builds that can be started, go on, or were attempted since the last success."""
        rows = self._db.execute(
            "SELECT layers FROM builds WHERE status IN ('waiting', 'building') OR id IN (SELECT build FROM tags)"
            " OR made_at >= (SELECT coalesce(max(made_at), 0) FROM builds AS others"
            " WHERE others.template = builds.template AND others.status = 'ready')"
        )
        return {layer for (text,) in rows for layer in msgspec.json.decode(text, type=list[str])}


def new_layer_id() -> str:
    """20 characters of ``[a-z0-9]`` that name a template or a layer."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))


# Rows have the types of their columns, which only the database knows.
def _template_row(row: tuple[str, str, str, int, int, int, int, int | None]) -> TemplateRow:
    return TemplateRow(*row[:3], bool(row[3]), *row[4:7], row[7])


def _build_row(row: tuple[str, str, Status, str, str, str, str | None, int, int, int | None]) -> BuildRow:
    tags, layers = (msgspec.json.decode(text, type=list[str]) for text in row[3:5])
    setup = msgspec.json.decode(row[5], type=Setup)
    reason = None if row[6] is None else msgspec.json.decode(row[6], type=Reason)
    return BuildRow(*row[:3], tags, layers, setup, reason, *row[7:])


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _now() -> int:
    return time.time_ns() // 1000
