"""What differs between the async and the sync world, sync side: threads and blocking waits.

`grotte/_core/_aio.py` has the same names for asyncio and trio. Deadlines are absolute floats on `clock()`, or None.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeAlias, TypeVar, cast

from grotte._proto import arguments
from grotte._sync._sio_crew import INTERRUPTS as INTERRUPTS
from grotte._sync._sio_crew import Crew as Crew
from grotte._sync._sio_crew import Eventually as Eventually
from grotte._sync._sio_crew import open_crew as open_crew
from grotte.errors import InvalidArgumentException

if TYPE_CHECKING:
    import ssl

    import httpx

    HttpxClient: TypeAlias = httpx.HTTPTransport

T = TypeVar("T")
#: A user's callback.
OutputHandler: TypeAlias = Callable[[T], None]
check_handler = arguments.plain_handler
Lock = threading.Lock

#: Whether all that run in one turn of the event loop leave it to the reader to send what they queued: one system
#: call for all. Threads have no turns, and waking the reader costs as much as sending.
WRITES_IN_TURNS = False
#: Watches of directories are asked for their events: nobody would read a stream between two calls.
STREAMS_WATCHES = False
#: How long the main thread sleeps at a time, in seconds; and the longest that `poll` takes, in milliseconds.
MAIN_THREAD_SLEEP = 0.5
LONGEST_POLL = 2**31 - 1
#: How long one address gets before the next one is tried beside it (RFC 8305).
STAGGER = 0.25


def clock() -> float:
    """Monotonic seconds on the clock that deadlines are measured with."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


class Event:
    """A flag that one or many threads wait for; a lock that `set` releases, at a fraction of threading.Event's cost."""

    __slots__ = ("_closed", "_set")

    def __init__(self) -> None:
        self._set = False
        self._closed = threading.Lock()
        self._closed.acquire()

    def set(self) -> None:
        if not self._set:
            self._set = True
            with contextlib.suppress(RuntimeError):  # somebody else was a moment faster
                self._closed.release()

    def is_set(self) -> bool:
        return self._set

    def wait(self, deadline: float | None = None) -> bool:
        """Wait until the flag is set; False when the deadline passed first."""
        if self._set:
            return True
        while not self._closed.acquire(timeout=_one_sleep(deadline)):
            if deadline is not None and time.monotonic() >= deadline:
                return self._set
        with contextlib.suppress(RuntimeError):
            self._closed.release()  # for the next who waits
        return self._set


def _one_sleep(deadline: float | None) -> float:
    """For how long to wait at a time, in seconds; -1 for ever.

    The handler of a signal that comes a moment before the main thread falls asleep runs when that wakes up.
    """
    left = threading.TIMEOUT_MAX if deadline is None else max(0.0, deadline - time.monotonic())
    if threading.get_ident() == threading.main_thread().ident:
        return min(left, MAIN_THREAD_SLEEP)
    return -1.0 if deadline is None else min(left, threading.TIMEOUT_MAX)


def shield(seconds: float) -> nullcontext[None]:
    """Threads are not cancelled: nothing to do."""
    return nullcontext()


class _Expired(TimeoutError):
    """Unwinds to the deadline_scope whose deadline passed."""


def see_through(grace: float, function: Callable[[], None]) -> None:
    """Run a function to its end; nothing can cancel it here."""
    function()


class deadline_scope:  # noqa: N801 - used as a function, as in the async twin
    """One deadline around many waits: leaving at the deadline sets `expired` instead of raising.

    `step` is the deadline which the waits inside must observe themselves.
    """

    __slots__ = ("deadline", "expired", "step")

    def __init__(self, deadline: float | None) -> None:
        self.deadline = self.step = deadline
        self.expired = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, _Expired) and self.deadline is not None and time.monotonic() >= self.deadline:
            self.expired = True
        return self.expired

    def expire(self) -> NoReturn:
        """Leave the scope as its deadline would; for a wait that observed the deadline by itself."""
        raise _Expired("the deadline passed")


#: In async, one that interrupts nothing.
deadline_watch = deadline_scope


class SocketWaiter:
    """Waits on one socket for one thread at a time; another thread may `wake` it through a pipe."""

    __slots__ = ("_events", "_poll", "_read_end", "_socket", "_write_end")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._poll = select.poll()
        self._poll.register(self._read_end, select.POLLIN)
        #: What the socket is watched for.
        self._events = 0

    def wait(self, write: bool, deadline: float | None, look: Callable[[], bool] | None = None) -> bool:
        """Wait until readable, or with `write` also until writable; False when the deadline passed first.

        `look` is for event loops: here who waits looks itself.
        """
        if self._read_end < 0:
            return True
        events = select.POLLIN | select.POLLOUT if write else select.POLLIN
        if events != self._events:
            self._poll.register(self._socket, events)
            self._events = events
        ready = _poll_until(self._poll, deadline)
        for fd, _ in ready:
            if fd == self._read_end:
                os.read(fd, 512)
        return bool(ready)

    def soon(self, function: Callable[[], None]) -> bool:
        """There is no loop that could call it."""
        return False

    def wake(self) -> None:
        """Make a wait in progress return early."""
        if self._write_end >= 0:
            with contextlib.suppress(BlockingIOError):  # full of earlier wake-ups: it will return
                os.write(self._write_end, b"w")

    def close(self) -> None:
        """Forget the socket; nobody may be waiting."""
        ends, self._read_end, self._write_end = (self._read_end, self._write_end), -1, -1
        for end in ends:
            if end >= 0:
                os.close(end)


def socket_waiter(sock: socket.socket) -> SocketWaiter:
    """A waiter for the socket."""
    return SocketWaiter(sock)


def _poll_until(poll: select.poll, deadline: float | None) -> list[tuple[int, int]]:
    while True:
        left = _one_sleep(deadline)
        # Rounded up, so that an early wake-up cannot spin.
        ready = poll.poll(None if left < 0 else min(int(left * 1000) + (left > 0), LONGEST_POLL))
        if ready or (deadline is not None and time.monotonic() >= deadline):
            return ready


def wait_socket(sock: socket.socket, write: bool, deadline: float | None) -> None:
    """Wait until `sock` is readable; with `write`, readable *or* writable.

    Raises:
        TimeoutError: the deadline passed first.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN | (select.POLLOUT if write else 0))
    if not _poll_until(poll, deadline):
        raise _Expired("the socket stayed silent until the deadline")


def notify_closing(sock: socket.socket) -> None:
    """Wake whoever waits on a socket that is about to be closed."""
    with contextlib.suppress(OSError):  # not connected any more: nobody waits
        sock.shutdown(socket.SHUT_RDWR)


def connect_tcp(host: str, port: int, deadline: float | None) -> socket.socket:
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
    return _race(_resolve(host, port), deadline)


def addresses_of(host: str, port: int) -> frozenset[str]:
    """The addresses of a host; none when its name cannot be resolved."""
    try:
        return frozenset(str(address[0]) for _, address in _resolve(host, port))
    except OSError:
        return frozenset()


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # too long, or empty between two dots
        raise socket.gaierror(socket.EAI_NONAME, "the name is none that could be looked up") from None
    return [(family, address) for family, _, _, _, address in found]


def _race(addresses: list[tuple[socket.AddressFamily, Any]], deadline: float | None) -> socket.socket:
    """Non-blocking connects, one more whenever a stagger passes or one fails; the first to succeed wins."""
    waiting = list(addresses)
    trying: dict[int, socket.socket] = {}
    poll = select.poll()
    failure = OSError("the name has no address")
    try:
        while waiting or trying:
            if waiting:
                sock, error = _start_connect(*waiting.pop(0))
                if error:
                    failure = OSError(error, os.strerror(error))
                    sock.close()
                    continue
                trying[sock.fileno()] = sock
                poll.register(sock, select.POLLOUT)
            pause = time.monotonic() + STAGGER if waiting else None
            step = min((at for at in (pause, deadline) if at is not None), default=None)
            for fd, _ in _poll_until(poll, step):
                sock = trying.pop(fd)
                poll.unregister(fd)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error:
                    return sock
                failure = OSError(error, os.strerror(error))
                sock.close()
            if deadline is not None and time.monotonic() >= deadline:
                raise _Expired("connecting took too long")
        raise failure
    finally:
        for sock in trying.values():
            sock.close()


def _start_connect(family: socket.AddressFamily, address: Any) -> tuple[socket.socket, int]:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    error = sock.connect_ex(address)
    return sock, 0 if error in IN_PROGRESS else error


#: What a non-blocking connect that goes on answers.
IN_PROGRESS = {0, 115, 36}


def connect_unix(path: str, deadline: float | None) -> socket.socket:
    """Connect to a unix socket; as `connect_tcp`."""
    return _race([(socket.AF_UNIX, path)], deadline)


class LoopLocal(Generic[T]):
    """A value of this process; a forked child starts without one."""

    def __init__(self, name: str) -> None:
        self._value: T | None = None
        os.register_at_fork(after_in_child=self._forget)

    def get(self) -> T | None:
        return self._value

    def set(self, value: T | None) -> None:
        self._value = value

    def _forget(self) -> None:
        self._value = None


def at_loop_end(close: Callable[[], None]) -> None:
    """Call `close` when the interpreter exits."""
    atexit.register(close)


class Nursery:
    """Starts functions on threads that are joined at the end of the block around it."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def start_soon(self, function: Callable[..., object], *args: object) -> None:
        claim = Lock()
        thread = threading.Thread(target=self._run, args=(claim, function, args), daemon=True)
        self.threads.append(thread)
        try:
            thread.start()
        except BaseException:  # Ctrl-C: whether the thread will begin is not known, so it must not, or has
            if claim.acquire(blocking=False):
                self.threads.remove(thread)
            raise

    def cancel(self) -> None:
        """Nothing to do: threads are not cancelled."""

    def _run(self, claim: threading.Lock, function: Callable[..., object], args: tuple[object, ...]) -> None:
        if not claim.acquire(blocking=False):
            return
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - raised again where the nursery ends
            self.failures.append(error)


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """Run functions side by side; the block ends when all have ended, and raises the first failure."""
    nursery = Nursery()
    try:
        yield nursery
    finally:
        for thread in nursery.threads:  # grows while they start more
            thread.join()
    if nursery.failures:
        raise nursery.failures[0]


def call(handler: Callable[..., T], *args: object) -> T:
    """Call a user's callback."""
    result = handler(*args)
    if isinstance(result, CoroutineType):  # of a plain function that only wraps an async one
        result.close()
        raise InvalidArgumentException(arguments.never_awaited("a callback"))
    return result


def run_in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a function that blocks: here it may."""
    return function(*args)


def end_iteration(iterator: Iterator[T]) -> None:
    """Close a generator that may not have been exhausted."""
    if isinstance(iterator, Generator):
        iterator.close()


def raw_chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body of an httpx response as it travels."""
    return cast("Iterable[bytes]", response.stream).__iter__()


def httpx_client(verify: ssl.SSLContext, connections: int, keepalive: float, proxy: str | None) -> httpx.HTTPTransport:
    """What serves where HTTP/2 does not: HTTP/1.1-only origins, and proxies.

    No `httpx.Client`, which would log URLs, signatures included, and keep cookies.
    """
    import httpx  # heavy, and most programs never need it

    limits = httpx.Limits(max_connections=connections, keepalive_expiry=keepalive)
    own = proxy is not None and proxy.lower().startswith("https:")
    via = None if proxy is None else httpx.Proxy(proxy, ssl_context=verify if own else None)
    # The proxy has been chosen already: the environment is not asked again. Time limits are set per request.
    return httpx.HTTPTransport(verify=verify, limits=limits, proxy=via, trust_env=False)


def send_http1(client: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    """Send a request; the body of the answer is still to be read."""
    return client.handle_request(request)
