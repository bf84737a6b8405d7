"""The tables of templates and of what they are made of."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE templates (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, public INTEGER NOT NULL,
    made_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, spawned INTEGER NOT NULL DEFAULT 0, spawned_at INTEGER,
    UNIQUE (owner, name)
) STRICT;
CREATE TABLE builds (
    id TEXT PRIMARY KEY, template TEXT NOT NULL, status TEXT NOT NULL, tags TEXT NOT NULL, layers TEXT NOT NULL,
    setup TEXT NOT NULL, reason TEXT, made_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, ended_at INTEGER
) STRICT;
CREATE INDEX builds_by_template ON builds (template, made_at);
CREATE TABLE tags (
    template TEXT NOT NULL, tag TEXT NOT NULL, build TEXT NOT NULL, made_at INTEGER NOT NULL,
    PRIMARY KEY (template, tag)
) STRICT;
CREATE TABLE build_logs (
    build TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, level TEXT NOT NULL, step TEXT NOT NULL,
    message TEXT NOT NULL, PRIMARY KEY (build, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE layers (key TEXT PRIMARY KEY, id TEXT NOT NULL, made_at INTEGER NOT NULL) STRICT;
ALTER TABLE snapshots ADD COLUMN setup TEXT NOT NULL DEFAULT '{}';
"""
