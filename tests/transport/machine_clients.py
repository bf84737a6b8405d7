"""The transport as the state machine drives it: on an event loop, or from threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.abc
import anyio.from_thread

from grotte._core.http2.connection import AsyncConnection
from grotte._core.transport import AsyncTransport, Origin, Request, TransportOptions
from grotte._proto.options import Counters
from grotte._proto.transport_errors import TransportError
from grotte._sync import transport as sync
from grotte._sync.http2.connection import Connection
from tests._async.transport.support import connections
from tests._sync.transport.support import connections as sync_connections

#: A hurried call's time limit, in seconds.
HURRY = 0.02


@dataclass
class Call:
    """One request of the client, and what became of it."""

    number: int
    size: int
    streamed: bool
    hurried: bool
    scope: anyio.CancelScope | None = None
    cancelled: bool = False
    #: It was under way when a connection was cut.
    cut: bool = False
    #: How often it ended: once, if all is well.
    ends: int = 0
    answer: bytes | None = None
    error: TransportError | None = None

    @property
    def body(self) -> bytes | None:
        return bytes(self.size) if self.size else None

    @property
    def method(self) -> str:
        return "POST" if self.size else "GET"


class Client(Protocol):
    """A transport, and its calls under way."""

    def start(self, call: Call) -> None:
        """Begin a call."""

    def cancel(self, call: Call) -> None:
        """Cancel it, where that can be done."""

    def settle(self) -> None:
        """Let it do what it can."""

    def refresh(self) -> None:
        """Take in what has come on connections that nobody reads."""

    def connections(self) -> list[AsyncConnection] | list[Connection]:
        """All that there are."""

    def counters(self) -> Counters:
        """The transport's."""

    def close(self) -> None:
        """End it; every call has ended."""


def options(codec: str) -> TransportOptions:
    return TransportOptions(codec=codec, max_connections=3, stream_window=30_000)


class LoopClient:
    """On asyncio or trio, in a thread of its own."""

    def __init__(self, origin: Origin, codec: str, backend: str) -> None:
        self._origin = origin
        self._context = anyio.from_thread.start_blocking_portal(backend)
        self._portal = self._context.__enter__()
        self._transport: AsyncTransport = self._portal.call(self._open, codec)
        self._futures: list[Future[None]] = []

    async def _open(self, codec: str) -> AsyncTransport:
        return AsyncTransport(options(codec))

    def start(self, call: Call) -> None:
        self._futures.append(self._portal.start_task_soon(self._run, call))

    async def _run(self, call: Call) -> None:
        request = Request(call.method, self._origin, f"/{call.number}", body=call.body)
        deadline = anyio.current_time() + HURRY if call.hurried else None
        with anyio.CancelScope() as call.scope:
            try:
                if call.streamed:
                    async with self._transport.stream(request, deadline=deadline) as response:
                        call.answer = await response.aread()
                else:
                    call.answer = (await self._transport.fetch(request, deadline=deadline)).content
            except TransportError as error:
                call.error = error
        call.ends += 1

    def cancel(self, call: Call) -> None:
        if call.scope is not None:
            call.cancelled = True
            self._portal.call(call.scope.cancel)

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(6):
                await anyio.sleep(0)

        self._portal.call(turns)

    def refresh(self) -> None:
        async def refresh() -> None:
            for connection in self.connections():
                connection.refresh()

        self._portal.call(refresh)

    def connections(self) -> list[AsyncConnection]:
        return connections(self._transport)

    def counters(self) -> Counters:
        return self._transport.counters

    def close(self) -> None:
        try:
            self._portal.call(self._transport.aclose)
            for future in self._futures:
                future.result(10)
        finally:
            self._context.__exit__(None, None, None)


class ThreadClient:
    """A thread for each call; none of them can be cancelled."""

    def __init__(self, origin: Origin, codec: str) -> None:
        self._origin = origin
        self._transport = sync.Transport(options(codec))
        self._threads: list[threading.Thread] = []

    def start(self, call: Call) -> None:
        thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, call: Call) -> None:
        request = sync.Request(call.method, self._origin, f"/{call.number}", body=call.body)
        deadline = time.monotonic() + HURRY if call.hurried else None
        try:
            if call.streamed:
                with self._transport.stream(request, deadline=deadline) as response:
                    call.answer = response.read()
            else:
                call.answer = self._transport.fetch(request, deadline=deadline).content
        except TransportError as error:
            call.error = error
        call.ends += 1

    def cancel(self, call: Call) -> None:
        """Threads are not cancelled; hurried calls give up by themselves."""

    def settle(self) -> None:
        time.sleep(0.001)

    def refresh(self) -> None:
        for connection in self.connections():
            with connection.lock:
                connection.refresh()

    def connections(self) -> list[Connection]:
        return sync_connections(self._transport)

    def counters(self) -> Counters:
        return self._transport.counters

    def close(self) -> None:
        self._transport.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
