"""One request on a connection: what has arrived, what its waiter waits for, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from grotte._core import _aio
from grotte._proto.http2.codec import Header
from grotte._proto.transport_errors import TransportError

if TYPE_CHECKING:
    from grotte._core.http2.baton import AsyncBaton
    from grotte._core.http2.connection import AsyncConnection


class AsyncParty:
    """Somebody who waits: parked on an event, or reading a connection for everybody.

    `ready` says whether the wait is over; whoever changes that calls `wake`, with the lock held.
    """

    event: _aio.Event | None = None
    reading: AsyncBaton | None = None

    def ready(self) -> bool:
        raise NotImplementedError

    def wake(self) -> None:
        """Let the wait look at `ready` again."""
        event, reading = self.event, self.reading
        if event is not None:
            event.set()
        elif reading is not None:
            reading.interrupt()


class AsyncStream(AsyncParty):
    """One exchange. Its connection writes it, under the connection's lock; one task or thread waits for it."""

    # Defaults of the class cost nothing for each stream.
    id = 0
    #: Position in all that the connection ever queued where this stream's HEADERS begin.
    start = 0
    status = 0
    headers: Sequence[Header] = ()
    #: The peer has said all; we have said all; the codec still knows the stream.
    ended = False
    sent_end = False
    #: Bytes of the body that left with the HEADERS.
    sent = 0
    open = True
    error: TransportError | None = None
    #: The send window is used up.
    window_blocked = False
    #: How often its reader went on without waiting.
    topped_up = 0
    #: Until when it is parked; the reader looks at the clock for it.
    deadline: float | None = None

    def __init__(self, connection: AsyncConnection, *, eager: bool) -> None:
        self.connection = connection
        #: Body bytes count as consumed when they arrive: the caller wants the whole answer.
        self.eager = eager
        self.chunks: deque[tuple[bytes, int]] = deque()
        #: A function, not a bound method: an object that refers to itself is left to the garbage collector.
        self.goal: Callable[[AsyncStream], bool] = AsyncStream.is_complete

    def ready(self) -> bool:
        return self.goal(self)

    def is_complete(self) -> bool:
        return self.ended or self.error is not None

    def has_status(self) -> bool:
        return self.status != 0 or self.error is not None

    def has_data(self) -> bool:
        return bool(self.chunks) or self.ended or self.error is not None

    def may_send(self) -> bool:
        """Whether an upload can go on, or needs not."""
        return self.upload_is_over() or not (self.window_blocked or self.connection.congested())

    def upload_is_over(self) -> bool:
        """The answer does not wait for more: it is complete, or an error's."""
        return self.ended or self.error is not None or self.status >= 400
