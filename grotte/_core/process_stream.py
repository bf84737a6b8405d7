"""The events of one process, over as many connections as that takes.

A stream that breaks is not the end of its process. It is attached to again by its pid, saying how far its output was
read: a server that kept what followed goes on from there, so that nothing is lost and nothing comes twice; from any
other one the output goes on with what is printed from then on, and `missing` says so. A process is never started twice.
"""

from __future__ import annotations

import random
from contextlib import suppress

from grotte._core import _aio
from grotte._core.client import deadline_after
from grotte._core.event_stream import GRACE_SECONDS, AsyncEventStream, process_event
from grotte._core.exchange import AsyncStreamResponse
from grotte._core.rpc import AsyncEnvd
from grotte._proto import failures
from grotte._proto.messages import (
    ConnectRequest,
    Empty,
    EndEvent,
    Message,
    ProcessEvent,
    ProcessSelector,
    SendSignalRequest,
)
from grotte._proto.resume import HEADER, RAW_HEADER, OutputPosition
from grotte._proto.transport_errors import ConnectFailed, ConnectionLost, DeadlineExceeded, TransportError
from grotte.errors import (
    GrotteException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)

START = "process.Process/Start"
CONNECT = "process.Process/Connect"
#: How long after a loss another attempt to attach may begin, in seconds; and how long where nobody listens any more.
WINDOW_SECONDS = 15.0
REFUSED_SECONDS = 5.0
#: How long one attempt may wait for its answer, in seconds.
ATTEMPT_SECONDS = 10.0
#: What a call that is cancelled at its start may take to end what it started, in seconds.
KILL_SECONDS = 2.0
#: The pauses before attempts, in seconds: the second one's, and the longest.
PAUSES = (0.05, 1.0)
#: A process that ends by a signal this shortly before its deadline, or later, was killed because of it, in seconds.
DEADLINE_MARGIN = 0.5

_UNCERTAIN = "whether it was started is not known, and it was not sent again: commands.list() tells what runs"


class AsyncProcessStream:
    """What a process tells, from its start or from when it was attached to. One task or thread at a time reads it.

    A `receive` that is cancelled leaves it as it was.

    Args:
        envd: Where the process is.
        timeout: How long it may run, or be attached to, in seconds.
        subject: Whose `timeout` that is, for messages.
    """

    def __init__(self, envd: AsyncEnvd, timeout: float | None, subject: str = "the command") -> None:
        self._envd = envd
        self._timeout = timeout
        self._subject = subject
        self._deadline: float | None = None
        self._started = False
        self._pid = 0
        self._position = OutputPosition(from_start=False)
        self._stream: AsyncEventStream[ProcessEvent] | None = None
        self._ended = False
        self._closed = False
        #: Another stream than the first one tells of it.
        self._again = False
        #: Why the stream is to be attached to again; since when that is tried, and how often, without any news.
        self._loss: GrotteException | None = None
        self._since: float | None = None
        self._attempts = 0

    @property
    def request(self) -> str:
        """What was asked for first, as exceptions name it."""
        return f"POST /{START if self._started else CONNECT}"

    @property
    def missing(self) -> bool:
        """Output is known to be lost, or may be: a connection broke, and the server could not go on from there."""
        return self._position.missing

    @property
    def gaps(self) -> int:
        """How often output went on with something `missing` before it."""
        return self._position.gaps

    async def open(
        self, method: str, message: Message, user: str | None, request_timeout: float | None
    ) -> list[ProcessEvent]:
        """Start a process (`START`), or attach to one (`CONNECT`); its first events."""
        self._started = method == START
        self._position = OutputPosition(from_start=self._started)
        self._deadline = deadline_after(None if self._timeout is None else self._timeout + GRACE_SECONDS)
        self._stream = stream = self._new_stream(method, message, user, self._timeout)
        try:
            events = await stream.open(request_timeout)
        except TimeoutException as error:
            raise self._uncertain(error) from error.__cause__
        self._position.begin(_offsets(stream))
        start = events[0].start if events else None
        if start is None:
            await stream.finish()
            text = "the server did not say that the command started"
            raise SandboxException(text, sandbox_id=self._envd.sandbox_id, request=self.request)
        self._pid = start.pid
        return self._taken(events)

    async def inherit(self, response: AsyncStreamResponse) -> None:
        """The caller was cancelled before it heard what it has started: nobody else knows of it, so that is ended."""
        assert self._stream is not None
        with _aio.shield(KILL_SECONDS), suppress(GrotteException, TimeoutError):
            for event in await self._stream.late(response, _aio.clock() + KILL_SECONDS):
                if event.start is not None:
                    await self._kill(event.start.pid)

    async def _kill(self, pid: int) -> None:
        message = SendSignalRequest(process=ProcessSelector(pid=pid), signal="SIGNAL_SIGKILL")
        await self._envd.unary(
            "process.Process/SendSignal", message, Empty, request_timeout=KILL_SECONDS, idempotent=True
        )

    def _uncertain(self, error: TimeoutException) -> TimeoutException:
        """The failure of a request without an answer: it says so if the process may run all the same."""
        cause = error.__cause__
        if not (self._started and isinstance(cause, TransportError) and cause.processed):
            return error
        if isinstance(error, SandboxNotRunningException):
            return error
        return failures.extended(error, _UNCERTAIN)

    def _new_stream(
        self, method: str, message: Message, user: str | None, timeout: float | None
    ) -> AsyncEventStream[ProcessEvent]:
        request = self._envd.stream_request(method, message, user, timeout)
        request.idempotent = method == CONNECT
        request.heir = self if method == START else None
        request.headers += [(HEADER, self._position.wish()), (RAW_HEADER, "1")]
        # the message of a timeout names what the caller gave, not what is left of it
        return AsyncEventStream(
            self._envd, request, self._timeout, process_event, subject=self._subject, deadline=self._deadline
        )

    async def receive(self, deadline: float | None = None) -> list[ProcessEvent]:
        """The next events; none when there will be no more.

        Args:
            deadline: Until when to wait, on `_aio.clock()`.

        Raises:
            TimeoutError: the deadline passed, and the stream goes on.
            GrotteException: the stream broke and could not be attached to again, or the server ended it with an error.
        """
        while True:
            try:
                return await (self._pull(deadline) if self._loss is None else self._attach(deadline))
            except NotFoundException as error:
                if self._loss is None:
                    raise
                raise await self._outcome_unknown(error) from None
            except (TransportError, SandboxUnreachableException, RateLimitException, ServiceBusyException) as error:
                if self._closed or not self._worth_another(error):
                    raise await self._explained(error) from _cause(error)
                self._loss = error

    def check_loop(self) -> None:
        """Refuse to be read or closed where another event loop has the connection; one that is over has none.

        Raises:
            SandboxException: this is not the place.
        """
        if self._stream is not None and self._stream.is_elsewhere():
            text = f"{self._subject} is listened to in another event loop: attach to it in this one, by connect(pid)"
            raise SandboxException(text, sandbox_id=self._envd.sandbox_id)

    async def aclose(self) -> None:
        """Let go of the stream; the process goes on."""
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()

    async def _pull(self, deadline: float | None) -> list[ProcessEvent]:
        stream = self._stream
        assert stream is not None
        events = await stream.pull(deadline)
        if not events and not self._ended and not stream.complete and not self._closed:
            raise ConnectionLost("the answer ended before the command did", processed=True)
        return self._taken(events)

    def _taken(self, events: list[ProcessEvent]) -> list[ProcessEvent]:
        for event in events:
            if event.data is not None:
                self._position.take(event.data)
            elif event.end is not None:
                self._ended = True
                self._check_time(event.end)
            if event.start is None:
                # what arrives says that the connection is a good one
                self._since, self._attempts = None, 0
        return events

    # -- attaching again -------------------------------------------------------------------------------------------

    def _worth_another(self, error: GrotteException) -> bool:
        if self._pid == 0 or (isinstance(error, DeadlineExceeded) and error.kind == "total"):
            return False
        if self._is_late():
            return False
        now = _aio.clock()
        if self._since is None:
            self._since = now
        return now - self._since < (REFUSED_SECONDS if isinstance(error, ConnectFailed) else WINDOW_SECONDS)

    async def _attach(self, deadline: float | None) -> list[ProcessEvent]:
        await self._pause(deadline)
        limit = ATTEMPT_SECONDS
        if deadline is not None:
            limit = min(limit, max(0.001, deadline - _aio.clock()))
        left = None if self._deadline is None else max(0.001, self._deadline - GRACE_SECONDS - _aio.clock())
        message = ConnectRequest(process=ProcessSelector(pid=self._pid))
        if self._stream is not None:
            await self._stream.aclose()
        self._stream = stream = self._new_stream(CONNECT, message, None, left)
        try:
            events = await stream.begin(limit)
        except DeadlineExceeded:
            if deadline is not None and _aio.clock() >= deadline:
                raise TimeoutError("nothing arrived before the deadline") from None
            raise
        if self._closed:
            await stream.aclose()
            return []
        if not events:
            raise ConnectionLost("the answer ended before the command did", processed=True)
        if not self._position.resume(_offsets(stream)):
            await stream.aclose()
            raise NotFoundException("another process has its pid", server_message="another process has its pid")
        self._loss = None
        self._again = True
        return self._taken(events)

    async def _pause(self, deadline: float | None) -> None:
        """Let a server or a network that has a bad moment have it; many that lost one connection come back apart."""
        first, longest = PAUSES
        pause = min(longest, first * 2.0 ** (self._attempts - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        self._attempts += 1
        now = _aio.clock()
        if deadline is not None and now + pause >= deadline:
            await _aio.sleep(max(0.0, deadline - now))
            raise TimeoutError("nothing arrived before the deadline")
        await _aio.sleep(pause)

    def _check_time(self, end: EndEvent) -> None:
        """A process of ours that was killed when its time was over has run into its timeout, whoever tells of it."""
        if self._started and self._again and self._is_late(DEADLINE_MARGIN) and not end.exited:
            raise self._out_of_time()

    def _is_late(self, margin: float = 0.0) -> bool:
        return self._deadline is not None and _aio.clock() >= self._deadline - GRACE_SECONDS - margin

    def _out_of_time(self) -> TimeoutException:
        text = f"the time limit passed: {failures.command_limit(self._timeout, self._subject)}"
        return TimeoutException(text, sandbox_id=self._envd.sandbox_id, request=self.request)

    # -- giving up -------------------------------------------------------------------------------------------------

    async def _explained(self, error: GrotteException) -> GrotteException:
        if self._closed:
            return SandboxException("the stream was closed", sandbox_id=self._envd.sandbox_id)
        if self._pid and self._is_late():
            return self._out_of_time()
        assert self._stream is not None
        if self._loss is not None and isinstance(error, DeadlineExceeded):
            # the limit of an attempt is no limit of the caller's
            text = f"the connection broke, and another one was not answered: {error}"
            failure = await self._envd.judged(self._unreachable(text))
        else:
            failure = await self._stream.explained(error)
        if self._pid and isinstance(failure, SandboxUnreachableException):
            return failures.extended(failure, f"process {self._pid} may go on: commands.connect() attaches to it again")
        return failure

    async def _outcome_unknown(self, error: NotFoundException) -> GrotteException:
        """The process ended while nobody listened; if its sandbox did not end with it, how is not known any more."""
        text = (
            f"the connection broke ({self._loss}), and {self._subject} ended before it was there again: how it ended "
            f"is not known ({error.server_message})"
        )
        return await self._envd.judged(self._unreachable(text, error.server_message))

    def _unreachable(self, text: str, said: str | None = None) -> GrotteException:
        return SandboxUnreachableException(
            text, sandbox_id=self._envd.sandbox_id, request=f"POST /{CONNECT}", server_message=said
        )


def _offsets(stream: AsyncEventStream[ProcessEvent]) -> str | None:
    return None if stream.headers is None else stream.headers.get(HEADER.lower())


def _cause(error: GrotteException) -> TransportError | None:
    return error if isinstance(error, TransportError) else None
