"""The Connect protocol's framing and codes: envelopes of streaming calls, error codes and their HTTP statuses."""

from __future__ import annotations

from msgspec import Struct, field

from grotte._proto.messages import Message

UNARY_CONTENT_TYPE = "application/json"
STREAM_CONTENT_TYPE = "application/connect+json"

FLAG_COMPRESSED = 0x01
FLAG_END_STREAM = 0x02
HEADER_LENGTH = 5
#: One message of a stream: far above what any peer sends (32 KiB of output, or a large directory), far below a bomb.
MAX_MESSAGE = 64 * 1024 * 1024

#: Connect code → HTTP status of a unary error.
HTTP_STATUS = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}

#: HTTP status of an answer without a Connect body → Connect code.
CODE_OF_STATUS = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    408: "canceled",
    409: "already_exists",
    413: "resource_exhausted",
    429: "resource_exhausted",
    499: "canceled",
    500: "internal",
    501: "unimplemented",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
    505: "unimplemented",
}


class ErrorDetail(Message):
    type: str = ""
    value: str = ""


class ErrorBody(Message):
    """A Connect error: a unary call's whole body, or `error` of an end-of-stream envelope."""

    # a default that is written all the same: clients look for the code
    code: str = field(default_factory=lambda: "unknown")
    message: str = ""
    details: list[ErrorDetail] = []  # noqa: RUF012  (msgspec copies empty defaults)


class EndOfStream(Message):
    """The payload of the last envelope."""

    error: ErrorBody | None = None
    metadata: dict[str, list[str]] = {}  # noqa: RUF012  (msgspec copies empty defaults)


class EnvelopeError(ValueError):
    """The bytes are no envelope: a size beyond the limit, or the stream ended inside one."""


class Envelope(Struct, frozen=True):
    flags: int
    payload: memoryview


def pack(payload: bytes, flags: int = 0) -> bytes:
    """One envelope: flags, big-endian length, payload."""
    return bytes((flags,)) + len(payload).to_bytes(4, "big") + payload


class EnvelopeReader:
    """Cuts a stream of bytes into envelopes; payloads are views of the chunk that held them, not copies.

    Example:
        >>> reader = EnvelopeReader()
        >>> [bytes(envelope.payload) for envelope in reader.feed(pack(b"{}"))]
        [b'{}']
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        #: What has come of an envelope that is not complete, how much that is, and how much completes it.
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._needed = HEADER_LENGTH

    def feed(self, chunk: bytes) -> list[Envelope]:
        """Take the next bytes and return the envelopes that they complete.

        Raises:
            EnvelopeError: an envelope announces more than `max_message` bytes.
        """
        if self._parts:
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size < self._needed:
                return []
            chunk = b"".join(self._parts)
            self._parts = []
        view = memoryview(chunk)
        found = []
        position = 0
        while len(view) - position >= HEADER_LENGTH:
            end = position + HEADER_LENGTH + self._length(view[position : position + HEADER_LENGTH])
            if end > len(view):
                break
            found.append(Envelope(view[position], view[position + HEADER_LENGTH : end]))
            position = end
        if position < len(view):
            self._keep(view[position:])
        return found

    def _keep(self, rest: memoryview) -> None:
        """Wait for what completes an envelope; the parts are put together once, when it has come."""
        self._parts, self._size = [rest], len(rest)
        known = len(rest) >= HEADER_LENGTH
        self._needed = HEADER_LENGTH + (self._length(rest[:HEADER_LENGTH]) if known else 0)

    def finish(self) -> None:
        """Say that the stream is over.

        Raises:
            EnvelopeError: it ended inside an envelope.
        """
        if self._parts:
            raise EnvelopeError(f"the stream ended inside an envelope ({self._size} bytes of it arrived)")

    def _length(self, header: memoryview) -> int:
        length = int.from_bytes(header[1:], "big")
        if length > self._max_message:
            raise EnvelopeError(f"an envelope of {length} bytes is over the limit of {self._max_message}")
        return length
