"""An open terminal: what it shows as it comes, what is typed, and its end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Unpack

from grotte._core import _aio
from grotte._core.client import deadline_after
from grotte._core.command_handle import AsyncCommandHandle
from grotte._core.commands import AsyncCommands
from grotte._core.process_stream import AsyncProcessStream
from grotte._proto import arguments
from grotte._proto.calls import CallParams, RequestParams, check_call
from grotte._proto.messages import ProcessEvent
from grotte._proto.output import OutputPiece
from grotte._proto.pinned import BY_PID
from grotte.errors import TimeoutException
from grotte.models import PtyOutput, PtySize

if TYPE_CHECKING:
    from grotte._core.pty import AsyncPty


#: How long the news of a terminal's end may take after it was killed, in seconds.
END_SECONDS = 1.0


class _Late(Exception):
    """The deadline of a read passed."""


class AsyncPtyHandle(AsyncCommandHandle):
    """A terminal that was opened or attached to.

    What it shows comes once: `read`, iterating (pieces are ``(None, None, bytes)``) and `wait` take turns at it, and
    nothing is kept of what they took. The terminal pauses when nobody reads and the buffers are full.

    Example:
        ```python
        pty = await sandbox.pty.create(rows=24, cols=80)
        await pty.send_stdin(b"echo $((6 * 7))\\n")
        while b"42" not in await pty.read(timeout=5):
            pass
        ```
    """

    _instead = BY_PID.format(room="pty")

    def __init__(
        self,
        pty: AsyncPty,
        commands: AsyncCommands,
        sandbox_id: str,
        stream: AsyncProcessStream,
        events: list[ProcessEvent],
        on_data: _aio.OutputHandler[PtyOutput] | None,
    ) -> None:
        self._pty = pty
        self._on_data = on_data
        #: What `_call_back` has shown to the callback and nobody has taken yet.
        self._unread: deque[bytes] = deque()
        super().__init__(commands, sandbox_id, stream, events, check=True)

    async def read(self, timeout: float | None = None, **call: Unpack[RequestParams]) -> bytes:
        """Wait until something arrives, and return all that has; ``b""`` at the end.

        Args:
            timeout: How long to wait, in seconds; 0 or None: until something arrives or the terminal ends.
            **call: See `RequestParams`.

        Raises:
            TimeoutException: nothing came in time; the terminal goes on.

        Example:
            ```python
            pty = await sandbox.pty.create()
            await pty.send_stdin("ls; exit\\n")
            while data := await pty.read():
                print(data.decode(errors="replace"), end="")
            ```
        """
        check_call(call, RequestParams)
        limit = arguments.seconds(timeout, "timeout")
        self.check_loop()
        try:
            with _aio.deadline_scope(deadline_after(limit)) as scope:
                return b"".join(await self._some(None, scope.step))
        except _Late:
            pass
        raise TimeoutException(f"the terminal showed nothing for {limit:g} s", sandbox_id=self._sandbox_id)

    async def kill(self, request_timeout: float | None = None, **call: Unpack[CallParams]) -> bool:
        """End its shell with SIGKILL; what runs on it is told that it has hung up.

        What it showed until then can still be read.

        Args:
            request_timeout: In seconds.
            **call: See `CallParams`.

        Returns:
            True, or False if it was gone.

        Example:
            ```python
            pty = await sandbox.pty.create()
            print(await pty.kill())  # True
            ```
        """
        check_call(call)
        self.check_loop()
        killed = await super().kill(request_timeout)
        # its end is on its way: taken in now, it leaves no open stream behind
        with _aio.deadline_scope(deadline_after(END_SECONDS)) as scope:
            while not self._over and (scope.step is None or _aio.clock() < scope.step):
                await self._step(scope.step)
        return killed

    async def send_stdin(
        self, data: str | bytes, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> None:
        """Type: ``b"\\x03"`` is Ctrl+C, ``b"\\x04"`` is Ctrl+D.

        Args:
            data: Text is sent as UTF-8.
            request_timeout: In seconds.
            **call: See `CallParams`.

        Example:
            ```python
            pty = await sandbox.pty.create()
            await pty.send_stdin("ls -l\\n")
            print(await pty.read())
            ```
        """
        check_call(call)
        await self._pty.send_stdin(self._pid, data, request_timeout)

    async def resize(
        self,
        size: PtySize | None = None,
        request_timeout: float | None = None,
        *,
        rows: int | None = None,
        cols: int | None = None,
        **call: Unpack[CallParams],
    ) -> None:
        """Change its size; the program on it is told.

        Args:
            size: The new size; or say `rows` and `cols`.
            request_timeout: In seconds.
            rows: Lines, at most 65535.
            cols: Columns, at most 65535.
            **call: See `CallParams`.

        Example:
            ```python
            pty = await sandbox.pty.create(rows=24, cols=80)
            await pty.resize(rows=50, cols=132)
            ```
        """
        check_call(call)
        await self._pty.resize(self._pid, size, request_timeout, rows=rows, cols=cols)

    async def piece(self, number: int) -> tuple[OutputPiece, int] | None:
        """The next piece, whatever its number; None after the last."""
        found = await self._some(1, None)
        return ((None, None, found[0]), number + 1) if found else None

    async def _some(self, most: int | None, deadline: float | None) -> list[bytes]:
        """Take pieces that nobody has taken, waiting for the first; none at the end."""
        while True:
            with self._lock:
                over = self._over and not self._output.pieces
                found = [self._unread.popleft() for _ in range(min(most or len(self._unread), len(self._unread)))]
            if found:
                return found
            if over and self._failure is not None:
                raise self._failure
            if over:
                return []
            if deadline is not None and _aio.clock() >= deadline:
                raise _Late
            await self._step(deadline)

    async def _call_back(self) -> None:
        """Make what has arrived readable, and show it to the callback, which sees nothing twice."""
        pieces = self._output.pieces
        while pieces:
            data = pieces[0][2] or b""
            self._unread.append(data)  # before it leaves the list: a look at both must not miss it
            del pieces[0]
            if self._on_data is not None:
                await _aio.call(self._on_data, data)
