"""The machine's side of sandboxes: one launcher, one data directory, any number of guests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from grotte.errors import EngineUnavailableException

from . import cgroups, freezer, kernel, runtime, seccomp, usage
from .cgroups import Cgroups
from .egress import find_resolvers, resolv_conf, wanted_network
from .gauge import Gauge
from .guest import Guest
from .guest_network import GuestNetwork
from .idmaps import find_subids
from .launcher_client import LauncherClient, LaunchRequest, find_bwrap
from .quota import Room
from .spec import Egress, GuestError, HostError, SandboxSpec
from .standalone import disks
from .standalone.namespaces import ROOT_BASE
from .standalone.sandbox import RUNTIME_INSIDE
from .usage import Usage
from .volumes import VolumeKeeper

READY_SECONDS = 30
KILL_SECONDS = 60
#: Longer than a guest takes that answers at all.
STOP_SECONDS = 15
MAX_ERROR_TEXT = 4096
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class SandboxHost:
    """Launches sandboxes on this machine. An async context manager, for asyncio.

    Args:
        data_dir: Where sandboxes and templates live; one engine uses it at a time. ``host`` below it belongs to
            this class.
        keep: Names of sandboxes and layers of an earlier engine whose files stay; those of all others are removed.
        own_disks: Sandboxes have disks of their own, so that nothing inside can take more at once than it may.

    Attributes:
        data_dir: The same, absolute.
        room: Whether the disk takes more.
        gauge: Tells how much of it sandboxes hold.
        volumes: What can be done with volumes and the files in them.
        lost: Set once the launcher has ended before its time: nothing runs any more, and nothing can be started.

    Example::

        async with SandboxHost(Path("/var/lib/grotte")) as host:
            guest = await host.launch(SandboxSpec("box1"))
            process = await guest.spawn(SpawnRequest("/bin/true"))
            print(await process.wait())
            await guest.kill()
    """

    def __init__(self, data_dir: Path, keep: Sequence[str] = (), *, own_disks: bool = False) -> None:
        self._keep = keep
        self._own_disks = own_disks
        self.data_dir = data_dir.absolute()
        self._home = self.data_dir / "host"
        self._guests: dict[str, Guest] = {}
        self._groups: dict[str, list[str]] = {}
        self._cgroups = Cgroups()
        self._networks: dict[str, GuestNetwork] = {}
        self._launcher = LauncherClient(self._exited, self._network_told, self._lost)
        self.room = Room()
        self.gauge = Gauge(self._launcher.serve_gauge)
        self.volumes = VolumeKeeper(self._launcher.serve_volumes, self._home / "volumes", self.room)
        self.lost = anyio.Event()
        self._lock: int | None = None
        self._command: list[str] = []

    @property
    def limited(self) -> frozenset[str]:
        """What cgroups limit for a sandbox as a whole; the rest is limited for each process or user."""
        return self._cgroups.controllers

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The sandboxes that were launched and not killed yet."""
        return tuple(self._guests.values())

    @property
    def launcher_pid(self) -> int | None:
        """The process that is the parent of all sandboxes, while it runs."""
        return self._launcher.pid

    @property
    def cgroup_homes(self) -> list[str]:
        """The directories under which each sandbox has its cgroups."""
        return [str(hierarchy.home) for hierarchy in self._cgroups.hierarchies]

    @property
    def owners_shown(self) -> bool:
        """Whether the host's files show their owners inside, rather than nobody."""
        return self._launcher.owners_shown

    @property
    def no_internet(self) -> str:
        """Why no sandbox of this machine gets a way out, or nothing."""
        return self._launcher.no_network

    async def __aenter__(self) -> Self:
        """Start the launcher; remove what a killed engine left behind.

        Raises:
            EngineUnavailableException: The machine cannot isolate, or the data directory is in use.
        """
        try:
            await self._start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stop()
            raise
        return self

    async def _start(self) -> None:
        if reason := kernel.why_not():
            raise EngineUnavailableException(f"there are no sandboxes on this machine: {reason}")
        bwrap = find_bwrap()
        subids = None if os.getuid() == 0 else find_subids()
        try:
            self._take_data_dir(privileged=subids is None)
            left = await cgroups.remove_old(self._home / "cgroups")
            place = f"{RUNTIME_INSIDE}/runtime"
            copy, command = await anyio.to_thread.run_sync(runtime.build, self._home / "runtime", place)
            seccomp.write(str(self._home / "seccomp.bpf"), seccomp.build(allocate=self._own_disks))
        except (OSError, HostError) as error:
            raise EngineUnavailableException(f"the data directory {self.data_dir} cannot be used: {error}") from error
        except KeyError as error:
            raise EngineUnavailableException(f"there is no system call filter for machines of type {error}") from error
        self._command = command
        self._cgroups = cgroups.open_cgroups()
        (self._home / "cgroups").write_text("\n".join([*left, *self.cgroup_homes]), encoding="utf-8")
        await self._launcher.start(self.data_dir, copy, command, bwrap, subids, self.cgroup_homes, self._keep)

    def _take_data_dir(self, *, privileged: bool) -> None:
        below = [self._home / name for name in ("runtime", "sandboxes", "layers", "volumes")]
        for directory in (self.data_dir, self._home, *below):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineUnavailableException(f"another engine uses the data directory {self.data_dir}") from None
        if privileged:
            self._open_to_sandbox_root()

    def _open_to_sandbox_root(self) -> None:
        """Let root inside, an unprivileged id here, pass through the data directory; others still may not."""
        os.chown(self.data_dir, 0, ROOT_BASE)
        self.data_dir.chmod(0o710)
        os.chown(self._home, 0, ROOT_BASE)
        self._home.chmod(0o770)  # the generated layers are made from inside
        for name in ("sandboxes", "layers", "volumes"):
            os.chown(self._home / name, ROOT_BASE, ROOT_BASE)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every sandbox and the launcher."""
        with anyio.CancelScope(shield=True):
            await self._stop()

    async def _stop(self) -> None:
        for guest in list(self._guests.values()):
            guest.hang_up("the engine ended")
        self._guests.clear()
        with anyio.move_on_after(KILL_SECONDS):
            async with anyio.create_task_group() as group:
                for sandbox_id in list(self._groups):
                    group.start_soon(self._bury_quietly, sandbox_id)
        self.volumes.close()
        self.gauge.close()
        await self._launcher.close()
        self._cgroups.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _bury_quietly(self, sandbox_id: str, *, keep: bool = False) -> None:
        with contextlib.suppress(HostError):
            await self._bury(sandbox_id, keep=keep)

    async def launch(self, spec: SandboxSpec) -> Guest:
        """Start a sandbox.

        Raises:
            HostError: It could not be started; nothing of it is left.
        """
        layers = self._check(spec)
        network = self._networks[spec.sandbox_id] = self._new_network(spec.sandbox_id)
        ours, theirs = socket.socketpair()
        error_read, error_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                await self._ask_launcher(spec, layers, network.expect(spec.egress), theirs.fileno(), error_write)
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
                os.close(error_write)
            guest = self._guests[spec.sandbox_id] = self._meet(spec.sandbox_id, ours, network)
            guest.quota.had_files = spec.on_kept_files
            guest.quota.volumes = tuple(mount.volume for mount in spec.mounts)
            async with self._buried_on_failure(spec):
                await _ready(guest, error_read)
                await network.settle()
        finally:
            os.close(error_read)
        return guest

    def _check(self, spec: SandboxSpec) -> list[str]:
        if not _ID.fullmatch(spec.sandbox_id):
            raise HostError(f"not an id for a sandbox: {spec.sandbox_id!r}")
        if spec.hostname and not _HOSTNAME.fullmatch(spec.hostname):
            raise HostError(f"not a host name: {spec.hostname!r}")
        if spec.sandbox_id in self._groups:
            raise HostError(f"sandbox {spec.sandbox_id} exists already")
        if not spec.layers and not spec.on_host_usr:
            raise HostError("a sandbox needs layers to stand on")
        try:
            layers = [str(layer.resolve().relative_to(self.data_dir.resolve())) for layer in spec.layers]
        except ValueError:
            raise HostError("the layers of a template must lie in the data directory") from None
        if any(":" in layer or "," in layer or "\\" in layer for layer in layers):
            raise HostError("the path of a layer must not contain ':', ',' or '\\'")
        return layers

    def _new_network(self, sandbox_id: str) -> GuestNetwork:
        async def ask(egress: Egress | None) -> None:
            await self._launcher.set_network(sandbox_id, wanted_network(egress, find_resolvers()))

        return GuestNetwork(ask, self.no_internet)

    async def _ask_launcher(
        self, spec: SandboxSpec, layers: list[str], egress: Egress | None, link: int, stderr: int
    ) -> None:
        try:
            groups = self._groups[spec.sandbox_id] = self._cgroups.create(spec.sandbox_id, spec.limits)
        except OSError as error:
            raise HostError(f"the limits of sandbox {spec.sandbox_id} cannot be set: {error}") from error
        limited = self._cgroups.controllers
        resolvers = find_resolvers()
        request = LaunchRequest(
            id=spec.sandbox_id,
            layers=layers,
            on_host_usr=spec.on_host_usr,
            hostname=spec.hostname or spec.sandbox_id.replace("_", "-").strip("-"),
            cgroups=groups,
            max_pids=0 if "pids" in limited else spec.limits.pids + cgroups.OWN_PIDS,
            max_data=0 if "memory" in limited else spec.limits.memory_bytes,
            disk_bytes=spec.limits.disk_bytes if spec.limits.own_disk else 0,
            shm_bytes=max(spec.limits.memory_bytes // 2, 16 << 20),
            resolv_conf=resolv_conf(resolvers),
            network=wanted_network(egress, resolvers),
            mounts=list(spec.mounts),
        )
        try:
            await self._launcher.launch(request, link, stderr)
        except BaseException:
            cgroups.remove_groups(self._groups.pop(spec.sandbox_id))
            del self._networks[spec.sandbox_id]
            raise

    def _meet(self, sandbox_id: str, sock: socket.socket, network: GuestNetwork) -> Guest:
        return Guest(sandbox_id, sock, lambda: self._bury(sandbox_id), network, self.volumes.file_system, self.room)

    @contextlib.asynccontextmanager
    async def _buried_on_failure(self, spec: SandboxSpec) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._bury_quietly(spec.sandbox_id, keep=spec.on_kept_files)
            raise

    async def _bury(self, sandbox_id: str, *, keep: bool = False) -> None:
        if sandbox_id not in self._groups:
            return
        if guest := self._guests.pop(sandbox_id, None):
            guest.hang_up()
        if network := self._networks.pop(sandbox_id, None):
            network.close()
        with anyio.move_on_after(KILL_SECONDS):
            clean = await self._launcher.kill(sandbox_id, keep=keep)
            cgroups.remove_groups(self._groups.pop(sandbox_id, []))
            if clean:
                return
        raise HostError(f"sandbox {sandbox_id} could not be removed completely")

    async def freeze(self, sandbox_id: str) -> None:
        """Stop all processes of a sandbox; its memory stays as it is.

        Raises:
            HostError: They cannot be stopped, and run.
        """
        if group := freezer.group_of(self._groups.get(sandbox_id, [])):
            await freezer.freeze(group)
        elif guest := self._guests.get(sandbox_id):
            try:
                with anyio.fail_after(STOP_SECONDS):
                    await guest.stop_all()
            except (GuestError, TimeoutError) as error:
                guest.go_on()
                raise HostError(str(error) or "its processes could not be stopped in time") from error
        else:
            raise HostError(f"sandbox {sandbox_id} does not run")

    def thaw(self, sandbox_id: str) -> None:
        """Let a frozen sandbox go on."""
        if group := freezer.group_of(self._groups.get(sandbox_id, [])):
            freezer.release(group)
        elif guest := self._guests.get(sandbox_id):
            guest.go_on()

    async def usage(self, guest: Guest) -> Usage:
        """What a sandbox uses at this moment.

        Raises:
            GuestError: It is gone.
        """
        return usage.of_groups(self._groups.get(guest.sandbox_id, [])) or await guest.usage()

    def cpu_seconds(self, sandbox_id: str) -> float | None:
        """Processor time that a sandbox has used, where that is counted: without any, nothing happens in it."""
        return usage.cpu_of_groups(self._groups.get(sandbox_id, []))

    def own_disk(self, sandbox_id: str) -> tuple[int, int] | None:
        """Bytes that are used of a sandbox's own disk, and bytes in all; None if it has none."""
        if not (self._home / "sandboxes" / sandbox_id / disks.IMAGE).exists():
            return None
        try:
            # mounted where the launcher sees it, and nobody else
            found = os.statvfs(f"/proc/{self.launcher_pid}/root{disks.place_of(sandbox_id)}/disk")
        except OSError:  # it has just been put away
            return None
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_blocks * found.f_frsize

    async def put_away(self, sandbox_id: str) -> None:
        """End all that runs in a sandbox, and keep its files for a launch on them.

        Raises:
            HostError: Something of it is left.
        """
        with anyio.CancelScope(shield=True):
            await self._bury(sandbox_id, keep=True)

    def has_files(self, sandbox_id: str) -> bool:
        """Whether there are files of a sandbox, running or not."""
        return (self._home / "sandboxes" / sandbox_id).is_dir()

    async def copy_layer(self, sandbox_id: str, name: str) -> Path:
        """Make a layer for other sandboxes of what a sandbox has written; it should be frozen, or not run.

        Args:
            sandbox_id: Which one.
            name: Names the layer, as an id names a sandbox.

        Returns:
            The layer; those that the sandbox stands on are not part of it.

        Raises:
            HostError: It could not be copied; nothing of the copy is left.
        """
        with anyio.CancelScope(shield=True):  # the copier is on its way, whoever waits for it
            if await self._launcher.copy_layer(sandbox_id, name):
                return self.layer(name)
            await self._launcher.remove_layer(name)
        raise HostError(f"the files of sandbox {sandbox_id} could not be copied")

    def adopt_layer(self, sandbox_id: str, name: str) -> Path:
        """Make a layer of the files of a sandbox that was put away; there is no sandbox any more then.

        Raises:
            HostError: It could not be.
        """
        if sandbox_id in self._groups:
            raise HostError(f"sandbox {sandbox_id} runs")
        try:
            (self._home / "sandboxes" / sandbox_id).rename(self.layer(name))
        except OSError as error:
            raise HostError(f"the files of sandbox {sandbox_id} could not be kept: {error.strerror}") from None
        return self.layer(name)

    async def unpack_layer(self, archive: int, name: str, limit: int, digest: str) -> int:
        """Make a layer of an archive of an image.

        Args:
            archive: A file that holds it, from its beginning.
            name: Names the layer.
            limit: How many bytes it may unpack to.
            digest: SHA-256 of the unpacked archive, in hexadecimal digits.

        Returns:
            How many bytes it has unpacked to.

        Raises:
            HostError: It is not what it should be, or could not be unpacked; nothing of it is left.
        """
        told, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with anyio.CancelScope(shield=True):  # the process is on its way, whoever waits for it
                done = await self._launcher.unpack_layer(name, archive, report, limit, digest)
                if not done:
                    await self._launcher.remove_layer(name)
            with contextlib.suppress(BlockingIOError):
                said = os.read(told, MAX_ERROR_TEXT).decode(errors="replace")
                if done:
                    return int(said)
                raise HostError(said)
            raise HostError("it could not be unpacked")
        finally:
            os.close(told)
            os.close(report)

    def tool(self, module: str, *arguments: str) -> tuple[str, ...]:
        """The command line of a module of `standalone` inside sandboxes, for their root."""
        return (*self._command[:-1], f"from standalone.{module} import main; main()", *arguments)

    def layer(self, name: str) -> Path:
        """Where a layer lies."""
        return self._home / "layers" / name

    async def remove_layer(self, name: str) -> None:
        """Remove a layer on which nothing stands.

        Raises:
            HostError: It could not be removed.
        """
        with anyio.CancelScope(shield=True):
            if not await self._launcher.remove_layer(name):
                raise HostError(f"layer {name} could not be removed")

    async def discard(self, sandbox_id: str) -> None:
        """Remove the files of a sandbox that was put away.

        Raises:
            HostError: They could not be removed.
        """
        if sandbox_id in self._groups:
            raise HostError(f"sandbox {sandbox_id} runs")
        with anyio.move_on_after(KILL_SECONDS, shield=True):
            if await self._launcher.kill(sandbox_id):
                return
        raise HostError(f"the files of sandbox {sandbox_id} could not be removed")

    def _exited(self, sandbox_id: str) -> None:
        if guest := self._guests.get(sandbox_id):
            guest.hang_up("the sandbox is gone")

    def _network_told(self, sandbox_id: str, done: bool, reason: str) -> None:
        if network := self._networks.get(sandbox_id):
            network.told(done, reason)

    def _lost(self) -> None:
        self.lost.set()
        for network in self._networks.values():
            network.close()
        for guest in list(self._guests.values()):
            guest.hang_up("the launcher of sandboxes is gone")


async def _ready(guest: Guest, error_read: int) -> None:
    """Wait for the guest's first word, or say what kept it from speaking."""
    with anyio.move_on_after(READY_SECONDS):
        await guest.settled.wait()
    if guest.ready.is_set() and not guest.closed.is_set():
        return
    try:
        text = os.read(error_read, MAX_ERROR_TEXT).decode(errors="replace").strip()
    except BlockingIOError:
        text = ""
    reason = text or ("it ended at once" if guest.closed.is_set() else "it did not answer in time")
    raise HostError(f"sandbox {guest.sandbox_id} could not be started: {reason}")
