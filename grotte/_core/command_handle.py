"""A running command: its output as it comes, and its end.

No task reads for a handle. Whoever waits for it, or iterates over it, and finds that nobody reads, reads for all: what
arrives is kept, and everybody sees all of it from the beginning, in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, Self, Unpack

from grotte._core import _aio
from grotte._core.process_stream import AsyncProcessStream
from grotte._proto.calls import CallParams, RequestParams, check_call
from grotte._proto.messages import ProcessEvent
from grotte._proto.output import CommandOutput, OutputPiece
from grotte._proto.pinned import BY_PID, Pinned
from grotte.errors import CommandExitException, GrotteException, SandboxException
from grotte.models import CommandResult, PtyOutput, Stderr, Stdout

if TYPE_CHECKING:
    from grotte._core.commands import AsyncCommands


class AsyncCommandHandle(Pinned):
    """A command that was started in the background, or attached to.

    Iterate over it for ``(stdout, stderr, pty)`` pieces, of which two are None; over `stdout` or `stderr` for text.

    Nobody reads for a handle on the side: output arrives, and callbacks are called, while somebody waits for it or
    iterates over it. A connection that breaks then is replaced by another one, which goes on where the first broke; see
    `output_missing` for servers that cannot. From another process, or from an event loop beside the one that it was
    made in, attach to the command by `sandbox.commands.connect`.

    Example:
        ```python
        handle = await sandbox.commands.run("npm run dev", background=True)
        async for text in handle.stdout:
            print(text, end="")
        ```
    """

    _instead = BY_PID.format(room="commands")

    def __init__(
        self,
        commands: AsyncCommands,
        sandbox_id: str,
        stream: AsyncProcessStream,
        events: list[ProcessEvent],
        *,
        check: bool,
        max_output: int | None = None,
    ) -> None:
        start = events[0].start
        assert start is not None
        self._pid = start.pid
        self._commands = commands
        self._sandbox_id = sandbox_id
        self._stream = stream
        self._check = check
        self._output = CommandOutput(max_output)
        self._gaps = 0
        self._lock = _aio.Lock()
        #: Set when the one that reads at the moment stops; None: nobody reads.
        self._reading: _aio.Event | None = None
        self._over = False
        self._disconnected = False
        self._failure: GrotteException | None = None
        self._on_stdout: _aio.OutputHandler[Stdout] | None = None
        self._on_stderr: _aio.OutputHandler[Stderr] | None = None
        #: Pieces that the callbacks have seen.
        self._called = 0
        self._take(events[1:])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pid={self._pid}, sandbox_id={self._sandbox_id!r}, exit_code={self.exit_code})"

    @property
    def pid(self) -> int:
        """Its process id in the sandbox."""
        return self._pid

    @property
    def stdout(self) -> AsyncTextOutput:
        """What it wrote to stdout as far as it has been read, as a str; iterate over it for the text as it comes."""
        return AsyncTextOutput(self, "stdout", self._output.stdout.text())

    @property
    def stderr(self) -> AsyncTextOutput:
        """The same of stderr."""
        return AsyncTextOutput(self, "stderr", self._output.stderr.text())

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None as long as its end has not been read."""
        end = self._output.end
        return None if end is None else end.exit_code

    @property
    def error(self) -> str | None:
        """How it ended, when not with 0."""
        end = self._output.end
        return None if end is None else end.error

    @property
    def output_missing(self) -> bool:
        """Whether output is missing, or may be: the connection broke, and the server could not go on where it had."""
        return self._stream.missing

    def add_callbacks(
        self, on_stdout: _aio.OutputHandler[Stdout] | None, on_stderr: _aio.OutputHandler[Stderr] | None
    ) -> None:
        """Call these for every piece of output; they must not wait for this handle."""
        self._on_stdout, self._on_stderr = on_stdout, on_stderr

    async def wait(
        self,
        on_pty: _aio.OutputHandler[PtyOutput] | None = None,
        on_stdout: _aio.OutputHandler[Stdout] | None = None,
        on_stderr: _aio.OutputHandler[Stderr] | None = None,
        *,
        check: bool | None = None,
        **call: Unpack[RequestParams],
    ) -> CommandResult:
        """Wait for its end.

        Args:
            on_pty: Called with each piece of terminal output, from the beginning.
            on_stdout: The same for stdout.
            on_stderr: The same for stderr.
            check: Raise if it exits with another code than 0; default: as given when it was started.
            **call: See `RequestParams`.

        Raises:
            CommandExitException: it exited with another code than 0.
            TimeoutException: its time is over; it was killed.
            SandboxException: `disconnect` was called before its end was read.

        Example:
            ```python
            handle = await sandbox.commands.run("make", background=True, check=False)
            result = await handle.wait(on_stdout=print)
            print(result.exit_code)
            ```
        """
        check_call(call, RequestParams)
        for name, handler in (("on_pty", on_pty), ("on_stdout", on_stdout), ("on_stderr", on_stderr)):
            _aio.check_handler(handler, name)
        async for stdout, stderr, pty in self:
            if stdout is not None and on_stdout is not None:
                await _aio.call(on_stdout, stdout)
            elif stderr is not None and on_stderr is not None:
                await _aio.call(on_stderr, stderr)
            elif pty is not None and on_pty is not None:
                await _aio.call(on_pty, pty)
        return self._result(self._check if check is None else check)

    async def kill(self, request_timeout: float | None = None, **call: Unpack[CallParams]) -> bool:
        """End it with SIGKILL.

        Args:
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            True, or False if it was gone.

        Example:
            ```python
            handle = await sandbox.commands.run("sleep 600", background=True)
            print(await handle.kill())  # True
            ```
        """
        check_call(call)
        return await self._commands.kill(self._pid, request_timeout)

    async def send_stdin(
        self, data: str | bytes, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> None:
        """Write to its stdin, which needs ``stdin=True`` when it is started.

        Args:
            data: Text is sent as UTF-8.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            handle = await sandbox.commands.run("sort", background=True, stdin=True)
            await handle.send_stdin("b\\na\\n")
            await handle.close_stdin()
            print((await handle.wait()).stdout)  # a, b
            ```
        """
        check_call(call)
        await self._commands.send_stdin(self._pid, data, request_timeout)

    async def close_stdin(self, request_timeout: float | None = None, **call: Unpack[CallParams]) -> None:
        """Close its stdin.

        Args:
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            handle = await sandbox.commands.run("cat", background=True, stdin=True)
            await handle.close_stdin()
            await handle.wait()
            ```
        """
        check_call(call)
        await self._commands.close_stdin(self._pid, request_timeout)

    async def disconnect(self, **call: Unpack[RequestParams]) -> None:
        """Stop listening; the command goes on, and `sandbox.commands.connect` attaches to it again.

        Args:
            **call: See `RequestParams`.

        Example:
            ```python
            handle = await sandbox.commands.run("sleep 600", background=True)
            await handle.disconnect()
            again = await sandbox.commands.connect(handle.pid)
            ```
        """
        check_call(call, RequestParams)
        self._stream.check_loop()
        self._disconnected = True
        await self._stream.aclose()

    def belongs_to_call(self) -> None:
        """Nobody but one that waits will ask for its output: what was shown need not be kept in pieces."""
        self._output.keeps_pieces = False

    def is_over(self) -> bool:
        """Whether nothing more can arrive."""
        return self._over

    async def abandon(self) -> None:
        """Stop listening and end the command; what goes wrong is of no interest any more."""
        await self.disconnect()
        try:
            await self.kill()
        except GrotteException:
            return

    def __aiter__(self) -> AsyncIterator[OutputPiece]:
        self.check_loop()
        return AsyncPieces(self)

    def check_loop(self) -> None:
        """Refuse to be read in another event loop; a call that has it to itself stays in its own."""
        if self._output.keeps_pieces:
            self._stream.check_loop()

    async def piece(self, number: int) -> tuple[OutputPiece, int] | None:
        """A piece of output by its number, or the first of those after it that are kept; and the next number.

        None after the last. The callbacks have been shown every piece that is returned.
        """
        while number >= self._called and not (self._over and self._called == self._output.count):
            await self._step()
        number = max(number, self._output.first)
        if number < self._output.count:
            return self._output.piece(number), number + 1
        if self._failure is not None:
            raise self._failure
        return None

    async def _step(self, deadline: float | None = None) -> None:
        """Read the next events, or wait until whoever does that stops; no longer than until the deadline."""
        with self._lock:
            other = self._reading
            done = other or _aio.Event()
            self._reading = done
        if other is not None:
            await other.wait(deadline)
            return
        try:
            if self._called < self._output.count:
                await self._call_back()
            elif not self._over:
                await self._read(deadline)
        finally:
            self._reading = None
            done.set()

    async def _read(self, deadline: float | None) -> None:
        # whoever reads has seen what is here; only others that lag behind can miss what is dropped
        self._output.trim(self._called)
        try:
            events = await self._stream.receive(deadline)
        except TimeoutError:
            return
        except GrotteException as error:
            self._fail(error)
        else:
            if self._gaps != self._stream.gaps:
                # half a character before a gap does not go on behind it
                self._gaps = self._stream.gaps
                self._output.finish()
            self._take(events)
            if not events:
                self._over = True
                if self._output.end is None:
                    self._fail(SandboxException("the stream ended before the command", sandbox_id=self._sandbox_id))

    async def _call_back(self) -> None:
        """Show the callbacks what they have not seen; one that fails or is cancelled does not see it again."""
        while self._called < self._output.count:
            stdout, stderr, _ = self._output.piece(self._called)
            self._called += 1
            if stdout is not None and self._on_stdout is not None:
                await _aio.call(self._on_stdout, stdout)
            elif stderr is not None and self._on_stderr is not None:
                await _aio.call(self._on_stderr, stderr)

    def _take(self, events: list[ProcessEvent]) -> None:
        for event in events:
            self._output.feed(event)

    def _fail(self, error: GrotteException) -> None:
        """The stream is over before its end; what is known of the end counts more."""
        self._over = True
        self._output.finish()
        if self._output.end is not None:
            return
        if self._disconnected:
            error = SandboxException("disconnected from the command, which goes on", sandbox_id=self._sandbox_id)
        self._failure = error

    def _result(self, check: bool) -> CommandResult:
        output, end = self._output, self._output.end
        assert end is not None
        stdout, stderr = output.stdout.text(), output.stderr.text()
        error = end.error or (None if end.exit_code == 0 else end.status or None)
        lost = (output.stdout.dropped, output.stderr.dropped, self.output_missing)
        if check and end.exit_code != 0:
            raise CommandExitException(stderr, stdout, end.exit_code, error, self._sandbox_id, *lost)
        return CommandResult(stderr, stdout, end.exit_code, error, *lost)


class AsyncPieces:
    """An iteration over a handle."""

    def __init__(self, handle: AsyncCommandHandle) -> None:
        self._handle = handle
        self._next = 0

    def __aiter__(self) -> AsyncIterator[OutputPiece]:
        return self

    async def __anext__(self) -> OutputPiece:
        found = await self._handle.piece(self._next)
        if found is None:
            raise StopAsyncIteration
        piece, self._next = found
        return piece


class AsyncTextOutput(str):
    """Text that a command has written so far; iterating over it yields all of its text, as it comes."""

    __slots__ = ("_handle", "_name")

    _handle: AsyncCommandHandle
    _name: Literal["stdout", "stderr"]

    def __new__(cls, handle: AsyncCommandHandle, name: Literal["stdout", "stderr"], text: str) -> Self:
        self = super().__new__(cls, text)
        self._handle = handle
        self._name = name
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # a copy is the text so far, and no more

    def __aiter__(self) -> AsyncIterator[str]:
        self._handle.check_loop()
        return AsyncTextChunks(self._handle, self._name)


class AsyncTextChunks:
    """An iteration over one stream of a handle."""

    def __init__(self, handle: AsyncCommandHandle, name: Literal["stdout", "stderr"]) -> None:
        self._handle = handle
        self._which = 0 if name == "stdout" else 1
        self._next = 0

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while True:
            found = await self._handle.piece(self._next)
            if found is None:
                raise StopAsyncIteration
            piece, self._next = found
            text = piece[self._which]
            if isinstance(text, str):
                return text
