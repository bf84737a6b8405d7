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
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from grotte._core._aio_crew import INTERRUPTS as INTERRUPTS
from grotte._core._aio_crew import Crew as Crew
from grotte._core._aio_crew import Eventually as Eventually
from grotte._core._aio_crew import open_crew as open_crew
from grotte._core._aio_waits import Event as Event
from grotte._core._aio_waits import SocketWaiter as SocketWaiter
from grotte._core._aio_waits import on_trio
from grotte._core._aio_waits import socket_waiter as socket_waiter
from grotte._proto import arguments

if TYPE_CHECKING:
    import ssl

    import httpx

    HttpxClient: TypeAlias = httpx.AsyncHTTPTransport

T = TypeVar("T")
_modules = sys.modules
#: A user's callback; may be a coroutine function here, never in the sync tree.
OutputHandler: TypeAlias = Callable[[T], Awaitable[None] | None]
check_handler = arguments.handler

#: Whether all that run in one turn of the event loop leave it to the reader to send what they queued: one system
#: call for all. Threads have no turns, and waking the reader costs as much as sending.
WRITES_IN_TURNS = True
#: Watches of directories stream their events; in sync they are asked for them.
STREAMS_WATCHES = True
#: How long one address gets before the next one is tried beside it (RFC 8305).
STAGGER = 0.25


def clock() -> float:
    """Monotonic seconds on the clock that deadlines are measured with."""
    trio = _modules.get("trio")  # as on_trio, without the call: this is asked several times for each request
    if trio is not None and trio.lowlevel.in_trio_task():
        return anyio.current_time()
    return asyncio.get_running_loop().time()


async def sleep(seconds: float) -> None:
    await anyio.sleep(seconds)


class Lock:
    """Guards critical sections that never await: nothing to do in async."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None

    def acquire(self, *, blocking: bool) -> bool:
        """Take it; here nobody else ever has it."""
        return True

    def release(self) -> None:
        """Let it go."""


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


class _Expired(Exception):
    """Unwinds to the deadline_watch whose deadline passed, its only argument."""


class deadline_watch(deadline_scope):  # noqa: N801 - as above
    """A deadline that all waits inside observe themselves, at a third of the price: it interrupts nothing."""

    __slots__ = ()

    def __init__(self, deadline: float | None) -> None:
        self.deadline = self.step = deadline
        self.expired = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.expired = isinstance(error, _Expired) and error.args[0] is self
        return self.expired

    async def expire(self) -> None:
        """Leave the watch; for a wait that saw the deadline pass."""
        raise _Expired(self)


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
    try:
        with contextlib.suppress(socket.gaierror):  # an address needs no thread
            known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return [(family, address) for family, _, _, _, address in known]
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # too long, or empty between two dots
        raise socket.gaierror(socket.EAI_NONAME, "the name is none that could be looked up") from None
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
    """A value of each event loop; of a class that can be referred to weakly."""

    def __init__(self, name: str) -> None:
        self._variable: anyio.lowlevel.RunVar[T | None] = anyio.lowlevel.RunVar(name, None)
        #: The loop that asked last, on asyncio, and its value: every request asks, and the variable takes its time.
        self._last: tuple[weakref.ref[object], weakref.ref[Any]] | None = None

    def get(self) -> T | None:
        if on_trio():
            return self._variable.get()
        loop, last = asyncio.get_running_loop(), self._last
        if last is not None and last[0]() is loop:
            known: T | None = last[1]()
            if known is not None:
                return known
        value = self._variable.get()
        if value is not None:
            self._last = weakref.ref(loop), weakref.ref(value)
        return value

    def set(self, value: T | None) -> None:
        self._last = None
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

    def cancel(self) -> None:
        """Cancel all that it started, and the block around it."""
        self._group.cancel_scope.cancel()


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


def httpx_client(
    verify: ssl.SSLContext, connections: int, keepalive: float, proxy: str | None
) -> httpx.AsyncHTTPTransport:
    """What serves where HTTP/2 does not: HTTP/1.1-only origins, and proxies.

    No `httpx.AsyncClient`, which would log URLs, signatures included, and keep cookies.
    """
    import httpx  # heavy, and most programs never need it

    limits = httpx.Limits(max_connections=connections, keepalive_expiry=keepalive)
    own = proxy is not None and proxy.lower().startswith("https:")
    via = None if proxy is None else httpx.Proxy(proxy, ssl_context=verify if own else None)
    # The proxy has been chosen already: the environment is not asked again. Time limits are set per request.
    return httpx.AsyncHTTPTransport(verify=verify, limits=limits, proxy=via, trust_env=False)


async def send_http1(client: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
    """Send a request; the body of the answer is still to be read."""
    return await client.handle_async_request(request)
