"""Volumes: whose they are, what they are called, and what holds them."""

from __future__ import annotations

import logging
import re
import secrets
import sqlite3
import string
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from grotte.engine.faults import ControlFault
from grotte.engine.host import GuestError, Mount, VolumeKeeper
from grotte.engine.lifecycle.keys import new_access_token, same_secret

log = logging.getLogger("grotte.engine")

MAX_NAME = 128
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_ALPHABET = string.ascii_lowercase + string.digits
_COLUMNS = "id, owner, name, token"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, token TEXT NOT NULL, made_at INTEGER NOT NULL,
    UNIQUE (owner, name)
) STRICT
"""


class VolumeMount(msgspec.Struct, frozen=True):
    """A volume in a sandbox: what it was called when it was mounted, which one it is, and where it is."""

    name: str
    volume: str
    path: str


class Volume(msgspec.Struct, frozen=True):
    """A volume.

    Attributes:
        token: Lets its holder at the content.
    """

    id: str
    owner: str
    name: str
    token: str

    def __repr__(self) -> str:
        return f"Volume({self.id}, {self.name})"


class Volumes:
    """The volumes of an engine, and who may use them.

    Args:
        database: Where they are written down.
        keeper: Who touches their files.
        mounted: Tells what sandboxes have mounted.

    Attributes:
        keeper: The same.
    """

    def __init__(
        self, database: sqlite3.Connection, keeper: VolumeKeeper, mounted: Callable[[], Iterable[VolumeMount]]
    ) -> None:
        self._db = database
        self._mounted = mounted
        self._held: list[VolumeMount] = []
        self.keeper = keeper
        database.execute(_SCHEMA)

    async def sweep(self) -> None:
        """Remove what an engine that was killed had no time for; with volumes there may be remains of them."""
        ids = [row[0] for row in self._db.execute("SELECT id FROM volumes")]
        if not ids and self.keeper.unused:
            return
        try:
            await self.keeper.sweep(ids)
        except GuestError as error:
            log.warning("event=volumes_not_swept reason=%s", error)

    async def create(self, owner: str, name: str) -> Volume:
        """Make an empty volume.

        Raises:
            ControlFault: 400, the name is taken or is none; 500, the machine could not do it.
        """
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise ControlFault(400, f"a volume's name is 1 to {MAX_NAME} of the characters A-Z, a-z, 0-9, _ and -")
        volume = Volume("".join(secrets.choice(_ALPHABET) for _ in range(20)), owner, name, new_access_token())
        try:
            # Written down first: what is on the disk and not written down is removed at the next start.
            row = (volume.id, owner, name, volume.token, time.time_ns() // 1000)
            self._db.execute("INSERT INTO volumes (id, owner, name, token, made_at) VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise ControlFault(400, f"there is a volume {name} already") from None
        try:
            await self.keeper.make(volume.id)
        except BaseException as error:
            self._db.execute("DELETE FROM volumes WHERE id = ?", (volume.id,))
            if isinstance(error, GuestError):
                raise ControlFault(500, f"the volume could not be made: {error.message}") from None
            raise
        log.info("event=volume_created volume=%s", volume.id)
        return volume

    def all_owned(self, owner: str) -> list[Volume]:
        """An owner's volumes, by name."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM volumes WHERE owner = ? ORDER BY name", (owner,))  # noqa: S608  (ours)
        return [Volume(*row) for row in rows]

    def owned(self, volume_id: str, owner: str) -> Volume:
        """A volume of this owner.

        Raises:
            ControlFault: 404, there is none, or it is another's.
        """
        volume = self._find("id", volume_id)
        if volume is None or volume.owner != owner:
            raise ControlFault(404, f"volume {volume_id[:100]} not found")
        return volume

    def by_token(self, volume_id: str, token: str) -> Volume:
        """The volume that a token lets its holder at.

        Raises:
            ControlFault: 404, there is no such volume; 401, this is not its token.
        """
        volume = self._find("id", volume_id)
        if volume is None:
            raise ControlFault(404, f"volume {volume_id[:100]} not found")
        if not same_secret(token, volume.token):
            raise ControlFault(401, "the token is not that of this volume: send it as Authorization: Bearer")
        return volume

    def _find(self, column: str, value: str) -> Volume | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM volumes WHERE {column} = ?", (value,)).fetchone()  # noqa: S608  (ours)
        return None if row is None else Volume(*row)

    def mount(self, owner: str, name: str, path: str) -> VolumeMount:
        """A mount of an owner's volume.

        Raises:
            ControlFault: 404, there is no such volume.
        """
        for volume in self.all_owned(owner):
            if volume.name == name:
                return VolumeMount(name, volume.id, path)
        raise ControlFault(404, f"volume {name[:100]} not found")

    @contextmanager
    def holding(self, mounts: Iterable[VolumeMount]) -> Iterator[None]:
        """A sandbox is about to have these, which must not go meanwhile.

        Raises:
            ControlFault: 404, one of them has gone.
        """
        taken = list(mounts)
        for mount in taken:
            if self._find("id", mount.volume) is None:
                raise ControlFault(404, f"volume {mount.name} not found")
        self._held += taken
        try:
            yield
        finally:
            for mount in taken:
                self._held.remove(mount)

    async def delete(self, volume: Volume) -> None:
        """Delete a volume with all that is in it.

        Raises:
            ControlFault: 409, sandboxes have it mounted.
        """
        if any(mount.volume == volume.id for mount in (*self._held, *self._mounted())):
            raise ControlFault(409, f"volume {volume.name} is mounted in a sandbox")
        self._db.execute("DELETE FROM volumes WHERE id = ?", (volume.id,))
        log.info("event=volume_deleted volume=%s", volume.id)
        try:
            await self.keeper.drop(volume.id)
        except GuestError as error:
            # What is left is removed at the next start.
            log.error("event=volume_left volume=%s reason=%s", volume.id, error)  # noqa: TRY400  (a reason, no bug)


def mounts_of(mounts: Iterable[VolumeMount]) -> tuple[Mount, ...]:
    """The same as the host takes them."""
    return tuple(Mount(mount.volume, mount.path) for mount in mounts)
