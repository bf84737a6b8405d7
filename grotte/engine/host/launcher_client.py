"""The engine's end of the socket to its launcher."""

from __future__ import annotations

import array
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec

from grotte.errors import EngineUnavailableException

from .egress import WantedNetwork, find_pasta
from .idmaps import SubIds, map_launcher
from .runtime import STANDALONE, environment
from .spec import HostError

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from standalone.launcher import main; main()"
START_SECONDS = 60
END_SECONDS = 20
MAX_EVENT = 64 << 10
Right = tuple[int, int, "array.array[int]"]


class Event(msgspec.Struct, frozen=True):
    """What the launcher tells."""

    event: str
    id: str = ""
    reason: str = ""
    status: int = 0
    clean: bool = True
    owners_shown: bool = False
    no_network: str = ""


@dataclass(frozen=True)
class LaunchRequest:
    """The launcher's description of a sandbox; see ``standalone.launcher.Launch``."""

    id: str
    layers: list[str]
    on_host_usr: bool
    hostname: str
    cgroups: list[str]
    max_pids: int
    max_data: int
    shm_bytes: int
    disk_bytes: int
    resolv_conf: str
    network: WantedNetwork | None
    mounts: list[tuple[str, str]] = field(default_factory=list)


class LauncherClient:
    """A running launcher.

    Args:
        on_exit: Called with the id of each sandbox whose processes have all ended.
        on_network: Called with the id of a sandbox whose network is as was asked for, or is not, and the reason.
        on_lost: Called once, if the launcher ends before it is closed.
    """

    def __init__(
        self,
        on_exit: Callable[[str], None],
        on_network: Callable[[str, bool, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._on_exit = on_exit
        self._on_network = on_network
        self._on_lost = on_lost
        self._gone: dict[str, asyncio.Future[bool]] = {}
        self._layers: dict[str, asyncio.Future[bool]] = {}
        self._control: socket.socket | None = None
        #: Only one at a time may wait until the launcher takes more.
        self._sending = anyio.Lock(fast_acquire=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        self.owners_shown = False
        self.no_network = ""

    @property
    def pid(self) -> int | None:
        """The launcher's process, while it runs."""
        return None if self._process is None else self._process.pid

    async def start(
        self,
        data_dir: Path,
        runtime: Path,
        command: list[str],
        bwrap: str,
        subids: SubIds | None,
        cgroup_homes: list[str],
        keep: Sequence[str],
    ) -> None:
        """Start the launcher and wait until it can launch.

        Raises:
            EngineUnavailableException: It cannot; the message says why.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = ours
        config = {
            "control": theirs.fileno(),
            "data_dir": str(data_dir),
            "runtime_dir": str(runtime),
            "privileged": subids is None,
            "bwrap": bwrap,
            "pasta": find_pasta(),
            "command": command,
            "cgroup_homes": cgroup_homes,
            "keep": list(keep),
        }
        arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", START, str(STANDALONE.parent), json.dumps(config)]
        with theirs:
            self._process = _start_process(arguments, theirs.fileno(), data_dir / "host" / "launcher.log")
        try:
            with anyio.fail_after(START_SECONDS):
                await self._prepare(self._process.pid, subids)
        except TimeoutError:
            raise EngineUnavailableException("the launcher of sandboxes did not start in time") from None
        asyncio.get_running_loop().add_reader(ours, self._readable)
        # The socket alone does not tell: what the launcher was just forking may hold its other end for a while.
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._lost)

    async def _prepare(self, pid: int, subids: SubIds | None) -> None:
        assert self._control is not None
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(self._control, MAX_EVENT)
            if not data:
                raise EngineUnavailableException("the launcher of sandboxes ended while it started")
            event = msgspec.json.decode(data, type=Event)
            match event.event:
                case "ready":
                    self.owners_shown, self.no_network = event.owners_shown, event.no_network
                    return
                case "unshared" if subids is not None:
                    await map_launcher(pid, subids)
                    answer = {"uids": subids.uids.count + 1, "gids": subids.gids.count + 1}
                    await loop.sock_sendall(self._control, json.dumps(answer).encode())
                case _:
                    raise EngineUnavailableException(
                        f"sandboxes cannot be prepared: {event.reason or event.event}; host/launcher.log in the data"
                        " directory may say more"
                    )

    async def launch(self, request: LaunchRequest, link: int, stderr: int) -> None:
        """Ask for a sandbox whose guest speaks on one descriptor and whose errors go to the other."""
        await self._send({"op": "launch", **vars(request)}, _rights(link, stderr))

    async def set_network(self, sandbox_id: str, network: WantedNetwork | None) -> None:
        """Ask for another network, or for none; the answer is an event."""
        await self._send({"op": "network", "id": sandbox_id, "network": network}, [])

    async def kill(self, sandbox_id: str, *, keep: bool = False) -> bool:
        """Kill a sandbox and remove its files; return whether all of it is gone. May be called more than once.

        Args:
            sandbox_id: Which one; of one that does not run, there may be files.
            keep: Leave the files.
        """
        future = self._gone.get(sandbox_id)
        if future is None:
            future = self._gone[sandbox_id] = asyncio.get_running_loop().create_future()
            try:
                await self._send({"op": "kill", "id": sandbox_id, "keep": keep}, [])
            except BaseException:
                del self._gone[sandbox_id]  # nobody answers it
                future.set_result(False)
                raise
        return await asyncio.shield(future)

    async def copy_layer(self, sandbox_id: str, name: str) -> bool:
        """Copy what a sandbox has written; return whether that succeeded."""
        return await self._layer_done({"op": "copy_layer", "id": name, "sandbox": sandbox_id})

    async def unpack_layer(self, name: str, archive: int, report: int, limit: int, digest: str) -> bool:
        """Make a layer of an archive; return whether that succeeded, or write why not to a descriptor."""
        message: dict[str, object] = {"op": "unpack_layer", "id": name, "limit": limit, "digest": digest}
        return await self._layer_done(message, _rights(archive, report))

    async def remove_layer(self, name: str) -> bool:
        """Remove such a copy; return whether it is gone."""
        return await self._layer_done({"op": "remove_layer", "id": name})

    async def serve_volumes(self, link: int) -> None:
        """Ask for a process that serves the content of volumes on a link."""
        await self._send({"op": "volumes"}, _rights(link))

    async def serve_gauge(self, link: int) -> None:
        """Ask for a process that measures sandboxes for those on a link."""
        await self._send({"op": "gauge"}, _rights(link))

    async def _layer_done(self, message: dict[str, object], rights: Sequence[Right] = ()) -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._layers[str(message["id"])] = future
        try:
            await self._send(message, rights)
        except BaseException:
            del self._layers[str(message["id"])]
            raise
        return await asyncio.shield(future)

    async def close(self) -> None:
        """End the launcher, and with it every sandbox."""
        self._hang_up()
        if self._process is not None:
            process, self._process = self._process, None
            with anyio.move_on_after(END_SECONDS, shield=True):
                await _ended(process.pid)
            if process.poll() is None:
                process.kill()
                process.wait()

    async def _send(self, message: dict[str, object], rights: Sequence[Right]) -> None:
        data = msgspec.json.encode(message)
        async with self._sending:
            while True:
                if self._control is None:
                    raise HostError("the launcher of sandboxes is gone")
                try:
                    self._control.sendmsg([data], rights)
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
                except OSError as error:
                    raise HostError(f"the launcher of sandboxes cannot be reached: {error.strerror}") from error
                else:
                    return

    def _readable(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(MAX_EVENT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        event = msgspec.json.decode(data, type=Event)
        if event.event == "exited":
            self._on_exit(event.id)
        elif event.event == "layer" and (future := self._layers.pop(event.id, None)) and not future.done():
            future.set_result(event.clean)
        elif event.event == "network":
            self._on_network(event.id, event.clean, event.reason)
        elif event.event == "gone" and (future := self._gone.pop(event.id, None)) and not future.done():
            future.set_result(event.clean)

    def _hang_up(self) -> None:
        loop = asyncio.get_running_loop()
        if self._control is not None:
            loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        if self._pidfd is not None:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _lost(self) -> None:
        if self._control is None:
            return
        self._hang_up()
        for future in (*self._gone.values(), *self._layers.values()):
            if not future.done():
                future.set_result(False)
        self._on_lost()


def _rights(*fds: int) -> list[Right]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def _start_process(arguments: list[str], control: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[control],
            env=environment(),
            cwd="/",
        )


async def _ended(pid: int) -> None:
    """Wait for the end of a child, which stays to be reaped."""
    handle = os.pidfd_open(pid)
    try:
        await anyio.wait_readable(handle)
    finally:
        os.close(handle)


def find_bwrap() -> str:
    """Return the path of bubblewrap.

    Raises:
        EngineUnavailableException: It is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise EngineUnavailableException("bubblewrap is not installed; on Debian: apt-get install bubblewrap uidmap")
    return os.path.realpath(found)
