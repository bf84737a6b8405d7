"""What a command prints, collected: bytes in, text out, never a split character, linear in size."""

from __future__ import annotations

import codecs
import sys
import threading
from collections import deque

from grotte._proto.messages import EndEvent, ProcessEvent

#: One piece of output as users see it: stdout, stderr or terminal bytes; the other two are None.
OutputPiece = tuple[str | None, str | None, bytes | None]
#: The whole text grows by at least this share of itself at a time: copied at each growth it would still be linear.
GROWTH = 1 / 16
#: Characters by which it grows at most at a time. Linux moves large texts instead of copying them; short steps, all of
#: one size, then use the same memory again and again.
STEP = 1 << 18 if "linux" in sys.platform else sys.maxsize


class TextOutput:
    """One stream of text. One thread feeds it; others may ask for its text meanwhile.

    Invalid bytes become U+FFFD; an incomplete character waits for its rest. With a limit, the end is what is kept.
    """

    __slots__ = ("_chunks", "_decoder", "_dropped", "_limit", "_lock", "_size", "_whole")

    def __init__(self, limit: int | None = None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._limit = limit
        self._lock = threading.Lock()
        #: Grows while its rest is still under way, where joining chunks would copy all of it in the end; with a limit,
        #: none.
        self._whole = ""
        #: What came after it, and the size of that.
        self._chunks: deque[str] = deque()
        self._size = 0
        self._dropped = 0

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Take bytes and return the text that they complete, maybe none."""
        text = self._decoder.decode(data, final)
        if not text:
            return text
        with self._lock:
            self._chunks.append(text)
            self._size += len(text)
            if self._limit is not None:
                self._drop(self._limit)
            elif self._size >= min(GROWTH * len(self._whole), STEP):
                self._grow()
        return text

    def _grow(self) -> None:
        # CPython extends a str where it lies if nothing but one local variable refers to it
        whole, self._whole = self._whole, ""
        whole += "".join(self._chunks)
        self._whole = whole
        self._chunks.clear()
        self._size = 0

    def _drop(self, limit: int) -> None:
        """Let go of whole chunks, so that nothing is copied; `text` cuts the last bit."""
        while self._chunks and self._size - len(self._chunks[0]) >= limit:
            gone = len(self._chunks.popleft())
            self._size -= gone
            self._dropped += gone

    def text(self) -> str:
        """Everything that is kept."""
        with self._lock:
            if self._limit is not None:
                return "".join(self._chunks)[max(0, self._size - self._limit) :]
            if self._chunks:
                self._grow()
            return self._whole

    @property
    def dropped(self) -> int:
        """How many characters `text` is without."""
        return self._dropped if self._limit is None else self._dropped + max(0, self._size - self._limit)


class CommandOutput:
    """All that a command prints, in the order of arrival.

    Args:
        limit: How many characters of each stream are kept, the last ones, and about how many in pieces; None: all.

    Attributes:
        keeps_pieces: Whoever comes later may ask for old pieces, too.
    """

    __slots__ = ("_kept", "_limit", "_stale", "end", "first", "keeps_pieces", "pieces", "stderr", "stdout")

    def __init__(self, limit: int | None = None) -> None:
        self.keeps_pieces = True
        self.stdout = TextOutput(limit)
        self.stderr = TextOutput(limit)
        self.end: EndEvent | None = None
        #: The number of the first piece that is kept.
        self.first = 0
        self._limit = limit
        self.pieces: list[OutputPiece] = []
        #: Characters in the pieces that count as kept; those before them wait to be removed together.
        self._kept = 0
        self._stale = 0

    @property
    def count(self) -> int:
        """How many pieces there were so far."""
        return self.first + len(self.pieces)

    def piece(self, number: int) -> OutputPiece:
        """A piece by its number, from `first` on."""
        return self.pieces[number - self.first]

    def trim(self, below: int) -> None:
        """Let go of old pieces, as far as there is a limit, but of none from the number `below` on."""
        if not self.keeps_pieces:
            del self.pieces[: below - self.first]
            self.first = below
        elif self._limit is not None:
            self._trim(below, self._limit)

    def _trim(self, below: int, limit: int) -> None:
        while self._stale < below - self.first:
            length = _length(self.pieces[self._stale])
            if self._kept - length < limit:
                break
            self._kept -= length
            self._stale += 1
        # moving the rest down costs as much as it is long: only when as much goes
        if self._stale and 2 * self._stale >= len(self.pieces):
            del self.pieces[: self._stale]
            self.first += self._stale
            self._stale = 0

    def feed(self, event: ProcessEvent) -> list[OutputPiece]:
        """Take one event and return the pieces of output that it completes."""
        found: list[OutputPiece] = []
        if event.data is not None:
            found = self._data(event.data.stdout, event.data.stderr, event.data.pty)
        elif event.end is not None:
            found = self.finish()
            self.end = event.end
            return found
        self._keep(found)
        return found

    def finish(self) -> list[OutputPiece]:
        """Give up waiting for the rest of incomplete characters."""
        out, err = self.stdout.feed(b"", final=True), self.stderr.feed(b"", final=True)
        found: list[OutputPiece] = []
        if out:
            found.append((out, None, None))
        if err:
            found.append((None, err, None))
        self._keep(found)
        return found

    def _keep(self, pieces: list[OutputPiece]) -> None:
        self.pieces += pieces
        if self._limit is not None:
            self._kept += sum(map(_length, pieces))

    def _data(self, stdout: bytes | None, stderr: bytes | None, pty: bytes | None) -> list[OutputPiece]:
        found: list[OutputPiece] = []
        if stdout and (text := self.stdout.feed(stdout)):
            found.append((text, None, None))
        if stderr and (text := self.stderr.feed(stderr)):
            found.append((None, text, None))
        if pty:
            found.append((None, None, pty))
        return found


def _length(piece: OutputPiece) -> int:
    return len(piece[0] or piece[1] or piece[2] or "")
