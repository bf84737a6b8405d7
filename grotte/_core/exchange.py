"""A request as the layers above hand it down, and the streamed answer as they get it back."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Protocol

from grotte._proto.http import Coalesce, Headers, Lane, Origin

#: How long a cancelled caller waits for an answer that somebody inherits, in seconds.
HEIR_SECONDS = 2.0


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        method: In capitals.
        origin: Where it goes.
        target: Path and query.
        headers: In order; names in any case. `host` replaces the origin's authority.
        body: All of it, or its pieces as they come; pieces cannot be sent again, so such a request is retried
            only when none was taken.
        content_length: In bytes, when it is known for a body in pieces.
        lane: Bulk bodies travel on connections of their own.
        coalesce: Which other hosts' connections it may use.
        idempotent: It may be sent again even if the server may have acted on it. GET and HEAD always may.
        proxy: The URL of the proxy to use; None: the transport's.
        transports: Whose connections it uses: the `transports` of its configuration; None: those of everybody.
        heir: Who gets the answer if its caller is cancelled before it has begun.
        taken: Pieces of the body are gone; set by the transport.
    """

    method: str
    origin: Origin
    target: str = field(repr=False)  # may hold a signature
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)  # may hold keys
    body: bytes | AsyncIterable[bytes] | None = field(default=None, repr=False)
    content_length: int | None = None
    lane: Lane = "rpc"
    coalesce: Coalesce = "off"
    idempotent: bool = False
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    transports: object | None = field(default=None, repr=False)
    heir: AsyncHeir | None = field(default=None, repr=False)
    taken: bool = field(default=False, init=False, repr=False)


class AsyncStreamResponse(Protocol):
    """An answer whose body arrives in pieces; iterate over it once.

    Attributes:
        status: The HTTP status.
        headers: The response headers.
        idle_timeout: The longest pause between two pieces, in seconds; None: any. May be changed between pieces;
            over HTTP/1.1 what it is when the first piece is asked for is its upper bound.
    """

    status: int
    headers: Headers
    idle_timeout: float | None

    def __aiter__(self) -> AsyncStreamResponse:
        """The pieces, in the sizes in which they arrive."""

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            TransportError: the connection or the stream broke, or a deadline passed.
        """

    async def aread(self) -> bytes:
        """What is left of the body, in one piece."""


class AsyncHeir(Protocol):
    """Who has to undo what a request does whose caller is cancelled."""

    async def inherit(self, response: AsyncStreamResponse) -> None:
        """Read of the answer what is needed; it is closed afterwards. Bounded in time, cancelled or not."""
