"""Terminals in a sandbox: open them, find them again, type, resize, end them."""

from __future__ import annotations

from typing import Unpack

from grotte._core import _aio
from grotte._core.commands import DEFAULT_TIMEOUT, SHELL, AsyncCommands
from grotte._core.process_stream import CONNECT, START, AsyncProcessStream
from grotte._core.pty_handle import AsyncPtyHandle
from grotte._core.rpc import AsyncEnvd
from grotte._proto import arguments, messages
from grotte._proto.calls import CallParams, check_call
from grotte._proto.messages import (
    ConnectRequest,
    Empty,
    Message,
    ProcessConfig,
    ProcessInput,
    ProcessSelector,
    PtyWindow,
    SendInputRequest,
    StartRequest,
    UpdateRequest,
)
from grotte._proto.pinned import BY_SANDBOX, Pinned
from grotte.errors import InvalidArgumentException
from grotte.models import PtyOutput, PtySize, Username

DEFAULT_SIZE = PtySize(rows=24, cols=80)
#: What programs find in their environment unless the caller says otherwise.
DEFAULT_ENVS = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


class AsyncPty(Pinned):
    """`sandbox.pty`: login shells on terminals of their own, for what needs one.

    Example:
        ```python
        pty = await sandbox.pty.create(rows=24, cols=80)
        await pty.send_stdin(b"python3\\n")
        output = await pty.read()
        await pty.kill()
        ```
    """

    _instead = BY_SANDBOX

    def __init__(self, envd: AsyncEnvd, commands: AsyncCommands) -> None:
        self._envd = envd
        self._commands = commands

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sandbox_id={self._envd.sandbox_id!r})"

    async def create(
        self,
        size: PtySize | None = None,
        on_data: _aio.OutputHandler[PtyOutput] | None = None,
        user: Username | None = None,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        *,
        rows: int | None = None,
        cols: int | None = None,
        **call: Unpack[CallParams],
    ) -> AsyncPtyHandle:
        """Start a login shell on a new terminal.

        Args:
            size: How large the terminal is; or say `rows` and `cols`. Default: 24 rows of 80 columns.
            on_data: Called with each piece of what it shows, while somebody reads from or waits for the handle.
            user: Whose shell it is; default: the template's user.
            cwd: Where it starts; relative paths start at the user's home, which is the default.
            envs: Environment variables, over those of the sandbox.
            timeout: How long it lives, in seconds; then it is killed. 0 or None: as long as it likes.
            request_timeout: How long its start may take, in seconds.
            rows: Lines of the terminal, at most 65535.
            cols: Columns of the terminal, at most 65535.
            **call: See `CallParams`.

        Raises:
            InvalidArgumentException: an argument is wrong, or there is no directory `cwd`.
            TimeoutException: `request_timeout` was over.

        Example:
            ```python
            pty = await sandbox.pty.create(rows=40, cols=120, timeout=0, envs={"EDITOR": "vi"})
            ```
        """
        check_call(call)
        config = ProcessConfig(
            cmd=SHELL,
            args=["-i", "-l"],
            envs=DEFAULT_ENVS | arguments.environment(envs),
            cwd=None if cwd is None else arguments.path(cwd, "cwd"),
        )
        request = StartRequest(process=config, pty=_terminal(size, rows, cols, DEFAULT_SIZE))
        user = None if user is None else arguments.user_name(user)
        return await self._open(START, request, user, timeout, request_timeout, on_data)

    async def connect(
        self,
        pid: int,
        on_data: _aio.OutputHandler[PtyOutput] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        **call: Unpack[CallParams],
    ) -> AsyncPtyHandle:
        """Attach to a terminal; what it shows from now on arrives here, too.

        Args:
            pid: Its process id, from a handle or `sandbox.commands.list`.
            on_data: As for `create`.
            timeout: How long to stay attached, in seconds; 0 or None: to its end.
            request_timeout: How long attaching may take, in seconds.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such terminal.

        Example:
            ```python
            first = await sandbox.pty.create()
            second = await sandbox.pty.connect(first.pid)
            await first.send_stdin("echo both see this\\n")
            print(await second.read())
            ```
        """
        check_call(call)
        return await self._open(
            CONNECT, ConnectRequest(process=_selector(pid)), None, timeout, request_timeout, on_data
        )

    async def kill(self, pid: int, request_timeout: float | None = None, **call: Unpack[CallParams]) -> bool:
        """End a terminal's shell with SIGKILL; what runs on the terminal is told that it has hung up.

        Args:
            pid: Its process id.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            True, or False if it was gone.

        Example:
            ```python
            pty = await sandbox.pty.create()
            print(await sandbox.pty.kill(pty.pid))  # True
            ```
        """
        check_call(call)
        return await self._commands.kill(pid, request_timeout)

    async def send_stdin(
        self, pid: int, data: str | bytes, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> None:
        """Type: ``b"\\x03"`` is Ctrl+C, ``b"\\x04"`` is Ctrl+D.

        Args:
            pid: Its process id.
            data: Text is sent as UTF-8.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such terminal.

        Example:
            ```python
            pty = await sandbox.pty.create()
            await sandbox.pty.send_stdin(pty.pid, "sleep 600\\n")
            await sandbox.pty.send_stdin(pty.pid, b"\\x03")  # Ctrl+C
            ```
        """
        check_call(call)
        process = _selector(pid)
        for piece in arguments.input_pieces(data):
            message = SendInputRequest(process=process, input=ProcessInput(pty=piece))
            await self._call("SendInput", message, request_timeout)

    async def resize(
        self,
        pid: int,
        size: PtySize | None = None,
        request_timeout: float | None = None,
        *,
        rows: int | None = None,
        cols: int | None = None,
        **call: Unpack[CallParams],
    ) -> None:
        """Change the size of a terminal; the program on it is told.

        Args:
            pid: Its process id.
            size: The new size; or say `rows` and `cols`.
            request_timeout: In seconds.
            rows: Lines, at most 65535.
            cols: Columns, at most 65535.
            **call: See `CallParams`.

        Raises:
            NotFoundException: there is no such terminal.

        Example:
            ```python
            pty = await sandbox.pty.create(rows=24, cols=80)
            await sandbox.pty.resize(pty.pid, rows=50, cols=132)
            ```
        """
        check_call(call)
        request = UpdateRequest(process=_selector(pid), pty=_terminal(size, rows, cols, None))
        await self._call("Update", request, request_timeout)

    async def _call(self, method: str, message: Message, request_timeout: float | None) -> None:
        await self._envd.unary(
            f"process.Process/{method}",
            message,
            Empty,
            request_timeout=request_timeout,
            idempotent=method == "Update",
        )

    async def _open(
        self,
        method: str,
        message: Message,
        user: str | None,
        timeout: float | None,
        request_timeout: float | None,
        on_data: _aio.OutputHandler[PtyOutput] | None,
    ) -> AsyncPtyHandle:
        _aio.check_handler(on_data, "on_data")
        limit = arguments.seconds(timeout, "timeout")
        stream = AsyncProcessStream(self._envd, limit, "the terminal")
        events = await stream.open(method, message, user, self._envd.config.timeout(request_timeout))
        return AsyncPtyHandle(self, self._commands, self._envd.sandbox_id, stream, events, on_data)


def _selector(pid: int) -> ProcessSelector:
    return ProcessSelector(pid=arguments.process_id(pid))


def _terminal(size: PtySize | None, rows: int | None, cols: int | None, default: PtySize | None) -> messages.Pty:
    """The size that is meant, by whichever of the two ways to say it."""
    if size is not None and (rows is not None or cols is not None):
        raise InvalidArgumentException("give either size or rows and cols")
    if size is not None and not isinstance(size, PtySize):
        raise InvalidArgumentException(f"size must be a PtySize, not {type(size).__name__}")
    size = size or default
    if size is None and (rows is None or cols is None):
        raise InvalidArgumentException("give size, or rows and cols")
    if size is not None:
        rows, cols = size.rows if rows is None else rows, size.cols if cols is None else cols
    window = PtyWindow(cols=arguments.terminal_side(cols, "cols"), rows=arguments.terminal_side(rows, "rows"))
    return messages.Pty(size=window)
