"""Sandboxes in which one step is done each, and which then are layers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from grotte.engine.builds.catalogue import new_layer_id
from grotte.engine.host import Egress, Guest, GuestError, HostError, Limits, SandboxHost, SandboxSpec, SpawnRequest
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.templates import MAX_LAYERS
from grotte.engine.processes import running

#: How long removing what a step left may take, in seconds.
CLEAN_UP = 60.0


class StepFailed(Exception):
    """A step did not succeed; the text is for whoever builds."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a build has come.

    Attributes:
        layers: Topmost first.
        setup: As the steps so far have it.
    """

    layers: tuple[str, ...]
    setup: Setup

    def on(self, layer: str) -> Stage:
        """The same with one more layer, unless that is empty."""
        return replace(self, layers=(layer, *self.layers)) if layer else self


Work = Callable[[Guest], Awaitable[None]]


#: Functions that the shell of a step finds in its environment: packages are the system's, and the user of a step may
#: have them installed with sudo. Recipes for services that run steps as root say plain ``apt-get``.
_ELEVATED = {f"BASH_FUNC_{name}%%": f'() {{ sudo -E {name} "$@"\n}}' for name in ("apt-get", "apt", "dpkg")}


class Workshop:
    """Does steps on this machine.

    Args:
        host: Where sandboxes are launched.
        limits: What a step may use, unless its template says otherwise.
    """

    def __init__(self, host: SandboxHost, limits: Limits) -> None:
        self._host = host
        self._limits = limits

    async def make_layer(self, stage: Stage, work: Work) -> str:
        """Do something in a sandbox on a stage; return the layer of what it wrote, which belongs to nobody yet.

        Raises:
            StepFailed: it did not succeed, and left nothing.
        """
        if len(stage.layers) >= MAX_LAYERS:
            raise StepFailed(f"a template has at most {MAX_LAYERS} layers: join some steps")
        layer = new_layer_id()
        async with self.sandbox(stage) as guest:
            await work(guest)
            await self._host.put_away(guest.sandbox_id)
            if self._limits.own_disk:  # its files lie on a disk of its own, which goes with it
                await self._host.copy_layer(guest.sandbox_id, layer)
            else:
                self._host.adopt_layer(guest.sandbox_id, layer)
        return layer

    @asynccontextmanager
    async def sandbox(self, stage: Stage) -> AsyncIterator[Guest]:
        """A sandbox for the length of a block.

        Raises:
            StepFailed: it could not be started, or refused what was asked of it.
        """
        name = f"b{new_layer_id()}"
        spec = SandboxSpec(
            sandbox_id=name,
            layers=tuple(self._layer(layer) for layer in stage.layers),
            hostname="build",
            limits=stage.setup.limits(self._limits),
            on_host_usr=stage.setup.on_host_usr,
            egress=None if self._host.no_internet else Egress(),
        )
        try:
            self._host.room.check()
            guest = await self._host.launch(spec)
            try:
                yield guest
            finally:
                with anyio.move_on_after(CLEAN_UP, shield=True):
                    await guest.kill()
                    if self._host.has_files(name):
                        await self._host.discard(name)
        except GuestError as error:
            raise StepFailed(error.message) from None
        except HostError as error:
            raise StepFailed(str(error)) from None

    def _layer(self, name: str) -> Path:
        return self._host.layer(name)

    async def run(self, guest: Guest, setup: Setup, command: str, user: str, on_line: running.OnLine) -> None:
        """Run a command as a shell has it.

        Raises:
            StepFailed: it did not end with status 0.
            GuestError: it could not be run.
        """
        entry = await guest.user(user or setup.user)
        envs = setup.envs | ({} if entry.uid == 0 else _ELEVATED)
        request = SpawnRequest(
            "/bin/bash", ("-l", "-c", command), envs, setup.workdir or None, entry.name, identify=True
        )
        await _succeed(guest, request, on_line)

    async def tool(self, guest: Guest, module: str, *arguments: str, stdin: int | None = None) -> None:
        """Run a program of the engine's own as root inside.

        Raises:
            StepFailed: it says why it could not do what it should.
            GuestError: it could not be run.
        """
        cmd, *rest = self._host.tool(module, *arguments)
        said: list[str] = []
        request = SpawnRequest(cmd, tuple(rest), {"LC_ALL": "C"}, "/", "root", stdin=stdin is not None)
        status = await running.run(guest, request, lambda line, _: said.append(line), stdin)
        if status.code != 0:
            raise StepFailed(said[-1] if said else f"the step ended with {_shown(status.code, status.signal)}")


async def _succeed(guest: Guest, request: SpawnRequest, on_line: running.OnLine) -> None:
    status = await running.run(guest, request, on_line)
    if status.code is None and status.signal is None:
        raise StepFailed("the sandbox of the step died, perhaps for want of memory")
    if guest.quota.full:
        raise StepFailed(guest.quota.full)
    if status.code != 0:
        raise StepFailed(f"the command ended with {_shown(status.code, status.signal)}")


def _shown(code: int | None, signal: int | None) -> str:
    return f"exit status {code}" if signal is None else f"signal {signal}"
