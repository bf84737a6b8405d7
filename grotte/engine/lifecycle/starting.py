"""What a template wants to run in its sandboxes before anybody else does."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from grotte._proto.messages import ProcessConfig, StartRequest
from grotte.engine.host import Guest, GuestError, HostError, SpawnRequest
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.processes import running
from grotte.engine.processes.process import Process
from grotte.engine.processes.table import ProcessTable

#: How long a start command may take until it is ready, in seconds.
READY_SECONDS = 300.0
#: How long it is left alone between two questions whether it is, in seconds: the first, and the most.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
#: Every client runs commands so; where there is no bash, the guest takes the image's shell.
SHELL = ("/bin/bash", "-l", "-c")
#: Where a sandbox's programs may send events. Nothing takes them: an address that refuses at once.
NO_EVENTS = "http://127.0.0.1:49983"


@dataclass(frozen=True, slots=True)
class Start:
    """A start command, and all that it depends on.

    Attributes:
        command: What runs from then on.
        ready: What succeeds once that is ready; nothing if it is at once.
        template_id: Whose it is.
    """

    command: str
    ready: str
    user: str
    workdir: str
    envs: tuple[tuple[str, str], ...] = field(repr=False)
    template_id: str


def start_of(setup: Setup, template_id: str) -> Start | None:
    """What is to be started in a template's sandboxes; None for nothing."""
    if not setup.start_cmd:
        return None
    envs = tuple(setup.envs.items())
    return Start(setup.start_cmd, setup.ready_cmd, setup.user, setup.workdir, envs, template_id)


def facts(sandbox_id: str, template_id: str) -> dict[str, str]:
    """What a sandbox tells its processes about itself."""
    own = {"SANDBOX": "true", "SANDBOX_ID": sandbox_id, "TEMPLATE_ID": template_id, "EVENTS_ADDRESS": NO_EVENTS}
    return {f"{prefix}_{name}": value for prefix in ("E2B", "GROTTE") for name, value in own.items()}


async def begin(guest: Guest, table: ProcessTable, wanted: Start) -> tuple[Process, dict[str, str]]:
    """Run a start command; return it with its environment.

    Raises:
        GuestError: it could not be run.
    """
    envs = dict(wanted.envs) | facts(guest.sandbox_id, wanted.template_id)
    cmd, *arguments = SHELL
    config = ProcessConfig(cmd=cmd, args=[*arguments, wanted.command], cwd=wanted.workdir or None)
    process, reader = await table.start(StartRequest(process=config, stdin=False), envs, wanted.user, None)
    reader.close()
    return process, envs


async def start(guest: Guest, table: ProcessTable, wanted: Start, on_line: running.OnLine) -> None:
    """Run a start command and wait until it is ready.

    Args:
        guest: Where.
        table: The processes there.
        wanted: What.
        on_line: Is told what the readiness check says.

    Raises:
        HostError: it failed, or was not ready in time.
    """
    cmd, *arguments = SHELL
    try:
        process, envs = await begin(guest, table, wanted)
        if wanted.ready:
            check = SpawnRequest(
                cmd, (*arguments, wanted.ready), envs, wanted.workdir or None, wanted.user, identify=True
            )
            with anyio.fail_after(READY_SECONDS):
                await _until_ready(guest, process, check, on_line)
    except GuestError as error:
        raise HostError(f"the start command could not be run: {error.message}") from None
    except TimeoutError:
        raise HostError(f"the start command was not ready within {READY_SECONDS:.0f} s: {wanted.ready}") from None


async def _until_ready(guest: Guest, process: Process, check: SpawnRequest, on_line: running.OnLine) -> None:
    pause = FIRST_PAUSE
    while (await running.run(guest, check, on_line)).code != 0:
        if process.end is not None and process.end.exit_code:
            raise HostError(f"the start command ended with {process.end.status} before it was ready")
        await anyio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
