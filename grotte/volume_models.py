"""What calls on volumes return."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class VolumeFileType(StrEnum):
    """What is at a path of a volume."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    UNKNOWN = "unknown"


@dataclass
class VolumeInfo:
    """A volume.

    Attributes:
        volume_id: Its id.
        name: Its name, by which sandboxes mount it.
    """

    volume_id: str
    name: str


@dataclass
class VolumeAndToken(VolumeInfo):
    """A volume, with what its files are reached with.

    Attributes:
        token: What its files are reached with; never part of the representation.
        domain: Where its files are, if not where the control plane is.
    """

    token: str = field(repr=False)
    domain: str | None = None


@dataclass
class VolumeEntryStat:
    """What is at a path of a volume.

    Attributes:
        name: The last part of the path.
        type: What it is.
        path: The path in the volume.
        size: In bytes.
        mode: The permission bits, such as ``0o644``.
        uid: The owner's number.
        gid: The group's number.
        atime: When it was read last.
        mtime: When its content changed last.
        ctime: When it was changed last in any way.
        target: Where a link leads; None if it is none.
    """

    name: str
    type: VolumeFileType
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    atime: datetime
    mtime: datetime
    ctime: datetime
    target: str | None = None
