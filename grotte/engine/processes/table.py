"""The processes of one sandbox, by pid and by tag."""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from grotte._proto.messages import ProcessSelector, StartRequest
from grotte.engine.faults import RpcFault
from grotte.engine.host import Guest, SpawnRequest, TerminalSize
from grotte.engine.processes.output import Subscription
from grotte.engine.processes.process import Process

#: How long an ended process can still be asked how it ended, in seconds.
RETENTION = 30.0


class ProcessTable:
    """Processes that run, and those that ended a moment ago.

    They belong to the sandbox and not to the request that started them: `tasks` is the engine's.
    """

    def __init__(self, guest: Guest, tasks: TaskGroup) -> None:
        self._guest = guest
        self._tasks = tasks
        self._running: dict[int, Process] = {}
        self._ended: dict[int, Process] = {}  # in the order of their ends

    async def start(
        self,
        request: StartRequest,
        envs: dict[str, str],
        user: str,
        deadline: float | None,
        terminal: TerminalSize | None = None,
    ) -> tuple[Process, Subscription]:
        """Start a process and listen to it before it says a word.

        Args:
            envs: The whole environment.
            deadline: When it is killed, on the event loop's clock; None for never.
            terminal: The size of its terminal, if it gets one.

        Raises:
            GuestError: the sandbox refused.
        """
        config = request.process
        spawn = SpawnRequest(
            cmd=config.cmd,
            args=tuple(config.args),
            envs=envs,
            cwd=config.cwd,
            user=user,
            stdin=request.stdin is not False,
            terminal=terminal,
        )
        # A client that leaves now leaves a process behind all the same, and it must be one that we know.
        with anyio.CancelScope(shield=True):
            spawned = await self._guest.spawn(spawn)
        self._forget_stale(spawned.pid, request.tag)
        process = self._running[spawned.pid] = Process(self._guest, spawned, config, request.tag)
        subscription = process.subscribe()
        self._tasks.start_soon(self._see_through, process, deadline)
        return process, subscription

    async def _see_through(self, process: Process, deadline: float | None) -> None:
        try:
            await process.run(deadline)
        finally:
            del self._running[process.pid]
            self._ended[process.pid] = process

    def running(self) -> list[Process]:
        return list(self._running.values())

    def find(self, selector: ProcessSelector, *, ended: bool = False) -> Process:
        """The process that a selector means; the latest one that has its tag, a running one before an ended one.

        Args:
            ended: Whether one that ended less than 30 seconds ago will do.

        Raises:
            RpcFault: not_found, or unimplemented for an empty selector.
        """
        self._forget_old()
        places = [self._running, self._ended] if ended else [self._running]
        if selector.pid is not None:
            found = next((place[selector.pid] for place in places if selector.pid in place), None)
            name = f"pid {selector.pid}"
        elif selector.tag is not None:
            candidates = (process for place in places for process in reversed(place.values()))
            found = next((process for process in candidates if process.tag == selector.tag), None)
            name = f"tag {selector.tag}"
        else:
            raise RpcFault("unimplemented", "the process selector is empty")
        if found is None:
            raise RpcFault("not_found", f"process with {name} not found")
        return found

    def lose_all(self) -> None:
        """The sandbox is gone."""
        for process in self.running():
            process.lose()

    def _forget_stale(self, pid: int, tag: str | None) -> None:
        """A new process takes the place of an ended one of its pid or tag."""
        self._forget_old()
        self._ended.pop(pid, None)
        if tag is not None:
            for old in [process.pid for process in self._ended.values() if process.tag == tag]:
                del self._ended[old]

    def _forget_old(self) -> None:
        horizon = anyio.current_time() - RETENTION
        while self._ended:
            pid = next(iter(self._ended))
            if self._ended[pid].ended_at >= horizon:
                return
            del self._ended[pid]
