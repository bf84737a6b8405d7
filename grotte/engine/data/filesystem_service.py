"""`filesystem.Filesystem`: look at the sandbox's files, and move them about."""

from __future__ import annotations

from msgspec import Struct

from grotte._proto.messages import (
    Empty,
    EntryInfo,
    EntryResponse,
    ListDirRequest,
    ListDirResponse,
    MoveRequest,
    PathRequest,
)
from grotte.engine.data.rpc import Call, Streaming, Unary
from grotte.engine.faults import RpcFault
from grotte.engine.host import Entry


def entry_info(entry: Entry) -> EntryInfo:
    """A file as the wire has it."""
    return EntryInfo(
        name=entry.name,
        type=entry.type,
        path=entry.path,
        size=str(entry.size),
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_time=entry.modified_time,
        symlink_target=entry.symlink_target,
        metadata=dict(entry.metadata),
        is_symlink=entry.is_symlink,
    )


def check_path(path: str) -> str:
    """The path, if a file can have it.

    Raises:
        RpcFault: invalid_argument.
    """
    if "\0" in path:
        raise RpcFault("invalid_argument", "the path holds a NUL character")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise RpcFault("invalid_argument", "the path is not valid UTF-8") from None
    return path


def place(call: Call, path: str) -> str:
    """The path that is meant: an empty one is the sandbox's working directory.

    Raises:
        RpcFault: invalid_argument, no file can have it.
    """
    return check_path(path) or call.sandbox.template.setup.workdir


async def stat(call: Call, request: PathRequest) -> Struct:
    entry = await call.sandbox.guest.stat(place(call, request.path), call.user)
    return EntryResponse(entry=entry_info(entry))


async def make_dir(call: Call, request: PathRequest) -> Struct:
    entry = await call.sandbox.guest.make_dir(place(call, request.path), call.user)
    return EntryResponse(entry=entry_info(entry))


async def move(call: Call, request: MoveRequest) -> Struct:
    source, destination = place(call, request.source), place(call, request.destination)
    entry = await call.sandbox.guest.move(source, destination, call.user)
    return EntryResponse(entry=entry_info(entry))


async def remove(call: Call, request: PathRequest) -> Struct:
    await call.sandbox.guest.remove(place(call, request.path), call.user)
    return Empty()


async def list_dir(call: Call, request: ListDirRequest) -> Struct:
    path = place(call, request.path)
    entries = await call.sandbox.guest.list_dir(path, request.depth or 1, call.user)
    return ListDirResponse(entries=[entry_info(entry) for entry in entries])


METHODS: dict[str, Unary | Streaming] = {
    "/filesystem.Filesystem/Stat": Unary(PathRequest, stat),
    "/filesystem.Filesystem/MakeDir": Unary(PathRequest, make_dir),
    "/filesystem.Filesystem/Move": Unary(MoveRequest, move),
    "/filesystem.Filesystem/Remove": Unary(PathRequest, remove),
    "/filesystem.Filesystem/ListDir": Unary(ListDirRequest, list_dir),
}
