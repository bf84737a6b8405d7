"""Steps of a build as lines on a terminal."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from grotte._proto.templates.progress import Mark, Step

#: How much of a running step's output is shown, and how wide a line of the display becomes.
SHOWN_LINES = 5
WIDEST = 120
_INDENT = "    "
_MARKS = {Mark.RUNNING: "●", Mark.DONE: "✓", Mark.CACHED: "=", Mark.FAILED: "✗", Mark.ENDED: "-"}
_PLAIN_MARKS = {Mark.RUNNING: ">", Mark.DONE: "+", Mark.CACHED: "=", Mark.FAILED: "x", Mark.ENDED: "-"}
_COLOURS = {Mark.RUNNING: "36", Mark.DONE: "32", Mark.CACHED: "32", Mark.FAILED: "31", Mark.ENDED: "33"}
_DIM, _RED = "2", "31"
_JOINER = "\u200d"
_ESCAPE = re.compile(r"\x1b\[\d*m")


@dataclass(frozen=True)
class Screen:
    """What is drawn on.

    Attributes:
        columns: How wide it is.
        rows: How high it is.
        encoding: What its bytes mean.
        coloured: Whether colours are wanted.
    """

    columns: int = 80
    rows: int = 24
    encoding: str = "utf-8"
    coloured: bool = True

    @property
    def room(self) -> int:
        """How much a line may take: in the last column, some terminals begin the next line."""
        return max(min(self.columns - 1, WIDEST), 1)

    def can(self, text: str) -> bool:
        """Whether it has all these characters."""
        return encodable(text, self.encoding) == text

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured and text else text

    def cut(self, text: str, room: int) -> str:
        """As much of a text as there is room for; that it goes on is shown."""
        text = encodable(text, self.encoding)
        if width(text) <= room:
            return text
        more = "…" if self.can("…") else "..."
        left = max(room - len(more), 0)
        kept = 0
        while kept < len(text) and (left := left - width(text[kept])) >= 0:
            kept += 1
        return (text[:kept] + more)[: max(room, 0)]


class Canvas:
    """Lines that stay, and below them some that are drawn again and again; says what to write for that."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._before: tuple[list[str], Screen] | None = None

    def draw(self, settled: Sequence[str], live: Sequence[str], screen: Screen) -> str:
        """Add lines that stay, and replace the others; nothing is written if nothing changes."""
        if not settled and self._before == (list(live), screen):
            return ""
        start = self._start(screen)
        self._before = (list(live), screen)
        self._widths = [width(_ESCAPE.sub("", line)) for line in live]
        return start + "".join(f"{line}\n" for line in settled) + "\n".join(live)

    def _start(self, screen: Screen) -> str:
        """To where the first line begins that was not to stay; a terminal that became narrower has broken some."""
        rows = sum(max(-(-taken // screen.columns), 1) for taken in self._widths)
        return f"\r\x1b[{rows - 1}A\x1b[J" if rows > 1 else "\r\x1b[K"


def step_line(step: Step, seconds: float, screen: Screen) -> str:
    """A step in one line: its mark, its text, and its seconds."""
    marks = _MARKS if all(map(screen.can, _MARKS.values())) else _PLAIN_MARKS
    time = "CACHED" if step.mark == Mark.CACHED else f"{seconds:.1f}s"
    room = screen.room - 2 - 9
    if room < 1:
        return screen.cut(f"{marks[step.mark]} {visible(step.text)}", screen.room)
    text = screen.cut(visible(step.text), room)
    return f"{screen.paint(marks[step.mark], _COLOURS[step.mark])} {text}{' ' * (room - width(text))}{time:>9}"


def running_lines(step: Step, seconds: float, screen: Screen) -> list[str]:
    """A running step with the last of its output."""
    shown = max(min(SHOWN_LINES, screen.rows - 3), 0)
    output = [line for line in map(visible, list(step.output)[-2 * SHOWN_LINES :]) if line]
    return [step_line(step, seconds, screen), *_below(output[-shown:] if shown else [], screen, _DIM)]


def finished_lines(step: Step, screen: Screen) -> list[str]:
    """A step that is over: its output is of interest only if it failed, or if nobody knows."""
    lines = [step_line(step, step.seconds, screen)]
    if step.mark in (Mark.FAILED, Mark.ENDED):
        output = list(step.output)
        lines += [_INDENT + encodable(line, screen.encoding) for line in map(visible, output)]
        lines += [
            _INDENT + screen.paint(encodable(line, screen.encoding), _RED)
            for line in map(visible, _without_end(step.problem, output))
        ]
    return lines


def _below(lines: Sequence[str], screen: Screen, colour: str) -> list[str]:
    room = screen.room - len(_INDENT)
    return [_INDENT + screen.paint(screen.cut(line, room), colour) for line in lines] if room > 0 else []


def _without_end(problem: list[str], output: list[str]) -> list[str]:
    """What went wrong, without the output that it quotes at its end and that stands above it."""
    for count in range(min(len(problem) - 1, len(output)), 0, -1):
        if problem[-count:] == output[-count:]:
            return problem[:-count]
    return problem


def visible(text: str) -> str:
    """A text in one line as a terminal would leave it: of what overwrites itself, the last.

    Example:
        >>> visible("10 %\\r20 %\\a")
        '20 %'
    """
    last = text.rstrip("\r\n").rpartition("\r")[2]
    return "".join(map(_kept, last))


def _kept(character: str) -> str:
    if character in "\t\n\x0b\x0c\u2028\u2029":
        return " "
    # what controls the terminal or reorders its text
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character != _JOINER else character


def width(text: str) -> int:
    """How many columns a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def encodable(text: str, encoding: str) -> str:
    """A text with question marks for what an encoding does not have."""
    try:
        return text.encode(encoding, "replace").decode(encoding)
    except (LookupError, UnicodeError):
        return text.encode("ascii", "replace").decode()


def encoding_of(name: str | None) -> str:
    """The encoding of a stream, which need not have one."""
    try:
        return codecs.lookup(name or "utf-8").name
    except LookupError:
        return "ascii"
