"""Commands in a sandbox: run them, list them, feed them, end them."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal, Unpack, overload

from grotte._core import _aio
from grotte._core.command_handle import AsyncCommandHandle
from grotte._core.command_input import AsyncFeeder
from grotte._core.process_stream import CONNECT, START, AsyncProcessStream
from grotte._core.rpc import AsyncEnvd
from grotte._dual import accepts_old_names
from grotte._proto import arguments
from grotte._proto.calls import CallParams, check_call
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
from grotte._proto.pinned import BY_SANDBOX, Pinned
from grotte._proto.versions import CLOSE_STDIN, STDIN_FLAG, at_least
from grotte.errors import InvalidArgumentException, NotFoundException, SandboxException, TimeoutException
from grotte.models import CommandResult, ProcessInfo, Stderr, Stdout, Username

#: How long a command may run unless the caller says otherwise, in seconds.
DEFAULT_TIMEOUT = 60.0
#: What a cancelled call may take to end its command, in seconds.
KILL_SECONDS = 2.0
SHELL = "/bin/bash"


class AsyncCommands(Pinned):
    """`sandbox.commands`.

    Example:
        ```python
        result = await sandbox.commands.run("python -c 'print(2+2)'")
        print(result.stdout)
        ```
    """

    _instead = BY_SANDBOX

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sandbox_id={self._envd.sandbox_id!r})"

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
        stdin: bool | str | bytes | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        max_output: int | None = None,
        **call: Unpack[CallParams],
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
        stdin: bool | str | bytes | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        max_output: int | None = None,
        **call: Unpack[CallParams],
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
        stdin: bool | str | bytes | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        max_output: int | None = None,
        **call: Unpack[CallParams],
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
        stdin: bool | str | bytes | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        max_output: int | None = None,
        **call: Unpack[CallParams],
    ) -> CommandResult | AsyncCommandHandle:
        """Run a command line in a login shell, and wait for its end unless `background` is set.

        A call that is cancelled while it waits kills its command. A command in the background goes on when its
        handle is gone; its output is read, and its callbacks are called, while somebody waits for or iterates over
        the handle, and a command whose output nobody reads pauses once the buffers are full.

        When the connection breaks, the command is attached to again; the result's `output_missing` says if a server
        could not send what was printed meanwhile. A command whose start was not answered is never started again by
        itself: the exception says that it may run.

        Args:
            command: The command line, for ``/bin/bash -l -c``.
            background: Return a handle as soon as it has started.
            envs: Environment variables, over those of the sandbox.
            user: Who runs it; default: the template's user.
            cwd: Where; relative paths start at the user's home, which is the default.
            on_stdout: Called with each piece of text of stdout as it arrives.
            on_stderr: The same of stderr.
            stdin: What it reads from its stdin: text (sent as UTF-8) or bytes. True: what `send_stdin` sends. None or
                False: nothing.
            timeout: How long it may run, in seconds; then it is killed. 0 or None: as long as it likes.
            request_timeout: How long its start may take, in seconds.
            check: Raise if it exits with another code than 0.
            max_output: How many characters of stdout and of stderr are kept, the last ones; the result says how many
                were dropped. Callbacks, and an iteration that keeps up, see all. Default: everything is kept.
            **call: See `CallParams`.

        Returns:
            The result, or the handle of a command in the background.

        Raises:
            CommandExitException: it exited with another code than 0; this is the result, too.
            TimeoutException: `timeout` or `request_timeout` was over.
            SandboxNotRunningException: the sandbox is gone.
            SandboxUnreachableException: the connection broke for good, or the command's end was missed.
            InvalidArgumentException: an argument is wrong, or there is no directory `cwd`.

        Example:
            ```python
            result = await sandbox.commands.run("ls -l /", on_stdout=print)
            ```
        """
        check_call(call)
        _check_handlers(on_stdout, on_stderr)
        data = None if stdin is None or isinstance(stdin, bool) else self._stdin_data(stdin, background)
        request = self._start_request(command, envs, cwd, data is not None or bool(stdin))
        limit, kept = arguments.seconds(timeout, "timeout"), _output_limit(max_output)
        user = None if user is None else arguments.user_name(user)
        handle = await self._open(START, request, user, limit, request_timeout, check, kept)
        handle.add_callbacks(on_stdout, on_stderr)
        if background:
            return handle
        handle.belongs_to_call()
        return await self._finish(handle) if data is None else await self._feed(handle, data, limit)

    async def connect(
        self,
        pid: int,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        *,
        check: bool = True,
        max_output: int | None = None,
        **call: Unpack[CallParams],
    ) -> AsyncCommandHandle:
        """Attach to a running command; its output from now on arrives here, too.

        Args:
            pid: Its process id, from `list` or a handle.
            timeout: How long to stay attached, in seconds; 0 or None: to its end.
            request_timeout: How long attaching may take, in seconds.
            on_stdout: As for `run`.
            on_stderr: As for `run`.
            check: As for `run`, for the handle's `wait`.
            max_output: As for `run`.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such command.

        Example:
            ```python
            started = await sandbox.commands.run("sleep 1; echo done", background=True)
            handle = await sandbox.commands.connect(started.pid)
            print((await handle.wait()).stdout)  # done
            ```
        """
        check_call(call)
        _check_handlers(on_stdout, on_stderr)
        request = ConnectRequest(process=_selector(pid))
        limit, kept = arguments.seconds(timeout, "timeout"), _output_limit(max_output)
        handle = await self._open(CONNECT, request, None, limit, request_timeout, check, kept)
        handle.add_callbacks(on_stdout, on_stderr)
        return handle

    async def list(
        self, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> builtins.list[ProcessInfo]:
        """The commands that run, those that were started by others included.

        Args:
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            for process in await sandbox.commands.list():
                print(process.pid, process.cmd, process.args)
            ```
        """
        check_call(call)
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

    async def kill(self, pid: int, request_timeout: float | None = None, **call: Unpack[CallParams]) -> bool:
        """End a command with SIGKILL.

        Args:
            pid: Its process id.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            True, or False if it was gone.

        Example:
            ```python
            handle = await sandbox.commands.run("sleep 600", background=True)
            print(await sandbox.commands.kill(handle.pid))  # True
            ```
        """
        check_call(call)
        message = SendSignalRequest(process=_selector(pid), signal="SIGNAL_SIGKILL")
        try:
            await self._call("SendSignal", message, request_timeout, idempotent=True)
        except NotFoundException:
            return False
        return True

    async def send_stdin(
        self, pid: int, data: str | bytes, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> None:
        """Write to the stdin of a command that was started with ``stdin=True``.

        Args:
            pid: Its process id.
            data: Text is sent as UTF-8.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such command.
            SandboxException: its stdin is closed, or it has none.

        Example:
            ```python
            handle = await sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
            await sandbox.commands.send_stdin(handle.pid, "hello\\n")
            print((await handle.wait()).stdout)  # got hello
            ```
        """
        check_call(call)
        process = _selector(pid)
        for piece in arguments.input_pieces(data):
            message = SendInputRequest(process=process, input=ProcessInput(stdin=piece))
            await self._call("SendInput", message, request_timeout)

    async def close_stdin(self, pid: int, request_timeout: float | None = None, **call: Unpack[CallParams]) -> None:
        """Close the stdin of a command, which so sees its end.

        Args:
            pid: Its process id.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such command.

        Example:
            ```python
            handle = await sandbox.commands.run("wc -c", background=True, stdin=True)
            await sandbox.commands.send_stdin(handle.pid, b"12345")
            await sandbox.commands.close_stdin(handle.pid)
            print((await handle.wait()).stdout)  # 5
            ```
        """
        check_call(call)
        await self._call("CloseStdin", CloseStdinRequest(process=_selector(pid)), request_timeout, idempotent=True)

    async def _call(
        self, method: str, message: Message, request_timeout: float | None, *, idempotent: bool = False
    ) -> None:
        await self._envd.unary(
            f"process.Process/{method}", message, Empty, request_timeout=request_timeout, idempotent=idempotent
        )

    def _stdin_data(self, stdin: str | bytes, background: bool | None) -> bytes:
        data = arguments.input_bytes(stdin)
        if background:
            raise InvalidArgumentException("data for a command in the background: pass stdin=True, then send_stdin()")
        if not at_least(self._envd.version, CLOSE_STDIN):
            raise SandboxException("its agent is too old to close the stdin of a command: build the template anew")
        return data

    def _start_request(self, command: str, envs: dict[str, str] | None, cwd: str | None, stdin: bool) -> StartRequest:
        return StartRequest(
            process=ProcessConfig(
                cmd=SHELL,
                args=["-l", "-c", arguments.command_line(command)],
                envs=arguments.environment(envs),
                cwd=None if cwd is None else arguments.path(cwd, "cwd"),
            ),
            # always said where it is understood: the default of servers is an open pipe
            stdin=stdin if at_least(self._envd.version, STDIN_FLAG) else None,
        )

    async def _open(
        self,
        method: str,
        message: Message,
        user: str | None,
        timeout: float | None,
        request_timeout: float | None,
        check: bool,
        max_output: int | None,
    ) -> AsyncCommandHandle:
        stream = AsyncProcessStream(self._envd, timeout)
        events = await stream.open(method, message, user, self._envd.config.timeout(request_timeout))
        return AsyncCommandHandle(self, self._envd.sandbox_id, stream, events, check=check, max_output=max_output)

    async def _feed(self, handle: AsyncCommandHandle, data: bytes, timeout: float | None) -> CommandResult:
        """Write its stdin while its output is read, so that neither side waits for the other for ever."""
        feeder = AsyncFeeder(handle, data, timeout)
        results: builtins.list[CommandResult] = []
        async with _aio.open_nursery() as nursery:
            try:
                results.append(await self._finish(handle, partial(nursery.start_soon, feeder.feed)))
            except SandboxException:
                if feeder.failure is not None:
                    raise feeder.failure from None
                raise
        return results[0]

    async def _finish(self, handle: AsyncCommandHandle, begin: Callable[[], None] | None = None) -> CommandResult:
        """Wait for a command that belongs to this call, and so ends with it; `begin` is called first."""
        try:
            if begin is not None:
                begin()
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


def _output_limit(max_output: int | None) -> int | None:
    return None if max_output is None else arguments.whole(max_output, "max_output", 0, sys.maxsize)


def _check_handlers(on_stdout: object, on_stderr: object) -> None:
    if on_stdout is not None:
        _aio.check_handler(on_stdout, "on_stdout")
    if on_stderr is not None:
        _aio.check_handler(on_stderr, "on_stderr")


def _selector(pid: int) -> ProcessSelector:
    return ProcessSelector(pid=arguments.process_id(pid))
