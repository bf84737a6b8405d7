"""Entries of a file system, from the wire's two forms to the public one."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from grotte._proto.messages import EVENT_TYPES, FILE_TYPES, EntryInfo, FilesystemEvent
from grotte.models import EntryInfo as PublicEntry
from grotte.models import FilesystemEvent as PublicEvent
from grotte.models import FilesystemEventType, FileType

_TYPES = {
    "FILE_TYPE_FILE": FileType.FILE,
    "FILE_TYPE_DIRECTORY": FileType.DIR,
    "FILE_TYPE_SYMLINK": FileType.SYMLINK,
}
_EVENTS = {f"EVENT_TYPE_{kind.name}": kind for kind in FilesystemEventType}
_EPOCH = datetime.fromtimestamp(0, UTC)


class Uploaded(Struct):
    """An element of the answer to an upload. Servers that know more than the first three say it all."""

    path: str
    name: str = ""
    type: str | None = None
    metadata: dict[str, str] | None = None
    entry: EntryInfo | None = None


def read_uploaded(content: bytes) -> list[Uploaded]:
    """The answer to an upload.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return msgspec.json.decode(content, type=list[Uploaded])


def public_entry(entry: EntryInfo) -> PublicEntry:
    """An entry as users see it.

    Links are links, whatever they lead to: following them blindly is how a walk ends in a loop.
    """
    return PublicEntry(
        name=entry.name,
        type=FileType.SYMLINK if entry.is_symlink else file_type(entry.type),
        path=entry.path,
        size=int(entry.size),
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_time=timestamp(entry.modified_time) if entry.modified_time else _EPOCH,
        symlink_target=entry.symlink_target or None,
        metadata=entry.metadata or None,
    )


def file_type(value: int | str) -> FileType | None:
    """An enum value by name or number; None for sockets, devices and broken links."""
    if isinstance(value, int):
        value = FILE_TYPES[value] if 0 <= value < len(FILE_TYPES) else ""
    return _TYPES.get(value)


def timestamp(text: str) -> datetime:
    """An RFC 3339 time, nanoseconds rounded; the epoch for what is none."""
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return _EPOCH
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def public_event(event: FilesystemEvent) -> PublicEvent | None:
    """A change as users see it; None for one of a kind that nobody knows yet."""
    name: int | str = event.type
    if isinstance(name, int):
        name = EVENT_TYPES[name] if 0 <= name < len(EVENT_TYPES) else ""
    kind = _EVENTS.get(name)
    if kind is None:
        return None
    return PublicEvent(event.name, kind, None if event.entry is None else public_entry(event.entry))
