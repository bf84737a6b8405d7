"""What differs between the async and the sync world, async side: time, events, sockets, nurseries.

`grotte/_sync/_sio.py` has the same names for threads and blocking sockets. Deadlines are absolute floats on
`clock()`, or None.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

if TYPE_CHECKING:
    import ssl

    import httpx

    HttpxClient: TypeAlias = httpx.AsyncClient

T = TypeVar("T")
#: A user's callback; may be a coroutine function here, never in the sync tree.
OutputHandler: TypeAlias = Callable[[T], Awaitable[None] | None]

#: Whether all that run in one turn of the event loop leave it to the reader to send what they queued: one system
#: call for all. Threads have no turns, and waking the reader costs as much as sending.
WRITES_IN_TURNS = True
#: How long one address gets before the next one is tried beside it (RFC 8305).
STAGGER = 0.25


def clock() -> float:
    """Monotonic seconds on the clock that deadlines are measured with."""
    return anyio.current_time() if _on_trio() else asyncio.get_running_loop().time()


def _on_trio() -> bool:
    """Which of the two runs this; asked often, so without anyio's detour."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


async def sleep(seconds: float) -> None:
    await anyio.sleep(seconds)


class Event:
    """A flag that one or many tasks wait for."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        # On asyncio its own event, which costs a third of anyio's.
        running = asyncio._get_running_loop()  # noqa: SLF001 - documented for frameworks; the public one raises
        here = running is not None and not _on_trio()
        self._event = asyncio.Event() if here else anyio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, deadline: float | None = None) -> bool:
        """Wait until the flag is set; False when the deadline passed first."""
        if deadline is None:
            await self._event.wait()
            return True
        with deadline_scope(deadline):
            await self._event.wait()
        return self._event.is_set()


class Lock:
    """Guards critical sections that never await: nothing to do in async."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None


def shield(seconds: float) -> AbstractContextManager[object]:
    """Let clean-up run to its end although the task is cancelled, but no longer than `seconds`."""
    return anyio.move_on_after(seconds, shield=True)


async def see_through(grace: float, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a function to its end even if the caller is cancelled meanwhile, but then only `grace` seconds longer.

    The cancellation is raised when the function has ended.
    """
    failure: Exception | None = None
    scope = anyio.CancelScope(shield=True)
    done = anyio.Event()

    async def run() -> None:
        nonlocal failure
        with scope:
            try:
                await function()
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                failure = error
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            scope.deadline = anyio.current_time() + grace
            raise
    if failure is not None:
        raise failure


class deadline_scope:  # noqa: N801 - used as a function, like anyio.move_on_after
    """One deadline around many waits: leaving at the deadline sets `expired` instead of raising.

    `step` is the deadline which the waits inside must observe themselves: None here, where the scope interrupts
    them; the deadline itself in sync.
    """

    __slots__ = ("_scope", "deadline", "expired", "step")

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.expired = False
        self.step: float | None = None
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> Self:
        if self.deadline is not None:
            self._scope = anyio.CancelScope(deadline=self.deadline)
            self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._scope is None:
            return False
        swallowed = bool(self._scope.__exit__(kind, error, trace))
        self.expired = self._scope.cancelled_caught
        return swallowed

    async def expire(self) -> None:
        """Leave the scope as its deadline would; for a wait that observed the deadline by itself."""
        assert self._scope is not None
        self._scope.cancel()
        await anyio.lowlevel.checkpoint()


class SocketWaiter(Protocol):
    """Waits on one socket for one task at a time; another task may `wake` it."""

    async def wait(self, write: bool, deadline: float | None) -> bool:
        """Wait until readable, or with `write` also until writable; False when the deadline passed first."""

    def wake(self) -> None:
        """Make a wait in progress return early."""

    def close(self) -> None:
        """Forget the socket; call it before the socket is closed."""


def socket_waiter(sock: socket.socket) -> SocketWaiter:
    """The waiter for the running event loop."""
    return _TrioWaiter(sock) if _on_trio() else _AsyncioWaiter(sock)


class _AsyncioWaiter:
    """Keeps the socket registered between waits, which saves two system calls a wait."""

    __slots__ = ("_fd", "_future", "_loop", "_reading", "_writing")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] | None = None
        self._reading = self._writing = False

    async def wait(self, write: bool, deadline: float | None) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._future = future
        if not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
            self._reading = True
        if write and not self._writing:
            self._loop.add_writer(self._fd, self._on_writable)
            self._writing = True
        timer = None if deadline is None else self._loop.call_at(deadline, self._finish, False)
        try:
            return await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()

    def _finish(self, ready: bool) -> bool:
        if self._future is None or self._future.done():
            return False
        self._future.set_result(ready)
        return True

    def _on_readable(self) -> None:
        if not self._finish(True):
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._finish(True)

    def wake(self) -> None:
        self._finish(True)

    def close(self) -> None:
        self._finish(True)
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

    async def wait(self, write: bool, deadline: float | None) -> bool:
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

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        self.wake()


async def wait_socket(sock: socket.socket, write: bool, deadline: float | None) -> None:
    """Wait until `sock` is readable; with `write`, readable *or* writable.

    Raises:
        TimeoutError: the deadline passed first.
    """
    waiter = socket_waiter(sock)
    try:
        if not await waiter.wait(write, deadline):
            raise TimeoutError("the socket stayed silent until the deadline")
    finally:
        waiter.close()


def notify_closing(sock: socket.socket) -> None:
    """Wake whoever waits on a socket that is about to be closed."""
    anyio.notify_closing(sock)


async def connect_tcp(host: str, port: int, deadline: float | None) -> socket.socket:
    """Connect to the first address of `host` that answers, trying the next one every quarter of a second.

    Args:
        host: A name or an address; `localhost` and names below it are loopback (RFC 6761).
        port: The TCP port.
        deadline: When to give up, on `clock()`.

    Returns:
        A connected, non-blocking socket.

    Raises:
        TimeoutError: the deadline passed.
        OSError: no address answered; the last one's error.
    """
    winner: list[socket.socket] = []
    with deadline_scope(deadline) as scope:
        addresses = await _resolve(host, port)
        failures: list[OSError] = []
        try:
            await _race(addresses, winner, failures)
        except BaseException:
            for sock in winner:
                sock.close()
            raise
        if not winner:
            raise failures[-1]
        return winner[0]
    assert scope.expired
    raise TimeoutError("connecting took too long")


async def addresses_of(host: str, port: int) -> frozenset[str]:
    """The addresses of a host; none when its name cannot be resolved."""
    try:
        return frozenset(str(address[0]) for _, address in await _resolve(host, port))
    except OSError:
        return frozenset()


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def _race(
    addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]],
    winner: list[socket.socket],
    failures: list[OSError],
) -> None:
    if len(addresses) == 1:
        winner.append(await _connect(*addresses[0]))
        return
    async with anyio.create_task_group() as group:

        async def attempt(family: socket.AddressFamily, address: tuple[Any, ...], over: anyio.Event) -> None:
            try:
                sock = await _connect(family, address)
            except OSError as error:
                failures.append(error)
                over.set()
                return
            if winner:
                sock.close()
            else:
                winner.append(sock)
                group.cancel_scope.cancel()

        for family, address in addresses:
            over = anyio.Event()
            group.start_soon(attempt, family, address, over)
            with anyio.move_on_after(STAGGER):
                await over.wait()


async def _connect(family: socket.AddressFamily, address: tuple[Any, ...] | str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:
            await anyio.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_unix(path: str, deadline: float | None) -> socket.socket:
    """Connect to a unix socket; as `connect_tcp`."""
    with deadline_scope(deadline):
        return await _connect(socket.AF_UNIX, path)
    raise TimeoutError("connecting took too long")


class LoopLocal(Generic[T]):
    """A value of each event loop."""

    def __init__(self, name: str) -> None:
        self._variable: anyio.lowlevel.RunVar[T | None] = anyio.lowlevel.RunVar(name, None)

    def get(self) -> T | None:
        return self._variable.get()

    def set(self, value: T | None) -> None:
        self._variable.set(value)


_guardians: anyio.lowlevel.RunVar[list[AsyncGenerator[None]]] = anyio.lowlevel.RunVar("grotte_guardians")


def at_loop_end(close: Callable[[], Awaitable[None]]) -> None:
    """Call `close` when the event loop shuts down.

    Both asyncio and trio finalise the async generators that are still suspended then, so one of them is parked.
    """

    async def guardian() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await close()

    parked = guardian()
    with contextlib.suppress(StopIteration):
        parked.__anext__().send(None)  # runs to the `yield` without an await, so outside any task switch
    try:
        _guardians.get().append(parked)
    except LookupError:
        _guardians.set([parked])


class Nursery:
    """Starts functions that run until the block around it has ended."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        self._group.start_soon(function, *args)


@asynccontextmanager
async def open_nursery() -> AsyncIterator[Nursery]:
    """Run functions side by side; the block ends when all have ended.

    A failure cancels the others; it is raised as it is when it is the only one, else in an exception group.
    """
    try:
        async with anyio.create_task_group() as group:
            yield Nursery(group)
    except BaseExceptionGroup as several:
        failure: BaseException = several
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        raise failure from None


async def call(handler: Callable[..., Awaitable[T] | T], *args: object) -> T:
    """Call a user's callback, and await what it returns if that can be awaited."""
    result = handler(*args)
    if inspect.isawaitable(result):
        return cast("T", await result)
    return result


async def run_in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a function that blocks, on a worker thread; for local file work only."""
    return await anyio.to_thread.run_sync(function, *args)


async def end_iteration(iterator: AsyncIterator[T]) -> None:
    """Close a generator that may not have been exhausted; its clean-up gets a second."""
    if isinstance(iterator, AsyncGenerator):
        with anyio.move_on_after(1, shield=True):
            await iterator.aclose()


def raw_chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body of an httpx response as it travels."""
    return cast("AsyncIterable[bytes]", response.stream).__aiter__()


def httpx_client(verify: ssl.SSLContext, connections: int, keepalive: float) -> httpx.AsyncClient:
    """The client that serves what HTTP/2 does not: HTTP/1.1-only origins, and proxies."""
    import httpx  # heavy, and most programs never need it

    limits = httpx.Limits(max_connections=connections, keepalive_expiry=keepalive)
    return httpx.AsyncClient(verify=verify, limits=limits, timeout=None, http2=False)  # noqa: S113 - set per request
