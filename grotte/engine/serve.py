"""The engine in the foreground: from its options to its exit status."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

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
from grotte.engine.ondemand import wait_until_unneeded
from grotte.engine.options import ServeOptions
from grotte.engine.telemetry import Telemetry
from grotte.errors import EngineUnavailableException

__all__ = ["ServeOptions", "run_engine", "serve"]

log = logging.getLogger("grotte.engine")

#: A file system needs so much to be of any use.
LEAST_DISK = 64 << 20

#: How long open connections may take to finish once their sandboxes are dead, in seconds.
CLOSE_GRACE = 5.0
#: How long connections that carry nothing have to close by themselves; clients keep theirs open for minutes.
LINGER = 0.25
#: So many more objects than before make the garbage collector look for cycles.
COLLECT_AFTER = 10_000
#: A stop that takes longer than this many seconds ends the process the hard way.
STOP_GRACE = 30.0


def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM, SIGINT, or nobody needs the engine any more.

    Returns:
        The exit status: 0 after a clean stop.

    Raises:
        EngineUnavailableException: the engine cannot start; the text says why, and `ready_fd` was told, too.
    """
    _set_up_logging()
    if not options.api_keys:
        options = replace(options, api_keys=(new_api_key(),))
    try:
        return anyio.run(run_engine, options)
    except (EngineUnavailableException, BaseExceptionGroup) as error:
        reason = _sole(error)
        if not isinstance(reason, EngineUnavailableException):
            raise
        _tell_ready(options, {"error": str(reason)})
        raise reason from None


def _sole(error: BaseException) -> BaseException:
    """The exception inside the groups that task groups wrap around it, if it is alone."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def run_engine(options: ServeOptions) -> int:
    """`serve` inside a running asyncio event loop."""
    async with AsyncExitStack() as stack:
        stop = _stop_on_signals()
        data_dir = stack.enter_context(DataDir(options.data_dir))
        store = stack.enter_context(Store(data_dir.database))
        # Bound before anything costly: a taken port is the commonest reason not to start.
        sock = stack.enter_context(bind(options.host, options.port))
        host = await stack.enter_async_context(_host(options, store))
        limits = Limits(disk_bytes=options.disk_bytes, own_disk=options.own_disks)
        guard = DiskGuard(host, limits, options.disk_reserve)
        registry = Registry(host, store, limits, options.max_sandboxes, options.spares, guard)
        await stack.enter_async_context(registry.open())
        building = await stack.enter_async_context(
            open_building(data_dir.path, host, store, registry.templates, options.images, limits)
        )
        address = _address(options, sock.getsockname())
        app = _assemble(options, registry, store, building, limits)
        listener = Listener(app, sock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen, listener)
            _collect_less()
            _announce(options, address)
            await _wait_for_end(options, lambda: registry.busy or building.builds.busy, stop)
            app.stopping = True
            log.info("event=stopping")
            await registry.kill_all()
            await app.wait_idle(CLOSE_GRACE)
            listener.halt()
            tasks.cancel_scope.deadline = anyio.current_time() + LINGER
    _withdraw(address)
    log.info("event=stopped")
    return 0


async def _listen(listener: Listener) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_back)
        await listener.serve()
        tasks.cancel_scope.cancel()


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


def _assemble(options: ServeOptions, registry: Registry, store: Store, building: Building, limits: Limits) -> App:
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
    return App(control, DataPlane(registry), Telemetry(registry, keyring))


def _address(options: ServeOptions, bound: tuple[object, ...]) -> EngineAddress:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(options.host, options.host)
    shown = f"[{host}]" if ":" in host else host
    return EngineAddress(f"http://{shown}:{bound[1]}", options.api_keys[0], os.getpid(), __version__)


def _announce(options: ServeOptions, address: EngineAddress) -> None:
    log.info("event=serving url=%s pid=%d", address.url, address.pid)
    if options.on_demand:
        write_address(address)
    else:
        _print_exports(address)
    _tell_ready(options, msgspec.to_builtins(address))
    if options.on_ready is not None:
        options.on_ready(address)


def _tell_ready(options: ServeOptions, message: dict[str, object]) -> None:
    if options.ready_fd is None:
        return
    try:
        with open(options.ready_fd, "wb") as ready:
            ready.write(msgspec.json.encode(message) + b"\n")
    except OSError:
        log.warning("event=ready_unheard")


def _withdraw(address: EngineAddress) -> None:
    published = read_address()
    if published is not None and published.pid == address.pid:
        remove_address()


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; the second signal ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _on_signal, stop)
    return stop


async def _wait_for_end(options: ServeOptions, busy: Callable[[], bool], stop: asyncio.Event) -> None:
    """Return at the first signal, or when an engine on demand is not needed."""
    if not options.on_demand:
        await stop.wait()
        return

    async def leave_when_unneeded() -> None:
        await wait_until_unneeded(busy, options.idle_seconds)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave_when_unneeded)
        await stop.wait()
        tasks.cancel_scope.cancel()


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        # The second time, or too late: what is left behind is removed at the next start.
        os._exit(1)
    stop.set()
    asyncio.get_running_loop().call_later(STOP_GRACE, os._exit, 1)


def _print_exports(address: EngineAddress) -> None:
    print(f"export GROTTE_API_URL={address.url}\nexport GROTTE_API_KEY={address.api_key}", flush=True)


def _set_up_logging() -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
