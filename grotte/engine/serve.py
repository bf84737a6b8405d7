"""The engine in the foreground: from its options to its exit status."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import anyio
import msgspec

from grotte._local import EngineAddress, read_address, remove_address, write_address
from grotte._version import __version__
from grotte.engine.app import App
from grotte.engine.builds.assembly import Building, open_building
from grotte.engine.control.builds import BuildArea
from grotte.engine.control.handover import Handover
from grotte.engine.control.logs import Logs
from grotte.engine.control.metrics import Metrics
from grotte.engine.control.plane import ControlPlane
from grotte.engine.control.sandboxes import Sandboxes
from grotte.engine.control.snapshots import Snapshots
from grotte.engine.control.tags import TagArea
from grotte.engine.control.templates import TemplateArea
from grotte.engine.control.volume_content import VolumeContent
from grotte.engine.control.volumes import VolumeArea
from grotte.engine.data.plane import DataPlane
from grotte.engine.datadir import DataDir
from grotte.engine.host import Limits, SandboxHost, why_no_disks
from grotte.engine.lifecycle.diskguard import DiskGuard
from grotte.engine.lifecycle.idempotency import Idempotency
from grotte.engine.lifecycle.keys import Keyring, new_api_key
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.store import Store
from grotte.engine.listener import Listener, bind
from grotte.engine.memory import give_back
from grotte.engine.ondemand import ShortLog, wait_until_unneeded
from grotte.engine.options import ServeOptions
from grotte.engine.signals import stop_on_signals
from grotte.engine.telemetry import Telemetry
from grotte.errors import EngineUnavailableException

__all__ = ["ServeOptions", "serve"]

log = logging.getLogger("grotte.engine")

#: A file system needs so much to be of any use.
LEAST_DISK = 64 << 20

#: How long open connections may take to finish once their sandboxes are dead, in seconds.
CLOSE_GRACE = 5.0
#: How long connections that carry nothing have to close by themselves; clients keep theirs open for minutes.
LINGER = 0.25
#: So many more objects than before make the garbage collector look for cycles.
COLLECT_AFTER = 10_000
#: How often what is too old to be asked for is removed from the database, in seconds.
FORGET_EVERY = 600.0
#: So many ends of the launcher within so many seconds are too many to go on.
MAX_FALLS, FALLS_WITHIN = 5, 300.0
#: As many files as most systems let anybody open.
MAX_FILES = 1 << 20


def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM, SIGINT, or nobody needs the engine any more.

    Returns:
        The exit status: 0 after a clean stop.

    Raises:
        EngineUnavailableException: the engine cannot start; the text says why, and `ready_fd` was told, too.
    """
    _set_up_logging(short=options.on_demand)
    _open_many_files()
    _leave_directory(options)
    if not options.api_keys:
        options = replace(options, api_keys=(new_api_key(),))
    waiting = _Waiting(options.ready_fd)
    try:
        return anyio.run(_run, options, waiting)
    except (EngineUnavailableException, BaseExceptionGroup) as error:
        reason = _sole(error)
        if not isinstance(reason, EngineUnavailableException):
            raise
        waiting.tell({"error": str(reason)})
        raise reason from None


def _leave_directory(options: ServeOptions) -> None:
    """Whoever started an engine on demand may want to remove the directory that it did so from."""
    if options.on_demand or not _has_directory():
        os.chdir("/")


def _has_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _open_many_files() -> None:
    """Sandboxes, their processes and clients take some each; and beyond it no more can be sent to sandboxes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Waiting:
    """Whoever waits for the engine on a descriptor: is told once, for afterwards its number may be another file's."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, message: dict[str, object]) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            with open(fd, "wb") as ready:
                ready.write(msgspec.json.encode(message) + b"\n")
        except OSError:
            log.warning("event=ready_unheard")


def _sole(error: BaseException) -> BaseException:
    """The exception inside the groups that task groups wrap around it, if it is alone."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _run(options: ServeOptions, waiting: _Waiting) -> int:
    """`serve` inside a running asyncio event loop."""
    async with AsyncExitStack() as stack:
        stop = stop_on_signals()
        data_dir = stack.enter_context(DataDir(options.data_dir))
        store = stack.enter_context(Store(data_dir.database))
        # Bound before anything costly: a taken port is the commonest reason not to start.
        sock = stack.enter_context(bind(options.host, options.port))
        address = _address(options, sock.getsockname())
        stack.callback(_withdraw, address)
        falls: deque[float] = deque(maxlen=MAX_FALLS)
        once = partial(_serve_once, options, store, address, stop)
        while await once(sock.dup(), None if falls else waiting):
            falls.append(anyio.current_time())
            if len(falls) == MAX_FALLS and falls[-1] - falls[0] < FALLS_WITHIN:
                raise EngineUnavailableException(
                    f"the launcher of sandboxes was killed {MAX_FALLS} times within {FALLS_WITHIN:.0f} s;"
                    " what ran is paused, with its files: see the system's log, memory may be short"
                )
    log.info("event=stopped")
    return 0


async def _serve_once(
    options: ServeOptions,
    store: Store,
    address: EngineAddress,
    stop: asyncio.Event,
    sock: socket.socket,
    waiting: _Waiting | None,
) -> bool:
    """Serve until a stop, or until the launcher is killed and everything has to begin again; tell which.

    Args:
        sock: Listens; belongs to this life of the engine.
        waiting: Who waits for the first one.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(sock)
        store.recover()
        host = await stack.enter_async_context(_host(options, store))
        limits = Limits(disk_bytes=options.disk_bytes, own_disk=options.own_disks)
        guard = DiskGuard(host, limits, options.disk_reserve)
        registry = Registry(host, store, limits, options.max_sandboxes, options.spares, guard)
        await stack.enter_async_context(registry.open())
        building = await stack.enter_async_context(
            open_building(options.data_dir, host, store, registry.templates, options.images, limits)
        )
        app = _assemble(options, registry, store, building, limits, host.lost.is_set)
        listener = Listener(app, sock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen, listener, store)
            _collect_less()
            if waiting:
                _announce(options, address, waiting)
            await _wait_for_end(options, lambda: registry.busy or building.builds.busy, stop, host.lost)
            app.stopping = True
            if stop.is_set():
                log.info("event=stopping")
            else:
                log.error("event=launcher_lost the process that holds the sandboxes was killed: starting over")
            await registry.kill_all()
            await app.wait_idle(CLOSE_GRACE)
            listener.halt()
            tasks.cancel_scope.deadline = anyio.current_time() + LINGER
    return not stop.is_set()


async def _listen(listener: Listener, store: Store) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_back)
        tasks.start_soon(_forget_old, store)
        await listener.serve()
        tasks.cancel_scope.cancel()


async def _forget_old(store: Store) -> None:
    while True:
        await anyio.sleep(FORGET_EVERY)
        try:
            store.forget_old()
        except sqlite3.Error as error:
            log.warning("event=not_forgotten reason=%s", error)


def _collect_less() -> None:
    """Keep the cyclic garbage collector from looking through the program itself, and from looking all the time.

    What there is now stays until the end. After every 700 objects, as by default, it would look at each burst of
    creations again and again, none of which is garbage yet; what it finds later in cycles is a few hundred KiB.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _host(options: ServeOptions, store: Store) -> SandboxHost:
    if options.own_disks and (reason := why_no_disks()):
        raise EngineUnavailableException(f"sandboxes cannot have disks of their own here: {reason}")
    if options.own_disks and options.disk_bytes < LEAST_DISK:
        raise EngineUnavailableException(
            f"disks of their own must have at least {LEAST_DISK >> 20} MiB: see --disk-mib"
        )
    return SandboxHost(options.data_dir, store.kept(), own_disks=options.own_disks)


def _assemble(
    options: ServeOptions,
    registry: Registry,
    store: Store,
    building: Building,
    limits: Limits,
    starts_over: Callable[[], bool],
) -> App:
    handover = Handover(registry, Idempotency(store))
    sandboxes = Sandboxes(registry, handover, max_timeout=options.max_timeout, domain=options.domain)
    snapshots = Snapshots(registry, handover, options.max_timeout, sandboxes.describe)
    templates, builds = registry.templates, building.builds
    built = BuildArea(templates, builds, building.logs, building.contexts)
    areas = (
        sandboxes,
        snapshots,
        VolumeArea(registry.volumes, options.domain),
        Metrics(registry),
        Logs(registry),
        TemplateArea(templates, builds, limits),
        built,
        TagArea(templates),
    )
    keyring = Keyring(options.api_keys)
    keyless = {**built.keyless(), **VolumeContent(registry.volumes).keyless()}
    control = ControlPlane(keyring, *areas, keyless=keyless)
    return App(control, DataPlane(registry), Telemetry(registry, keyring), starts_over)


def _address(options: ServeOptions, bound: tuple[object, ...]) -> EngineAddress:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(options.host, options.host)
    shown = f"[{host}]" if ":" in host else host
    return EngineAddress(f"http://{shown}:{bound[1]}", options.api_keys[0], os.getpid(), __version__)


def _announce(options: ServeOptions, address: EngineAddress, waiting: _Waiting) -> None:
    log.info("event=serving url=%s pid=%d", address.url, address.pid)
    if options.on_demand:
        write_address(address)
    else:
        _print_exports(address)
    waiting.tell(msgspec.to_builtins(address))
    if options.on_ready is not None:
        options.on_ready(address)


def _withdraw(address: EngineAddress) -> None:
    published = read_address()
    if published is not None and published.pid == address.pid:
        remove_address()


async def _wait_for_end(
    options: ServeOptions, busy: Callable[[], bool], stop: asyncio.Event, lost: anyio.Event
) -> None:
    """Return at the first signal, when an engine on demand is not needed, or when the launcher is lost."""

    async def leave_when_unneeded() -> None:
        await wait_until_unneeded(busy, options.idle_seconds)
        stop.set()

    async with anyio.create_task_group() as tasks:

        async def wait_for(event: asyncio.Event | anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(wait_for, stop)
        tasks.start_soon(wait_for, lost)
        if options.on_demand:
            tasks.start_soon(leave_when_unneeded)


def _print_exports(address: EngineAddress) -> None:
    try:
        print(f"export GROTTE_API_URL={address.url}\nexport GROTTE_API_KEY={address.api_key}", flush=True)
    except OSError as error:
        raise EngineUnavailableException(
            f"the engine's address cannot be written to stdout: {error.strerror}"
        ) from None


def _set_up_logging(*, short: bool) -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(
            handlers=[ShortLog() if short else logging.StreamHandler(sys.stderr)],
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
