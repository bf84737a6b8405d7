"""The messages in protobuf's binary form, for clients that prefer it to JSON.

The library costs memory and time to load, so it waits for the first such client.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from grotte._proto.messages import EVENT_TYPES, FILE_TYPES, SIGNALS, InvalidMessage

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import Message

M = TypeVar("M", bound=Struct)

#: Messages by the names of their Structs, fields by their names in JSON; of a `choice` one field is there at most.
SCHEMA = """
message Empty {}

message ProcessConfig { string cmd = 1; repeated string args = 2; map envs = 3; optional string cwd = 4; }
choice  ProcessSelector { uint32 pid = 1; string tag = 2; }
message PtyWindow { uint32 cols = 1; uint32 rows = 2; }
message Pty { PtyWindow size = 1; }
message ProcessInfo { ProcessConfig config = 1; uint32 pid = 2; optional string tag = 3; }
message ListResponse { repeated ProcessInfo processes = 1; }
message StartRequest { ProcessConfig process = 1; optional Pty pty = 2;
  optional string tag = 3; optional bool stdin = 4; }
message ConnectRequest { ProcessSelector process = 1; }
message StartEvent { uint32 pid = 1; }
choice  DataEvent { bytes stdout = 1; bytes stderr = 2; bytes pty = 3; }
message EndEvent { sint32 exitCode = 1; bool exited = 2; string status = 3; optional string error = 4; }
choice  ProcessEvent { StartEvent start = 1; DataEvent data = 2; EndEvent end = 3; Empty keepalive = 4; }
message ProcessEventResponse { ProcessEvent event = 1; }
message UpdateRequest { ProcessSelector process = 1; optional Pty pty = 2; }
choice  ProcessInput { bytes stdin = 1; bytes pty = 2; }
message SendInputRequest { ProcessSelector process = 1; ProcessInput input = 2; }
message StreamInputStart { ProcessSelector process = 1; }
message StreamInputData { ProcessInput input = 2; }
choice  StreamInputRequest { StreamInputStart start = 1; StreamInputData data = 2; Empty keepalive = 3; }
message SendSignalRequest { ProcessSelector process = 1; Signal signal = 2; }
message CloseStdinRequest { ProcessSelector process = 1; }

message EntryInfo { string name = 1; FileType type = 2; string path = 3; int64 size = 4; uint32 mode = 5;
  string permissions = 6; string owner = 7; string group = 8; Timestamp modifiedTime = 9;
  optional string symlinkTarget = 10; map metadata = 11; bool isSymlink = 12; }
message EntryResponse { EntryInfo entry = 1; }
message PathRequest { string path = 1; }
message MoveRequest { string source = 1; string destination = 2; }
message ListDirRequest { string path = 1; uint32 depth = 2; }
message ListDirResponse { repeated EntryInfo entries = 1; }
message WatchRequest { string path = 1; bool recursive = 2; bool includeEntry = 3; bool allowNetworkMounts = 4; }
message FilesystemEvent { string name = 1; EventType type = 2; optional EntryInfo entry = 3; }
choice  WatchDirResponse { Empty start = 1; FilesystemEvent filesystem = 2; Empty keepalive = 3; }
message CreateWatcherResponse { string watcherId = 1; }
message WatcherRequest { string watcherId = 1; }
message WatcherEventsResponse { repeated FilesystemEvent events = 1; }
"""
ENUMS = {
    "Signal": SIGNALS,
    "FileType": {name: number for number, name in enumerate(FILE_TYPES)},
    "EventType": {name: number for number, name in enumerate(EVENT_TYPES)},
}
SCALARS = frozenset({"bool", "bytes", "int32", "int64", "sint32", "string", "uint32"})
PACKAGE = "grotte"
#: The library knows this message by its full name, and writes it in JSON as a time.
TIMESTAMP = "google.protobuf.Timestamp"

_MESSAGE = re.compile(r"(message|choice)\s+(\w+) \{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"(?:(repeated|optional) )?(\w+) (\w+) = (\d+);")


def decode(kind: type[M], data: bytes | memoryview) -> M:
    """Read one message of a request.

    Raises:
        InvalidMessage: not protobuf, or not of the message's shape.
    """
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    try:
        message = types()[kind.__name__].FromString(bytes(data))
        return msgspec.convert(json_format.MessageToDict(message), kind, strict=False)
    except (DecodeError, ValueError) as error:  # the latter for what is not UTF-8, where the library is in Python
        raise InvalidMessage(str(error)) from None


def encode(message: Struct) -> bytes:
    """Write one message of an answer."""
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    for entry in _entries(fields):
        entry["size"] = int(entry.get("size", 0))
        if "modifiedTime" in entry:
            entry["modifiedTime"] = _timestamp(entry["modifiedTime"])
    written: bytes = types()[type(message).__name__](**fields).SerializeToString()
    return written


def _entries(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What of an answer describes files: there JSON has texts where protobuf has numbers."""
    match fields:
        case {"entry": entry}:
            yield entry
        case {"entries": entries}:
            yield from entries
        case {"filesystem": event}:
            yield from _entries(event)
        case {"events": events}:
            for event in events:
                yield from _entries(event)


def _timestamp(text: str) -> dict[str, int]:
    """A time in UTC; the epoch for years that neither form can say."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    except ValueError:
        return {}
    return {"seconds": seconds, "nanos": int(fraction.ljust(9, "0"))}


@functools.cache
def types() -> dict[str, type[Message]]:
    """The library's type of each message of `SCHEMA`."""
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    times = FileDescriptorProto(name="times.proto", package=TIMESTAMP.rpartition(".")[0], syntax="proto3")
    _add_message(times, "message", "Timestamp", "int64 seconds = 1; int32 nanos = 2;")
    file = FileDescriptorProto(name="grotte.proto", package=PACKAGE, syntax="proto3", dependency=[times.name])
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for keyword, name, body in _MESSAGE.findall(SCHEMA):
        _add_message(file, keyword, name, body)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(times.SerializeToString())
    pool.AddSerializedFile(file.SerializeToString())
    names = [message.name for message in file.message_type]
    found = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in names}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def _add_message(file: FileDescriptorProto, keyword: str, name: str, body: str) -> None:
    message = file.message_type.add(name=name)
    for label, kind, field, number in _FIELD.findall(body):
        described = message.field.add(name=field, number=int(number), label="LABEL_OPTIONAL", **_kind(kind))
        if kind == "map":
            entry = message.nested_type.add(name=f"{field.capitalize()}Entry", options={"map_entry": True})
            for index, part in enumerate(("key", "value"), 1):
                entry.field.add(name=part, number=index, label="LABEL_OPTIONAL", type="TYPE_STRING")
            described.type_name = f".{PACKAGE}.{name}.{entry.name}"
        if keyword == "choice" or label == "optional":
            described.oneof_index = _oneof(message, "choice" if keyword == "choice" else f"_{field}")
            described.proto3_optional = label == "optional"
        if label == "repeated" or kind == "map":
            described.label = described.LABEL_REPEATED


def _kind(kind: str) -> dict[str, str]:
    if kind in SCALARS:
        return {"type": f"TYPE_{kind.upper()}"}
    name = TIMESTAMP if kind == "Timestamp" else f"{PACKAGE}.{kind}"
    return {"type": "TYPE_ENUM" if kind in ENUMS else "TYPE_MESSAGE", "type_name": f".{name}"}


def _oneof(message: DescriptorProto, name: str) -> int:
    """The number of a group of fields that exclude each other; `optional` makes groups of one."""
    names = [group.name for group in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        names.append(name)
    return names.index(name)
