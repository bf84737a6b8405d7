"""How a build's log is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from grotte._proto.templates.results import LogEntry, LogEntryEnd, LogEntryLevel, LogEntryStart
from grotte.errors import InvalidArgumentException

_ORDER: dict[str, int] = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_COLOURS = {"debug": "90", "info": "36", "warn": "33", "error": "31"}
_CLEAR = "\r\x1b[K"


class BuildLogger:
    """Prints a log: on a terminal in colours above a line that says how long it takes, elsewhere as plain lines.

    Args:
        min_level: What is less important is left out.
        stream: Where to; default: the standard output at the time.
    """

    def __init__(self, min_level: LogEntryLevel = "info", stream: TextIO | None = None) -> None:
        if min_level not in _ORDER:
            raise InvalidArgumentException(f"min_level must be one of {', '.join(_ORDER)}, not {min_level!r}")
        self._least = _ORDER[min_level]
        self._stream = stream
        self._began = time.monotonic()

    def __call__(self, entry: LogEntry) -> None:
        """Show an entry."""
        stream = self._stream or sys.stdout
        terminal = stream.isatty()
        if isinstance(entry, LogEntryStart):
            self._began = time.monotonic()
        elif isinstance(entry, LogEntryEnd):
            stream.write(_CLEAR if terminal else "")
        elif _ORDER[entry.level] >= self._least:
            stream.write(self._line(entry, terminal))
        if terminal and not isinstance(entry, LogEntryEnd):
            stream.write(f"{_CLEAR}Building {self._elapsed()}")
        stream.flush()

    def _line(self, entry: LogEntry, terminal: bool) -> str:
        level = f"{entry.level.upper():<5}"
        start, level = (_CLEAR, f"\x1b[{_COLOURS[entry.level]}m{level}\x1b[0m") if terminal else ("", level)
        time_of_day = entry.timestamp.astimezone().strftime("%H:%M:%S")
        return f"{start}{self._elapsed():<6} | {time_of_day} {level} {entry.message}\n"

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f}s"


def default_build_logger(min_level: LogEntryLevel | None = None) -> Callable[[LogEntry], None]:
    """A function for `on_build_logs` that prints the log.

    Args:
        min_level: What is less important is left out; default: ``"info"``.

    Example:
        ```python
        Template.build(Template().from_base_image(), "plain", on_build_logs=default_build_logger("debug"))
        ```
    """
    return BuildLogger(min_level or "info")
