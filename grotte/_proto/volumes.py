"""Volumes on the wire: the JSON of ``/volumes`` and ``/volumecontent``, and what users give and get."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, UnsetType

from grotte._proto import arguments
from grotte._proto.control import ControlMessage
from grotte._proto.entries import timestamp
from grotte.errors import InvalidArgumentException
from grotte.volume_models import VolumeAndToken, VolumeEntryStat, VolumeFileType, VolumeInfo

_NAME = re.compile(r"[A-Za-z0-9_-]+")
#: The largest user or group id, and the largest mode: permissions with setuid, setgid and sticky.
MAX_ID = 2**32 - 2
MAX_MODE = 0o7777
MAX_DEPTH = 2**31 - 1
_TYPES = {kind.value: kind for kind in VolumeFileType}


class NewVolume(ControlMessage, kw_only=True):
    """``POST /volumes``."""

    name: str


class Volume(ControlMessage, kw_only=True):
    """An element of ``GET /volumes``; with the token, the answer of create and get."""

    volume_id: str = msgspec.field(name="volumeID")
    name: str
    token: str | None = None
    domain: str | None = None


class EntryStat(ControlMessage, kw_only=True):
    """What is at a path of a volume."""

    name: str
    type: str
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    atime: str
    mtime: str
    ctime: str
    target: str | None = None


class EntryPatch(ControlMessage, kw_only=True):
    """``PATCH /volumecontent/{id}/path``."""

    uid: int | UnsetType = UNSET
    gid: int | UnsetType = UNSET
    mode: int | UnsetType = UNSET


def volume_name(name: object) -> str:
    """The name of a new volume."""
    name = arguments.text(name, "name")
    if not _NAME.fullmatch(name):
        raise InvalidArgumentException(f"name must be letters, digits, '-' and '_', not {arguments.shown(name)}")
    return name


def public_info(volume: Volume) -> VolumeInfo:
    return VolumeInfo(volume_id=volume.volume_id, name=volume.name)


def public_volume(volume: Volume) -> VolumeAndToken:
    return VolumeAndToken(
        volume_id=volume.volume_id, name=volume.name, token=volume.token or "", domain=volume.domain or None
    )


def public_stat(stat: EntryStat) -> VolumeEntryStat:
    return VolumeEntryStat(
        name=stat.name,
        type=_TYPES.get(stat.type, VolumeFileType.UNKNOWN),
        path=stat.path,
        size=stat.size,
        mode=stat.mode,
        uid=stat.uid,
        gid=stat.gid,
        atime=timestamp(stat.atime),
        mtime=timestamp(stat.mtime),
        ctime=timestamp(stat.ctime),
        target=stat.target,
    )


def owner_and_mode(uid: int | None, gid: int | None, mode: int | None) -> dict[str, int]:
    """Those of the three that are given."""
    limits = {"uid": (uid, MAX_ID), "gid": (gid, MAX_ID), "mode": (mode, MAX_MODE)}
    return {
        name: arguments.whole(value, name, 0, limit) for name, (value, limit) in limits.items() if value is not None
    }


def placing_query(path: str, uid: int | None, gid: int | None, mode: int | None, force: bool | None) -> dict[str, str]:
    """The parameters of what makes something."""
    found = {"path": arguments.path(path, "path")}
    found |= {name: str(value) for name, value in owner_and_mode(uid, gid, mode).items()}
    if force is not None:
        if not isinstance(force, bool):
            raise InvalidArgumentException(f"force must be a bool, not {type(force).__name__}")
        found["force"] = "true" if force else "false"
    return found


def listing_query(path: str, depth: int | None) -> dict[str, str]:
    """The parameters of a list."""
    found = {"path": arguments.path(path, "path")}
    if depth is not None:
        found["depth"] = str(arguments.whole(depth, "depth", 1, MAX_DEPTH))
    return found
