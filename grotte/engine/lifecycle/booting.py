"""From a specification to a sandbox in which everything runs that is to run there."""

from __future__ import annotations

import logging
from functools import partial

import anyio
from anyio.abc import TaskGroup

from grotte.engine.host import Guest, GuestError, SandboxHost, SandboxSpec
from grotte.engine.lifecycle.starting import Start, begin, start
from grotte.engine.processes.table import ProcessTable

log = logging.getLogger("grotte.engine")


class Booting:
    """Launches sandboxes, spares and others.

    Attributes:
        tasks: Where what runs in sandboxes is seen through; set before the first launch.
    """

    def __init__(self, host: SandboxHost) -> None:
        self._host = host
        self._started: dict[str, ProcessTable] = {}
        self.tasks: TaskGroup

    async def launch(self, spec: SandboxSpec, wanted: Start | None) -> Guest:
        """A sandbox whose start command, if there is one, is ready.

        Raises:
            HostError: it could not be started, and nothing of it is left, or the start command failed.
        """
        guest = await self._host.launch(spec)
        if wanted is None:
            return guest
        table = ProcessTable(guest, self.tasks)
        try:
            await start(guest, table, wanted, _ignore)
        except BaseException:
            with anyio.CancelScope(shield=True):  # bounded by whoever buries
                await guest.kill()
            raise
        self._started[guest.sandbox_id] = table
        guest.when_closed(partial(self._closed, guest, table))
        return guest

    def _closed(self, guest: Guest, table: ProcessTable) -> None:
        self._started.pop(guest.sandbox_id, None)
        table.lose_all()

    def processes(self, guest: Guest) -> ProcessTable:
        """The processes of a sandbox that was launched here, to be asked for once."""
        return self._started.pop(guest.sandbox_id, None) or ProcessTable(guest, self.tasks)

    async def again(self, guest: Guest, table: ProcessTable, wanted: Start) -> None:
        """Run the start command in a sandbox that goes on from its files."""
        try:
            await begin(guest, table, wanted)
        except GuestError as error:
            log.warning("event=start_failed sandbox=%s reason=%s", guest.sandbox_id, error)


def _ignore(line: str, is_error: bool) -> None:
    """Nobody reads what the readiness check of a sandbox says."""
