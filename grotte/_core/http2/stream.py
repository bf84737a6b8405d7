"""One request on a connection: what has arrived, what its waiter waits for, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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

    __slots__ = ("event", "reading")

    def __init__(self) -> None:
        self.event: _aio.Event | None = None
        self.reading: AsyncBaton | None = None

    def ready(self) -> bool:
        raise NotImplementedError

    def wake(self) -> None:
        """Let the wait look at `ready` again."""
        if self.event is not None:
            self.event.set()
        elif self.reading is not None:
            self.reading.interrupt()


class AsyncStream(AsyncParty):
    """One exchange. Its connection writes it, under the connection's lock; one task or thread waits for it."""

    __slots__ = (
        "chunks",
        "connection",
        "eager",
        "ended",
        "error",
        "goal",
        "headers",
        "id",
        "open",
        "sent_end",
        "start",
        "status",
        "window_blocked",
    )

    def __init__(self, connection: AsyncConnection, *, eager: bool) -> None:
        super().__init__()
        self.connection = connection
        self.id = 0
        #: Position in all that the connection ever queued where this stream's HEADERS begin.
        self.start = 0
        #: Body bytes count as consumed when they arrive: the caller wants the whole answer.
        self.eager = eager
        self.status = 0
        self.headers: list[Header] = []
        self.chunks: deque[tuple[bytes, int]] = deque()
        #: The peer has said all; we have said all; the codec still knows the stream.
        self.ended = False
        self.sent_end = False
        self.open = True
        self.error: TransportError | None = None
        #: The send window is used up.
        self.window_blocked = False
        self.goal: Callable[[], bool] = self.is_complete

    def ready(self) -> bool:
        return self.goal()

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
