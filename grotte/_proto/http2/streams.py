"""What a codec keeps of a stream while it lives, and what it remembers when it is gone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from grotte._proto.http2.codec import Header
from grotte._proto.http2.fields import Malformed, Response

#: Responses that end at their header section whatever their content-length says (RFC 9110 §6.4.1).
_WITHOUT_CONTENT = (204, 304)
HEAD = (b":method", b"HEAD")


class Stream(msgspec.Struct):
    """One live stream: a request whose last word, or whose response's last word, is still to come.

    Attributes:
        send_window: What we may send.
        receive_window: What the peer may send.
        credit_at: How many bytes to credit make a WINDOW_UPDATE worth its own.
        local_ended: We have said our last word.
        without_content: The answer ends at its header section: the request is a HEAD.
        to_credit: Flow bytes that were consumed and not yet given back to the peer.
        remote_ended: The peer has said its last word.
        answered: The final response's header section has arrived.
        body_left: Bytes that the response's content-length still promises; None without the field.
    """

    send_window: int
    receive_window: int
    credit_at: int
    local_ended: bool
    without_content: bool
    to_credit: int = 0
    remote_ended: bool = False
    answered: bool = False
    body_left: int | None = None

    def answer(self, response: Response, *, end_stream: bool) -> None:
        """Take note of the final response's header section.

        Raises:
            Malformed: it ends the stream and promises content.
        """
        self.answered = True
        if response.content_length is None:
            return
        self.body_left = response.content_length
        if self.without_content or response.status in _WITHOUT_CONTENT:
            self.body_left = 0
        if end_stream:
            self.end_body()

    def take_body(self, length: int) -> None:
        """Count content that arrived.

        Raises:
            Malformed: there was no header section before it, or it is more than content-length promised.
        """
        if not self.answered:
            raise Malformed("DATA before the response's header section")
        if self.body_left is not None:
            self.body_left -= length
            if self.body_left < 0:
                raise Malformed("the response is longer than its content-length")

    def end_body(self) -> None:
        """The response is complete.

        Raises:
            Malformed: content-length promised more.
        """
        if self.body_left:
            raise Malformed("the response is shorter than its content-length")


def new_stream(headers: Sequence[Header], *, end_stream: bool, send_window: int, receive_window: int) -> Stream:
    """The stream of a request with these headers; `:method` is the first of them."""
    return Stream(send_window, receive_window, receive_window // 2 or 1, end_stream, headers[0] == HEAD)


class EndedStreams:
    """Which of the latest streams ended with END_STREAM, in constant memory.

    A frame that comes after END_STREAM is the peer's error; one that comes for a stream that was reset was in flight
    and is dropped. Streams older than the latest few thousand count as reset.
    """

    SPAN = 4096

    def __init__(self) -> None:
        self._ended = bytearray(self.SPAN)
        self._newest = 0

    def opened(self, stream_id: int) -> None:
        """A stream with a new highest id exists; it takes the place of the one `SPAN` streams before."""
        self._newest = stream_id
        self._ended[(stream_id >> 1) & (self.SPAN - 1)] = 0

    def ended(self, stream_id: int) -> None:
        """Both sides of the stream have sent END_STREAM."""
        if self._newest - stream_id < 2 * self.SPAN:
            self._ended[(stream_id >> 1) & (self.SPAN - 1)] = 1

    def __contains__(self, stream_id: int) -> bool:
        recent = self._newest - stream_id < 2 * self.SPAN
        return recent and self._ended[(stream_id >> 1) & (self.SPAN - 1)] == 1
