"""Commands in a sandbox: run them, list them, feed them, end them."""

from __future__ import annotations

import builtins
from base64 import b64encode
from typing import Literal, overload

from grotte._core import _aio
from grotte._core.command_handle import AsyncCommandHandle
from grotte._core.rpc import AsyncEnvd, AsyncEventStream
from grotte._dual import accepts_old_names
from grotte._proto import arguments
from grotte._proto.messages import (
    CloseStdinRequest,
    ConnectRequest,
    Empty,
    ListResponse,
    Message,
    ProcessConfig,
    ProcessInput,
    ProcessSelector,
    SendInputRequest,
    SendSignalRequest,
    StartRequest,
)
from grotte._proto.versions import STDIN_FLAG, at_least
from grotte.errors import InvalidArgumentException, NotFoundException, TimeoutException
from grotte.models import CommandResult, ProcessInfo, Stderr, Stdout, Username

#: How long a command may run unless the caller says otherwise, in seconds.
DEFAULT_TIMEOUT = 60.0
#: What a cancelled call may take to end its command, in seconds.
KILL_SECONDS = 2.0
SHELL = "/bin/bash"


class AsyncCommands:
    """`sandbox.commands`.

    Example:
        ```python
        result = await sandbox.commands.run("python -c 'print(2+2)'")
        print(result.stdout)
        ```
    """

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    @overload
    async def run(
        self,
        command: str,
        background: Literal[False] | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        stdin: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
    ) -> CommandResult: ...
    @overload
    async def run(
        self,
        command: str,
        background: Literal[True],
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        stdin: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
    ) -> AsyncCommandHandle: ...
    @overload
    async def run(
        self,
        command: str,
        background: bool | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        stdin: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
    ) -> CommandResult | AsyncCommandHandle: ...
    @accepts_old_names(cmd="command")
    async def run(
        self,
        command: str,
        background: bool | None = None,
        envs: dict[str, str] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        stdin: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
    ) -> CommandResult | AsyncCommandHandle:
        """Run a command line in a login shell, and wait for its end unless `background` is set.

        A call that is cancelled while it waits kills its command. A command in the background goes on when its
        handle is gone; its output is read, and its callbacks are called, while somebody waits for or iterates over
        the handle, and a command whose output nobody reads pauses once the buffers are full.

        Args:
            command: The command line, for ``/bin/bash -l -c``.
            background: Return a handle as soon as it has started.
            envs: Environment variables, over those of the sandbox.
            user: Who runs it; default: the template's user.
            cwd: Where; relative paths start at the user's home, which is the default.
            on_stdout: Called with each piece of text of stdout as it arrives.
            on_stderr: The same of stderr.
            stdin: Give it a stdin for `send_stdin`; otherwise it is empty.
            timeout: How long it may run, in seconds; then it is killed. 0 or None: as long as it likes.
            request_timeout: How long its start may take, in seconds.
            check: Raise if it exits with another code than 0.

        Returns:
            The result, or the handle of a command in the background.

        Raises:
            CommandExitException: it exited with another code than 0; this is the result, too.
            TimeoutException: `timeout` or `request_timeout` was over.
            InvalidArgumentException: an argument is wrong, or there is no directory `cwd`.

        Example:
            ```python
            result = await sandbox.commands.run("ls -l /", on_stdout=print)
            ```
        """
        request = self._start_request(command, envs, cwd, stdin)
        limit = arguments.seconds(timeout, "timeout")
        user = None if user is None else arguments.user_name(user)
        handle = await self._open("process.Process/Start", request, user, limit, request_timeout, check)
        handle.add_callbacks(on_stdout, on_stderr)
        return handle if background else await self._finish(handle)

    async def connect(
        self,
        pid: int,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        *,
        check: bool = True,
    ) -> AsyncCommandHandle:
        """Attach to a running command; its output from now on arrives here, too.

        Args:
            pid: Its process id, from `list` or a handle.
            timeout: How long to stay attached, in seconds; 0 or None: to its end.
            request_timeout: How long attaching may take, in seconds.
            on_stdout: As for `run`.
            on_stderr: As for `run`.
            check: As for `run`, for the handle's `wait`.

        Raises:
            NotFoundException: there is no such command.
        """
        request = ConnectRequest(process=_selector(pid))
        limit = arguments.seconds(timeout, "timeout")
        handle = await self._open("process.Process/Connect", request, None, limit, request_timeout, check)
        handle.add_callbacks(on_stdout, on_stderr)
        return handle

    async def list(self, request_timeout: float | None = None) -> builtins.list[ProcessInfo]:
        """The commands that run, those that were started by others included.

        Args:
            request_timeout: In seconds.
        """
        reply = await self._envd.unary(
            "process.Process/List", Empty(), ListResponse, request_timeout=request_timeout, idempotent=True
        )
        return [
            ProcessInfo(
                pid=process.pid,
                tag=process.tag,
                cmd=process.config.cmd,
                args=process.config.args,
                envs=process.config.envs,
                cwd=process.config.cwd,
            )
            for process in reply.processes
        ]

    async def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """End a command with SIGKILL.

        Args:
            pid: Its process id.
            request_timeout: In seconds.

        Returns:
            True, or False if it was gone.
        """
        message = SendSignalRequest(process=_selector(pid), signal="SIGNAL_SIGKILL")
        try:
            await self._call("SendSignal", message, request_timeout, idempotent=True)
        except NotFoundException:
            return False
        return True

    async def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to the stdin of a command that was started with ``stdin=True``.

        Args:
            pid: Its process id.
            data: Text is sent as UTF-8.
            request_timeout: In seconds.

        Raises:
            NotFoundException: there is no such command.
            SandboxException: its stdin is closed, or it has none.
        """
        process = _selector(pid)
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidArgumentException(f"data must be str or bytes, not {type(data).__name__}")
        text = b64encode(data).decode()
        message = SendInputRequest(process=process, input=ProcessInput(stdin=text))
        await self._call("SendInput", message, request_timeout)

    async def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Close the stdin of a command, which so sees its end.

        Args:
            pid: Its process id.
            request_timeout: In seconds.

        Raises:
            NotFoundException: there is no such command.
        """
        await self._call("CloseStdin", CloseStdinRequest(process=_selector(pid)), request_timeout, idempotent=True)

    async def _call(
        self, method: str, message: Message, request_timeout: float | None, *, idempotent: bool = False
    ) -> None:
        await self._envd.unary(
            f"process.Process/{method}", message, Empty, request_timeout=request_timeout, idempotent=idempotent
        )

    def _start_request(
        self, command: str, envs: dict[str, str] | None, cwd: str | None, stdin: bool | None
    ) -> StartRequest:
        if stdin is not None and not isinstance(stdin, bool):
            raise InvalidArgumentException("stdin must be a bool; send data with send_stdin() of the handle")
        return StartRequest(
            process=ProcessConfig(
                cmd=SHELL,
                args=["-l", "-c", arguments.command_line(command)],
                envs=arguments.environment(envs),
                cwd=None if cwd is None else arguments.text(cwd, "cwd"),
            ),
            # always said where it is understood: the default of servers is an open pipe
            stdin=bool(stdin) if at_least(self._envd.version, STDIN_FLAG) else None,
        )

    async def _open(
        self,
        method: str,
        message: Message,
        user: str | None,
        timeout: float | None,
        request_timeout: float | None,
        check: bool,
    ) -> AsyncCommandHandle:
        request = self._envd.stream_request(method, message, user, timeout)
        stream = AsyncEventStream(self._envd, request, timeout)
        events = await stream.open(self._envd.config.timeout(request_timeout))
        return AsyncCommandHandle(self, self._envd.sandbox_id, stream, events, check=check)

    async def _finish(self, handle: AsyncCommandHandle) -> CommandResult:
        """Wait for a command that belongs to this call, and so ends with it."""
        try:
            return await handle.wait()
        except TimeoutException as error:
            # its kinds mean that the sandbox is gone or out of reach; this one, that a server did not keep the time
            if type(error) is TimeoutException:
                await self._abandon(handle)
            raise
        finally:
            if not handle.is_over():
                # cancelled, or a callback failed
                await self._abandon(handle)

    async def _abandon(self, handle: AsyncCommandHandle) -> None:
        with _aio.shield(KILL_SECONDS):
            await handle.abandon()


def _selector(pid: int) -> ProcessSelector:
    return ProcessSelector(pid=arguments.process_id(pid))
