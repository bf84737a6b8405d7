"""The waits that every request makes, on asyncio and on trio: for a flag, and for a socket.

On asyncio they use the loop's own futures, timers and callbacks, at a fraction of what scopes and events cost. A part
of `_aio`, which is where to import them from.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import anyio


def on_trio() -> bool:
    """Which of the two runs this; asked often, so without anyio's detour."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


class Event:
    """A flag that one or many tasks wait for."""

    __slots__ = ("_event", "_futures", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event = anyio.Event() if on_trio() else None
        self._futures: list[asyncio.Future[bool]] = []

    def set(self) -> None:
        self._set = True
        for future in self._futures:
            _resolve(future, True)
        if self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        return self._set

    async def wait(self, deadline: float | None = None) -> bool:
        """Wait until the flag is set; False when the deadline passed first."""
        if self._set:
            return True
        if self._event is not None:
            with anyio.CancelScope() as scope:
                if deadline is not None:
                    scope.deadline = deadline
                await self._event.wait()
            return self._set
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._futures.append(future)
        timer = None if deadline is None else loop.call_at(deadline, _resolve, future, False)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._futures.remove(future)


def _resolve(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


#: Takes in what came on a socket; says whether who waits for it must wake up.
Look: TypeAlias = Callable[[], bool]


class SocketWaiter(Protocol):
    """Waits on one socket for one task at a time; another task may `wake` it."""

    async def wait(self, write: bool, deadline: float | None, look: Look | None = None) -> bool:
        """Wait until readable, or with `write` also until writable; False when the deadline passed first.

        Args:
            write: Whether to wait for writability too.
            deadline: When to give up.
            look: Called when there is something to read, by the event loop itself, if that can be done: the wait
                goes on unless it returns True. It saves two switches of tasks and a turn of the loop.
        """

    def soon(self, function: Callable[[], None]) -> bool:
        """Have the event loop call a function after all that run in this turn; False: it cannot."""

    def wake(self) -> None:
        """Make a wait in progress return early."""

    def close(self) -> None:
        """Forget the socket; call it before the socket is closed."""


def socket_waiter(sock: socket.socket) -> SocketWaiter:
    """The waiter for the running event loop."""
    return _TrioWaiter(sock) if on_trio() else _AsyncioWaiter(sock)


class _AsyncioWaiter:
    """Keeps the socket registered between waits, and its timer: each saves more than the wait itself costs."""

    __slots__ = ("_deadline", "_fd", "_future", "_look", "_loop", "_reading", "_timer", "_writing")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] | None = None
        self._look: Look | None = None
        self._reading = self._writing = False
        #: Of the wait in progress, or of the last one.
        self._deadline: float | None = None
        #: Rings at `_deadline` or before.
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, write: bool, deadline: float | None, look: Look | None = None) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._future, self._look = future, look
        if not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
            self._reading = True
        if write and not self._writing:
            self._loop.add_writer(self._fd, self._on_writable)
            self._writing = True
        self._deadline = deadline
        if deadline is not None and (self._timer is None or self._timer.when() > deadline):
            self._set_timer(deadline)
        try:
            return await future
        finally:
            self._future = self._look = None

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._future is None or self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
        else:
            self._finish(False)

    def _finish(self, ready: bool) -> bool:
        if self._future is None or self._future.done():
            return False
        self._future.set_result(ready)
        return True

    def _on_readable(self) -> None:
        future = self._future
        if future is None or future.done():
            self._loop.remove_reader(self._fd)
            self._reading = False
            return
        try:
            over = self._look is None or self._look()
        except Exception as error:  # noqa: BLE001 - who waits raises it
            future.set_exception(error)
        else:
            if over:
                self._finish(True)

    def soon(self, function: Callable[[], None]) -> bool:
        self._loop.call_soon(function)
        return True

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._finish(True)

    def wake(self) -> None:
        self._finish(True)

    def close(self) -> None:
        self._finish(True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._loop.is_closed():
            if self._reading:
                self._loop.remove_reader(self._fd)
            if self._writing:
                self._loop.remove_writer(self._fd)
        self._reading = self._writing = False


class _TrioWaiter:
    __slots__ = ("_scope", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._scope: anyio.CancelScope | None = None

    async def wait(self, write: bool, deadline: float | None, look: Look | None = None) -> bool:
        woken = False
        with anyio.CancelScope() as self._scope:
            if deadline is not None:
                self._scope.deadline = deadline
            if write:
                await self._wait_both()
            else:
                await anyio.wait_readable(self._socket)
            woken = True
        self._scope = None
        return woken or deadline is None or anyio.current_time() < deadline

    async def _wait_both(self) -> None:
        async with anyio.create_task_group() as group:

            async def first(wait: Callable[[socket.socket], Awaitable[None]]) -> None:
                await wait(self._socket)
                group.cancel_scope.cancel()

            group.start_soon(first, anyio.wait_readable)
            group.start_soon(first, anyio.wait_writable)

    def soon(self, function: Callable[[], None]) -> bool:
        return False

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        self.wake()
