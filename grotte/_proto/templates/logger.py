"""How a build's log is shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from grotte._proto import arguments
from grotte._proto.templates.drawing import (
    Canvas,
    Screen,
    encodable,
    encoding_of,
    finished_lines,
    running_lines,
    visible,
)
from grotte._proto.templates.progress import Progress, Step
from grotte._proto.templates.results import LogEntry, LogEntryEnd, LogEntryLevel, LogEntryStart
from grotte.errors import InvalidArgumentException

_ORDER: dict[str, int] = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_COLOURS = {"debug": "90", "info": "36", "warn": "33", "error": "31"}


class BuildLogger:
    """Shows a log: on a terminal as a line for each step with the last output of the running one, elsewhere as lines.

    Args:
        min_level: What is less important is left out; above ``"info"``, there are no steps.
        stream: Where to; default: the standard output at the time.
    """

    def __init__(self, min_level: LogEntryLevel = "info", stream: TextIO | None = None) -> None:
        if min_level not in _ORDER:
            raise InvalidArgumentException(
                f"min_level must be one of {', '.join(_ORDER)}, not {arguments.shown(min_level)}"
            )
        self._least = _ORDER[min_level]
        self._stream = stream
        self._reset()

    def _reset(self) -> None:
        self._began = time.monotonic()
        self._progress = Progress()
        self._canvas = Canvas()
        self._is_running = False

    def __call__(self, entry: LogEntry) -> None:
        """Show an entry."""
        stream = self._stream or sys.stdout
        if isinstance(entry, LogEntryStart):
            self._reset()
        self._is_running = not isinstance(entry, LogEntryEnd)
        if _is_terminal(stream):
            screen = _screen(stream)
            self._draw(stream, screen, self._settled(entry, screen))
        elif self._is_wanted(entry):
            stream.write(encodable(f"{self._line(entry)}\n", _encoding(stream)))
            stream.flush()

    def refresh(self) -> None:
        """Show how long it takes by now, if a build is running on a terminal."""
        stream = self._stream or sys.stdout
        if self._is_running and _is_terminal(stream):
            self._draw(stream, _screen(stream), [])

    def _is_wanted(self, entry: LogEntry) -> bool:
        return not isinstance(entry, LogEntryStart | LogEntryEnd) and _ORDER[entry.level] >= self._least

    def _settled(self, entry: LogEntry, screen: Screen) -> list[str]:
        """The lines that an entry adds for good."""
        if not isinstance(entry, LogEntryEnd) and not self._is_wanted(entry):
            return []
        lines: list[str] = []
        for one in self._progress.take(entry, time.monotonic()):
            lines += finished_lines(one, screen) if isinstance(one, Step) else [self._line(one, screen)]
        return lines

    def _draw(self, stream: TextIO, screen: Screen, settled: list[str]) -> None:
        live: list[str] = []
        if self._is_running:
            step = self._progress.running
            if step is not None:
                live = running_lines(step, self._progress.seconds(time.monotonic()), screen)
            live.append(screen.cut(f"Building {self._elapsed()}", screen.room))
        stream.write(self._canvas.draw(settled, live, screen))
        stream.flush()

    def _line(self, entry: LogEntry, screen: Screen | None = None) -> str:
        level, message = f"{entry.level.upper():<5}", entry.message
        if screen is not None:
            level = screen.paint(level, _COLOURS[entry.level])
            message = "\n".join(encodable(visible(line), screen.encoding) for line in message.splitlines())
        time_of_day = entry.timestamp.astimezone().strftime("%H:%M:%S")
        return f"{self._elapsed():<6} | {time_of_day} {level} {message}"

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f}s"


def _is_terminal(stream: TextIO) -> bool:
    """Whether lines can be drawn again there."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _screen(stream: TextIO) -> Screen:
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # it only says that it is a terminal
        columns, rows = 0, 0
    # a terminal that was never told its size has none
    return Screen(columns or 80, rows or 24, _encoding(stream), coloured=not os.environ.get("NO_COLOR"))


def _encoding(stream: TextIO) -> str:
    return encoding_of(getattr(stream, "encoding", None))


def default_build_logger(min_level: LogEntryLevel | None = None) -> Callable[[LogEntry], None]:
    """A function for `on_build_logs` that shows the log.

    On a terminal, each step of the build is a line with its state and its seconds, and the last output of the running
    one stands below it until it is over; what failed keeps its output. Elsewhere, or with ``TERM=dumb``, the log is
    printed as plain lines. ``NO_COLOR`` is respected.

    Args:
        min_level: What is less important is left out; default: ``"info"``. With ``"warn"`` and ``"error"``, there are
            no steps.

    Example:
        ```python
        Template.build(Template().from_base_image(), "plain", on_build_logs=default_build_logger("debug"))
        ```
    """
    return BuildLogger(min_level or "info")
