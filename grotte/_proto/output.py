"""What a command prints, collected: bytes in, text out, never a split character, linear in size."""

from __future__ import annotations

import codecs

from grotte._proto.messages import EndEvent, ProcessEvent

#: One piece of output as users see it: stdout, stderr or terminal bytes; the other two are None.
OutputPiece = tuple[str | None, str | None, bytes | None]


class TextOutput:
    """One stream of text.

    Invalid bytes become U+FFFD; an incomplete character waits for its rest.
    """

    __slots__ = ("_decoder", "_joined", "_joined_count", "chunks")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._joined = ""
        self._joined_count = 0
        self.chunks: list[str] = []

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Take bytes and return the text that they complete, maybe none."""
        text = self._decoder.decode(data, final)
        if text:
            self.chunks.append(text)
        return text

    def text(self) -> str:
        """Everything so far; joined anew only if something was added."""
        if self._joined_count != len(self.chunks):
            self._joined = "".join(self.chunks)
            self._joined_count = len(self.chunks)
        return self._joined


class CommandOutput:
    """All that a command prints, in the order of arrival."""

    __slots__ = ("end", "pieces", "stderr", "stdout")

    def __init__(self) -> None:
        self.stdout = TextOutput()
        self.stderr = TextOutput()
        self.pieces: list[OutputPiece] = []
        self.end: EndEvent | None = None

    def feed(self, event: ProcessEvent) -> list[OutputPiece]:
        """Take one event and return the pieces of output that it completes."""
        found: list[OutputPiece] = []
        if event.data is not None:
            found = self._data(event.data.stdout, event.data.stderr, event.data.pty)
        elif event.end is not None:
            found = self.finish()
            self.end = event.end
            return found
        self.pieces += found
        return found

    def finish(self) -> list[OutputPiece]:
        """Give up waiting for the rest of incomplete characters."""
        out, err = self.stdout.feed(b"", final=True), self.stderr.feed(b"", final=True)
        found: list[OutputPiece] = []
        if out:
            found.append((out, None, None))
        if err:
            found.append((None, err, None))
        self.pieces += found
        return found

    def _data(self, stdout: bytes | None, stderr: bytes | None, pty: bytes | None) -> list[OutputPiece]:
        found: list[OutputPiece] = []
        if stdout and (text := self.stdout.feed(stdout)):
            found.append((text, None, None))
        if stderr and (text := self.stderr.feed(stderr)):
            found.append((None, text, None))
        if pty:
            found.append((None, None, pty))
        return found
