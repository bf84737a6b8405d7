"""Watching a directory of a sandbox: what happens in it, as it happens or when it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self, Unpack

import msgspec

from grotte._core import _aio
from grotte._core.client import deadline_after
from grotte._core.event_stream import AsyncEventStream
from grotte._core.rpc import AsyncEnvd
from grotte._proto import arguments
from grotte._proto.calls import CallParams, RequestParams, check_call
from grotte._proto.connect import Envelope
from grotte._proto.entries import public_event
from grotte._proto.failures import command_limit
from grotte._proto.messages import (
    CreateWatcherResponse,
    Empty,
    WatchDirResponse,
    WatcherEventsResponse,
    WatcherRequest,
    WatchRequest,
)
from grotte._proto.pinned import BY_SANDBOX, Pinned
from grotte.errors import (
    FileNotFoundException,
    GrotteException,
    NotFoundException,
    SandboxException,
    SandboxUnreachableException,
    TimeoutException,
)
from grotte.models import FilesystemEvent

#: How long a watch lives unless the caller says otherwise, in seconds. One that is asked waits for who asks.
DEFAULT_TIMEOUT: float | None = 60.0 if _aio.STREAMS_WATCHES else None
#: How long `get_new_events` collects from a stream, in seconds.
COLLECT_SECONDS = 0.2
#: The pauses between two questions for events, in seconds: from the first to the last.
PAUSES = (0.05, 0.5)
#: What leaving ``async with`` may take, although it is cancelled, in seconds.
STOP_SECONDS = 2.0

_KINDS = {"not_found": FileNotFoundException}
_decode = msgspec.json.Decoder(WatchDirResponse, strict=False).decode


def _event(envelope: Envelope) -> WatchDirResponse:
    return _decode(envelope.payload)


class AsyncEvents(Protocol):
    """Where a handle has its events from."""

    def check_loop(self) -> None:
        """Refuse to go on in another event loop than the one that has the connection."""

    async def receive(self) -> list[FilesystemEvent]:
        """Wait for some; none at the end."""

    async def take(self, request_timeout: float | None = None) -> list[FilesystemEvent]:
        """What there is."""

    async def aclose(self, request_timeout: float | None = None) -> None:
        """Stop watching."""


class AsyncStreamedEvents:
    """Events that the server sends by itself."""

    def __init__(self, envd: AsyncEnvd, stream: AsyncEventStream[WatchDirResponse]) -> None:
        self._envd = envd
        self._stream = stream
        #: Why no more events come; told whoever asks for some.
        self._failure: GrotteException | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, envd: AsyncEnvd, message: WatchRequest, user: str | None, timeout: float | None, opening: float | None
    ) -> Self:
        """Start to watch; when this returns, nothing is missed any more."""
        request = envd.stream_request("filesystem.Filesystem/WatchDir", message, user, timeout)
        stream = AsyncEventStream(envd, request, timeout, _event, subject="the watch", kinds=_KINDS)
        first = await stream.open(envd.config.timeout(opening))
        if not first or first[0].start is None:
            await stream.finish()
            raise envd.context_of(request).fail(SandboxException, "the server did not say that the watch started")
        return cls(envd, stream)

    def check_loop(self) -> None:
        """Refuse to go on in another event loop than the one that has the connection."""
        if self._stream.is_elsewhere():
            raise self._misplaced("belongs to another event loop")

    def _misplaced(self, how: str) -> SandboxException:
        text = f"the watch {how}: call files.watch_dir() in this one"
        return SandboxException(text, sandbox_id=self._envd.sandbox_id)

    async def receive(self) -> list[FilesystemEvent]:
        """Wait for some; none at the end."""
        while messages := await self._messages(None):
            if events := _public(messages):
                return events
        return []

    async def _messages(self, deadline: float | None) -> list[WatchDirResponse]:
        self.check_loop()
        if self._failure is None and self._stream.is_left():
            self._failure = self._misplaced("ended with the event loop that it was started in")
        if self._failure is not None:
            raise self._failure
        try:
            messages = await self._stream.receive(deadline)
            if not (messages or self._closed or self._stream.complete):
                text = "the answer ended before the watch did"
                raise SandboxUnreachableException(text, sandbox_id=self._envd.sandbox_id)
        except GrotteException as error:
            self._failure = error
            raise
        return messages

    async def take(self, request_timeout: float | None = None) -> list[FilesystemEvent]:
        """What arrives within a moment."""
        found: list[FilesystemEvent] = []
        with _aio.deadline_scope(deadline_after(COLLECT_SECONDS)) as scope:
            try:
                while messages := await self._messages(scope.step):
                    found += _public(messages)
            except TimeoutError:
                pass
        return found

    async def aclose(self, request_timeout: float | None = None) -> None:
        """Stop watching."""
        self._closed = True
        await self._stream.aclose()


class AsyncPolledEvents:
    """Events that wait in the sandbox until they are asked for."""

    def __init__(self, envd: AsyncEnvd, watcher_id: str, timeout: float | None, request_timeout: float | None) -> None:
        self._envd = envd
        self._message = WatcherRequest(watcher_id=watcher_id)
        self._timeout = timeout
        self._deadline = deadline_after(timeout)
        self._request_timeout = request_timeout
        self._closed = _aio.Event()

    @classmethod
    async def open(
        cls, envd: AsyncEnvd, message: WatchRequest, user: str | None, timeout: float | None, opening: float | None
    ) -> Self:
        """Start to watch; when this returns, nothing is missed any more."""
        answer = await envd.unary(
            "filesystem.Filesystem/CreateWatcher",
            message,
            CreateWatcherResponse,
            user=user,
            request_timeout=opening,
            kinds=_KINDS,
        )
        return cls(envd, answer.watcher_id, timeout, opening)

    def check_loop(self) -> None:
        """Each question is a call of its own, and may come from anywhere."""

    async def receive(self) -> list[FilesystemEvent]:
        """Wait for some; none when it was closed."""
        pause, longest = PAUSES
        while not self._closed.is_set():
            if events := await self.take():
                return events
            if self._deadline is not None and _aio.clock() >= self._deadline:
                await self.aclose()
                limit = command_limit(self._timeout, "the watch")
                raise TimeoutException(f"the watch is over: {limit}", sandbox_id=self._envd.sandbox_id)
            await self._closed.wait(_aio.clock() + pause)
            pause = min(longest, pause * 1.5)
        return []

    async def take(self, request_timeout: float | None = None) -> list[FilesystemEvent]:
        """All up to now."""
        answer = await self._envd.unary(
            "filesystem.Filesystem/GetWatcherEvents",
            self._message,
            WatcherEventsResponse,
            request_timeout=request_timeout if request_timeout is not None else self._request_timeout,
        )
        events = (public_event(event) for event in answer.events)
        return [event for event in events if event is not None]

    async def aclose(self, request_timeout: float | None = None) -> None:
        """Stop watching."""
        if self._closed.is_set():
            return
        self._closed.set()
        try:
            await self._envd.unary(
                "filesystem.Filesystem/RemoveWatcher",
                self._message,
                Empty,
                request_timeout=request_timeout if request_timeout is not None else self._request_timeout,
                idempotent=True,
            )
        except NotFoundException:
            return


class AsyncWatchHandle(Pinned):
    """A watched directory. One task or thread at a time takes its events; each is given out once.

    Example:
        ```python
        async with await sandbox.files.watch_dir("/home/user", recursive=True) as watch:
            await sandbox.files.write("/home/user/done", "yes")
            async for event in watch:
                print(event.type, event.name)
                if event.name == "done":
                    break
        ```
    """

    _instead = BY_SANDBOX + ", then files.watch_dir() again"

    def __init__(
        self,
        events: AsyncEvents,
        on_event: _aio.OutputHandler[FilesystemEvent] | None,
        on_exit: _aio.OutputHandler[Exception] | None,
        what: str = "",
    ) -> None:
        self._events = events
        #: What is watched, for the representation.
        self._what = what
        self._on_event = on_event
        self._on_exit = on_exit
        self._waiting: deque[FilesystemEvent] = deque()
        self._stopped = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._what}, stopped={self._stopped})"

    async def get_new_events(
        self, request_timeout: float | None = None, **call: Unpack[CallParams]
    ) -> list[FilesystemEvent]:
        """What has happened since the last call, or since the watch began; may be nothing.

        Args:
            request_timeout: In seconds; default: as given to `watch_dir`.
            **call: See `CallParams`.

        Raises:
            SandboxException: the watch was stopped, or events were lost because too many happened at once.

        Example:
            ```python
            watch = await sandbox.files.watch_dir("/tmp")
            await sandbox.files.write("/tmp/new", "x")
            for event in await watch.get_new_events():
                print(event.type, event.name)
            ```
        """
        check_call(call)
        arguments.seconds(request_timeout, "request_timeout")
        if self._stopped:
            raise SandboxException("the watch was stopped")
        self._waiting += await self._events.take(request_timeout)
        found = []
        while self._waiting:
            found.append(await self._hand_out())
        return found

    async def wait(self, **call: Unpack[RequestParams]) -> None:
        """Give all events to `on_event` until the watch ends, which is then told to `on_exit` if that was given.

        Args:
            **call: See `RequestParams`.

        Raises:
            TimeoutException: its time is over.
            SandboxException: events were lost because too many happened at once.

        Example:
            ```python
            watch = await sandbox.files.watch_dir("/tmp", on_event=print, timeout=1)
            try:
                await watch.wait()
            except TimeoutException:
                print("nothing happens any more")
            ```
        """
        check_call(call, RequestParams)
        try:
            async for _ in self:
                pass
        except GrotteException as error:
            if self._on_exit is None:
                raise
            await _aio.call(self._on_exit, error)

    def __aiter__(self) -> AsyncIterator[FilesystemEvent]:
        return self

    async def __anext__(self) -> FilesystemEvent:
        if not self._waiting and not self._stopped:
            try:
                self._waiting += await self._events.receive()
            except GrotteException:
                if not self._stopped:
                    raise
        if not self._waiting:
            raise StopAsyncIteration
        return await self._hand_out()

    async def _hand_out(self) -> FilesystemEvent:
        event = self._waiting.popleft()
        if self._on_event is not None:
            await _aio.call(self._on_event, event)
        return event

    async def stop(self, request_timeout: float | None = None, **call: Unpack[CallParams]) -> None:
        """Stop watching; may be called more than once.

        Args:
            request_timeout: In seconds; default: as given to `watch_dir`.
            **call: See `CallParams`.

        Example:
            ```python
            watch = await sandbox.files.watch_dir("/tmp")
            await watch.stop()
            ```
        """
        check_call(call)
        arguments.seconds(request_timeout, "request_timeout")
        self._events.check_loop()
        self._stopped = True
        await self._events.aclose(request_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _aio.shield(STOP_SECONDS):
            try:
                await self.stop()
            except GrotteException:  # the sandbox, and with it the watch, is gone
                return


def _public(messages: list[WatchDirResponse]) -> list[FilesystemEvent]:
    events = (public_event(message.filesystem) for message in messages if message.filesystem is not None)
    return [event for event in events if event is not None]
