"""How far a build is, read from its log."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from grotte._proto.templates.results import LogEntry, LogEntryEnd

#: How many lines of a step's output are kept, for the case that it fails.
KEPT_LINES = 500
#: What steps begin with: programs number their own lines, too, so that the number alone says nothing.
_VERBS = "FROM|RUN|COPY|ADD|ENV|WORKDIR|USER|ARG"
_NUMBERED = re.compile(rf"(CACHED )?(\[(?:\w+ )?(\d+)/(\d+)\] (?:{_VERBS})\b.*)", re.DOTALL)
_FIRST = re.compile(r"(CACHED )?((?:\[base\] )?FROM \S.*)", re.DOTALL)
_PREPARATION = re.compile(r"(CACHED )?(preparing the image)")
_LAST = re.compile(r"(CACHED )?(start: .*; ready: .*|\[finalize\] .*)", re.DOTALL)
_READY = "the template is ready"


class Mark(StrEnum):
    """How a step is; `ENDED` is one whose build ended without a word about it."""

    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    ENDED = "ended"


@dataclass
class Step:
    """One step of a build.

    Attributes:
        text: What it does.
        began: When, in Unix seconds of whoever wrote the log.
        mark: How it is.
        seconds: How long it took, once it is over.
        output: The last lines that it wrote.
        problem: Why it failed, if it did.
    """

    text: str
    began: float
    mark: Mark = Mark.RUNNING
    seconds: float = 0.0
    output: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    problem: list[str] = field(default_factory=list)


class Progress:
    """The steps of one build; fed with its log, it says what is settled.

    Attributes:
        running: The step that has begun last, until the build is over.
    """

    def __init__(self) -> None:
        self.running: Step | None = None
        self._begun_at_all = False
        self._number = self._total = 0
        self._last = 0.0  # when something was written, by the clock of who wrote it
        self._heard = 0.0  # the same moment by this side's clock

    def take(self, entry: LogEntry, now: float) -> list[Step | LogEntry]:
        """Take note of an entry.

        Args:
            entry: What was written.
            now: A monotonic clock, in seconds.

        Returns:
            What will not change any more: steps that are over, and entries that belong to none.
        """
        if isinstance(entry, LogEntryEnd):
            return self._end(now)
        self._last, self._heard = entry.timestamp.timestamp(), now
        if entry.level == "info":
            begun = self._begun(entry.message)
            if begun is not None:
                return self._next(begun)
            if entry.message == _READY:
                return [*self._over(Mark.DONE), entry]
        step = self.running
        if step is None:
            return [entry]
        (step.problem if entry.level == "error" else step.output).extend(entry.message.splitlines())
        return []

    def _next(self, step: Step) -> list[Step | LogEntry]:
        over = self._over(Mark.DONE)
        self._begun_at_all = True
        if step.mark == Mark.CACHED:
            return [*over, step]
        self.running = step
        return over

    def seconds(self, now: float) -> float:
        """How long the running step has taken so far."""
        return 0.0 if self.running is None else max(self._moment(now) - self.running.began, 0.0)

    def _moment(self, now: float) -> float:
        """The time by the clock of who writes the log, which need not agree with this side's."""
        return self._last + max(now - self._heard, 0.0)

    def _begun(self, message: str) -> Step | None:
        """The step that a message begins, unless it is somebody's output."""
        at_last = self._number == self._total
        if found := _NUMBERED.fullmatch(message):
            number, total = int(found[3]), int(found[4])
            if number != self._number + 1 or total < number or self._total not in (0, total):
                return None
            self._number, self._total = number, total
        elif not self._begun_at_all:
            found = _FIRST.fullmatch(message)
        elif not self._total:
            found = _PREPARATION.fullmatch(message) or _LAST.fullmatch(message)
        elif at_last:
            found = _LAST.fullmatch(message)
        if found is None:
            return None
        return Step(found[2], self._last, Mark.CACHED if found[1] else Mark.RUNNING)

    def _over(self, mark: Mark, moment: float | None = None) -> list[Step | LogEntry]:
        step, self.running = self.running, None
        if step is None:
            return []
        step.mark, step.seconds = mark, max((self._last if moment is None else moment) - step.began, 0.0)
        return [step]

    def _end(self, now: float) -> list[Step | LogEntry]:
        failed = self.running is not None and self.running.problem
        return self._over(Mark.FAILED if failed else Mark.ENDED, self._moment(now))
