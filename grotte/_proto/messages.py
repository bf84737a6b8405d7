"""The messages of `process.Process` and `filesystem.Filesystem`, as proto3 JSON has them.

proto3 JSON leaves out default values, writes 64-bit integers as strings and bytes as base64, and accepts more than it
writes. Fields that arrive from a client therefore take what any writer may send (`int | str`, base64 as text), fields
on the hot path back (`DataEvent`) are decoded straight to bytes.
"""

from __future__ import annotations

import base64
import binascii
import functools
from typing import Annotated, TypeVar

import msgspec
from msgspec import Struct

M = TypeVar("M", bound=Struct)


UInt32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
#: A 64-bit integer as proto3 JSON writes it.
WholeNumber = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,19}$")]


class InvalidMessage(ValueError):
    """The JSON is none, or not of the message's shape; the text says where."""


class Message(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """proto3 JSON: lowerCamelCase names, defaults left out, unknown fields ignored."""


class Choice(Message):
    """proto3's ``oneof``: one of its fields is there, or none."""

    def __post_init__(self) -> None:
        if sum(value is not None for value in msgspec.structs.astuple(self)) > 1:
            raise ValueError(f"only one of {', '.join(self.__struct_encode_fields__)} can be set")


class Empty(Message):
    pass


# -- process.Process ---------------------------------------------------------------------------------------------


class ProcessConfig(Message):
    cmd: str = ""
    args: list[str] = msgspec.field(default_factory=list)
    envs: dict[str, str] = msgspec.field(default_factory=dict)
    cwd: str | None = None


class ProcessSelector(Choice):
    pid: UInt32 | None = None
    tag: str | None = None


class PtyWindow(Message):
    cols: UInt32 = 0
    rows: UInt32 = 0


class Pty(Message):
    size: PtyWindow | None = None


class ProcessInfo(Message):
    config: ProcessConfig = msgspec.field(default_factory=ProcessConfig)
    pid: int = 0
    tag: str | None = None


class ListResponse(Message):
    processes: list[ProcessInfo] = msgspec.field(default_factory=list)


class StartRequest(Message):
    process: ProcessConfig = msgspec.field(default_factory=ProcessConfig)
    pty: Pty | None = None
    tag: str | None = None
    stdin: bool | None = None


class ConnectRequest(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)


class StartEvent(Message):
    pid: int = 0


class DataEvent(Message):
    stdout: bytes | None = None
    stderr: bytes | None = None
    pty: bytes | None = None


class EndEvent(Message):
    exit_code: int = 0
    exited: bool = False
    status: str = ""
    error: str | None = None


class ProcessEvent(Message):
    start: StartEvent | None = None
    data: DataEvent | None = None
    end: EndEvent | None = None
    keepalive: Empty | None = None


class ProcessEventResponse(Message):
    """`StartResponse` and `ConnectResponse`: one shape under two names."""

    event: ProcessEvent = msgspec.field(default_factory=ProcessEvent)


class UpdateRequest(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)
    pty: Pty | None = None


class ProcessInput(Choice):
    """`stdin` and `pty` are base64, standard or URL-safe: see `decode_base64`."""

    stdin: str | None = None
    pty: str | None = None


class SendInputRequest(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)
    input: ProcessInput = msgspec.field(default_factory=ProcessInput)


class StreamInputStart(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)


class StreamInputData(Message):
    input: ProcessInput = msgspec.field(default_factory=ProcessInput)


class StreamInputRequest(Choice):
    start: StreamInputStart | None = None
    data: StreamInputData | None = None
    keepalive: Empty | None = None


class SendSignalRequest(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)
    signal: int | str = 0


class CloseStdinRequest(Message):
    process: ProcessSelector = msgspec.field(default_factory=ProcessSelector)


#: `process.Signal` by name and by number: what `SendSignal` may carry.
SIGNALS = {"SIGNAL_UNSPECIFIED": 0, "SIGNAL_SIGKILL": 9, "SIGNAL_SIGTERM": 15}


# -- filesystem.Filesystem ---------------------------------------------------------------------------------------


class EntryInfo(Message):
    name: str = ""
    type: int | str = "FILE_TYPE_UNSPECIFIED"
    path: str = ""
    size: int | WholeNumber = 0
    mode: int = 0
    permissions: str = ""
    owner: str = ""
    group: str = ""
    modified_time: str | None = None
    symlink_target: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    is_symlink: bool = False


class EntryResponse(Message):
    """`StatResponse`, `MakeDirResponse` and `MoveResponse`."""

    entry: EntryInfo = msgspec.field(default_factory=EntryInfo)


class PathRequest(Message):
    """`StatRequest`, `MakeDirRequest` and `RemoveRequest`."""

    path: str = ""


class MoveRequest(Message):
    source: str = ""
    destination: str = ""


class ListDirRequest(Message):
    path: str = ""
    depth: UInt32 = 0


class ListDirResponse(Message):
    entries: list[EntryInfo] = msgspec.field(default_factory=list)


class WatchRequest(Message):
    """`WatchDirRequest` and `CreateWatcherRequest`."""

    path: str = ""
    recursive: bool = False
    include_entry: bool = False
    allow_network_mounts: bool = False


class FilesystemEvent(Message):
    name: str = ""
    type: int | str = "EVENT_TYPE_UNSPECIFIED"
    entry: EntryInfo | None = None


class WatchDirResponse(Message):
    start: Empty | None = None
    filesystem: FilesystemEvent | None = None
    keepalive: Empty | None = None


class CreateWatcherResponse(Message):
    watcher_id: str = ""


class WatcherRequest(Message):
    """`GetWatcherEventsRequest` and `RemoveWatcherRequest`."""

    watcher_id: str = ""


class WatcherEventsResponse(Message):
    events: list[FilesystemEvent] = msgspec.field(default_factory=list)


#: `FileType` and `EventType` by number, for peers that write enums as numbers.
FILE_TYPES = ("FILE_TYPE_UNSPECIFIED", "FILE_TYPE_FILE", "FILE_TYPE_DIRECTORY", "FILE_TYPE_SYMLINK")
EVENT_TYPES = (
    "EVENT_TYPE_UNSPECIFIED",
    "EVENT_TYPE_CREATE",
    "EVENT_TYPE_WRITE",
    "EVENT_TYPE_REMOVE",
    "EVENT_TYPE_RENAME",
    "EVENT_TYPE_CHMOD",
)

#: proto3 JSON readers accept the names of the .proto file too; only these differ from the JSON names.
_PROTO_NAMES = {
    "include_entry": "includeEntry",
    "allow_network_mounts": "allowNetworkMounts",
    "watcher_id": "watcherId",
}

encode = msgspec.json.Encoder().encode


def decode(kind: type[M], data: bytes | memoryview) -> M:
    """Read one message of a request.

    Args:
        kind: The message's Struct.
        data: UTF-8 JSON; empty means the empty message.

    Raises:
        InvalidMessage: not JSON, or not of the message's shape.
    """
    known = _decoder(kind)
    if known is not None:
        try:
            str(data, "utf-8")  # what stands in fields that are skipped would not be looked at
            direct: M = known.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # what is more than plainly right takes the longer way, and so does what is wrong
        else:
            return direct
    try:
        raw = msgspec.json.decode(data) if len(data) else {}
        if isinstance(raw, dict):
            # null stands for an absent field
            raw = {_PROTO_NAMES.get(key, key): value for key, value in raw.items() if value is not None}
        return _with_plain_switches(raw, msgspec.convert(raw, kind, strict=False))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(str(error)) from None


@functools.cache
def _decoder(kind: type[M]) -> msgspec.json.Decoder[M] | None:
    """What reads messages of a kind in one step; None where a field may come under another name."""
    renamed = {field.encode_name for field in msgspec.structs.fields(kind)}.intersection(_PROTO_NAMES.values())
    strict = any(field.type in (bool, bool | None) for field in msgspec.structs.fields(kind))
    return None if renamed else msgspec.json.Decoder(kind, strict=strict)


def _with_plain_switches(raw: dict[str, object], found: M) -> M:
    """Numbers may come as strings, but nothing else stands for true and false."""
    for field in msgspec.structs.fields(found):
        given = raw.get(field.encode_name)
        if isinstance(getattr(found, field.name), bool) and given is not None and not isinstance(given, bool):
            raise msgspec.ValidationError(f"Expected `bool` - at `$.{field.encode_name}`")
    return found


def decode_base64(text: str) -> bytes:
    """Bytes of a proto3 JSON field: standard or URL-safe alphabet, padded or not.

    Raises:
        InvalidMessage: not base64.
    """
    try:
        plain = text.translate({0x2D: "+", 0x5F: "/"}).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMessage("not base64") from None
