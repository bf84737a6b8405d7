"""The part of `filesystem.Filesystem` that tells of changes: streams of events, and watchers to be asked for them."""

from __future__ import annotations

import secrets
import string
from functools import partial

import anyio
from msgspec import Struct

from grotte._proto.messages import (
    CreateWatcherResponse,
    Empty,
    FilesystemEvent,
    WatchDirResponse,
    WatcherEventsResponse,
    WatcherRequest,
    WatchRequest,
)
from grotte.engine.data.filesystem_service import entry_info, place
from grotte.engine.data.rpc import Call, Stream, Streaming, Unary, keepalive_interval, until_disconnected
from grotte.engine.faults import RpcFault
from grotte.engine.host import Watch, WatchEvent

START = WatchDirResponse(start=Empty())
KEEPALIVE = WatchDirResponse(keepalive=Empty())
ID_LETTERS = string.ascii_lowercase + string.digits
ID_LENGTH = 20


async def watch_dir(call: Call, stream: Stream) -> None:
    watch = await _watch(call, await stream.first(WatchRequest))
    try:
        await stream.send(stream.pack(START))
        await until_disconnected(call.request, partial(_relay, call, stream, watch))
    finally:
        watch.close()


async def _relay(call: Call, stream: Stream, watch: Watch) -> None:
    interval = keepalive_interval(call)
    while True:
        with anyio.move_on_after(interval) as silence:
            await watch.wait()
        if silence.cancelled_caught:
            await stream.send(stream.pack(KEEPALIVE))
        elif events := await watch.take():
            await stream.send(b"".join(stream.pack(WatchDirResponse(filesystem=_public(e))) for e in events))


async def create_watcher(call: Call, request: WatchRequest) -> Struct:
    watch = await _watch(call, request)
    watcher_id = "w" + "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
    call.sandbox.watchers[watcher_id] = watch
    return CreateWatcherResponse(watcher_id=watcher_id)


async def get_watcher_events(call: Call, request: WatcherRequest) -> Struct:
    return WatcherEventsResponse(events=[_public(event) for event in await _watcher(call, request).take()])


async def remove_watcher(call: Call, request: WatcherRequest) -> Struct:
    _watcher(call, request).close()
    del call.sandbox.watchers[request.watcher_id]
    return Empty()


async def _watch(call: Call, request: WatchRequest) -> Watch:
    return await call.sandbox.guest.watch(
        place(call, request.path),
        call.user,
        recursive=request.recursive,
        entries=request.include_entry,
        network=request.allow_network_mounts,
    )


def _watcher(call: Call, request: WatcherRequest) -> Watch:
    watch = call.sandbox.watchers.get(request.watcher_id)
    if watch is None:
        raise RpcFault("not_found", f"watcher with id {request.watcher_id} not found")
    return watch


def _public(event: WatchEvent) -> FilesystemEvent:
    entry = None if event.entry is None else entry_info(event.entry)
    return FilesystemEvent(name=event.name, type=event.type, entry=entry)


METHODS: dict[str, Unary | Streaming] = {
    "/filesystem.Filesystem/WatchDir": Streaming(watch_dir),
    "/filesystem.Filesystem/CreateWatcher": Unary(WatchRequest, create_watcher),
    "/filesystem.Filesystem/GetWatcherEvents": Unary(WatcherRequest, get_watcher_events),
    "/filesystem.Filesystem/RemoveWatcher": Unary(WatcherRequest, remove_watcher),
}
