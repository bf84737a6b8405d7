"""The processes of one sandbox, by pid and by tag."""

from __future__ import annotations

import asyncio

import anyio
from anyio.abc import TaskGroup

from grotte._proto.messages import ProcessConfig, ProcessSelector, StartRequest
from grotte.engine.faults import RpcFault
from grotte.engine.host import Guest, GuestError, SpawnRequest, TerminalSize
from grotte.engine.journal import Journal, Level
from grotte.engine.processes.process import Process
from grotte.engine.processes.spool import Allowance, Reader

#: How long an ended process can still be asked how it ended, in seconds.
RETENTION = 30.0
#: Of how many; commands that end at once come faster than they are forgotten.
MAX_ENDED = 4096
#: How many a sandbox can have at a time. What has ended counts as long as something holds its output open, which costs
#: the engine descriptors, and the sandbox hardly anything.
MAX_RUNNING = 2048
#: What is kept of the name of a program that has ended.
MAX_NAME = 256
#: How much of what a process said last on stderr is written down at its end, in bytes.
STDERR_TAIL = 2048


class ProcessTable:
    """Processes that run, and those that ended a moment ago.

    They belong to the sandbox and not to the request that started them: `tasks` is the engine's.

    Attributes:
        journal: Where their starts and ends are written down.
    """

    def __init__(self, guest: Guest, tasks: TaskGroup) -> None:
        self.journal = Journal()
        self._guest = guest
        self._tasks = tasks
        self._starting = 0
        self._running: dict[int, Process] = {}
        self._ended: dict[int, Process] = {}  # in the order of their ends
        self._allowance = Allowance()
        self._forgetting: asyncio.TimerHandle | None = None
        self._lost = False

    async def start(
        self,
        request: StartRequest,
        envs: dict[str, str],
        user: str,
        deadline: float | None,
        terminal: TerminalSize | None = None,
        cwd: str | None = None,
    ) -> tuple[Process, Reader]:
        """Start a process and listen to it before it says a word.

        Args:
            envs: The environment, but for what every user's processes have.
            deadline: When it is killed, on the event loop's clock; None for never.
            terminal: The size of its terminal, if it gets one.
            cwd: Where it starts; None for where the request says, or for the user's home.

        Raises:
            GuestError: the sandbox refused.
        """
        if len(self._running) + self._starting >= MAX_RUNNING:
            raise GuestError("resource_exhausted", f"a sandbox has at most {MAX_RUNNING} processes with open output")
        config = request.process
        spawn = SpawnRequest(
            cmd=config.cmd,
            args=tuple(config.args),
            envs=envs,
            cwd=cwd or config.cwd,
            user=user,
            stdin=request.stdin is not False,
            terminal=terminal,
            identify=True,
        )
        # A client that leaves now leaves a process behind all the same, and it must be one that we know.
        self._starting += 1
        try:
            with anyio.CancelScope(shield=True):
                spawned = await self._guest.spawn(spawn)
        finally:
            self._starting -= 1
        self._forget_stale(spawned.pid, request.tag)
        process = self._running[spawned.pid] = Process(self._guest, spawned, config, request.tag, self._allowance)
        reader = process.output.listen()
        # Arguments may hold secrets, which are no business of a log.
        fields = {"pid": str(process.pid), "user": spawned.user}
        self.journal.add("info", f"process {process.pid} started: {config.cmd}", **fields)
        process.see_through(self._tasks, deadline, self._has_ended)
        return process, reader

    def _has_ended(self, process: Process) -> None:
        del self._running[process.pid]
        self._write_down_end(process)
        self._retain(process)

    def _write_down_end(self, process: Process) -> None:
        if process.end is None:
            return  # it ended with its sandbox, which is written down elsewhere
        fields = {"pid": str(process.pid), "status": process.end.status}
        if tail := process.output.tail("stderr", STDERR_TAIL):
            fields["stderr"] = tail.decode(errors="replace")
        level: Level = "warn" if process.end.error else "info"
        self.journal.add(level, f"process {process.pid} ended: {process.end.status}", **fields)

    def _retain(self, process: Process) -> None:
        """Keep what an ended process said and how it ended for those who ask within 30 seconds."""
        if self._lost:
            process.output.close()
            return
        # Nobody asks any more with what it was started, which may have been megabytes.
        process.config = ProcessConfig(cmd=process.config.cmd[:MAX_NAME])
        self._ended[process.pid] = process
        if len(self._ended) > MAX_ENDED:
            self._forget(next(iter(self._ended.values())))
        self._forget_in_time()

    def _forget_in_time(self) -> None:
        """Forget what is old, and look again when the next one is."""
        self._forget_old()
        if self._ended and self._forgetting is None:
            oldest = next(iter(self._ended.values()))
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_at(oldest.ended_at + RETENTION, self._forget_next)

    def _forget_next(self) -> None:
        self._forgetting = None
        self._forget_in_time()

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
        self._lost = True
        for process in list(self._ended.values()):
            self._forget(process)
        if self._forgetting is not None:
            self._forgetting.cancel()
        for process in self.running():
            process.lose()

    def _forget_stale(self, pid: int, tag: str | None) -> None:
        """A new process takes the place of an ended one of its pid or tag."""
        self._forget_old()
        if (same := self._ended.get(pid)) is not None:
            self._forget(same)
        if tag is not None:
            for old in [old for old in self._ended.values() if old.tag == tag]:
                self._forget(old)

    def _forget_old(self) -> None:
        horizon = anyio.current_time() - RETENTION
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if oldest.ended_at > horizon:
                return
            self._forget(oldest)

    def _forget(self, process: Process) -> None:
        del self._ended[process.pid]
        process.output.close()
