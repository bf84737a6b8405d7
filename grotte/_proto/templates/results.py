"""What calls on templates give back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

LogEntryLevel: TypeAlias = Literal["debug", "info", "warn", "error"]

#: Escape sequences of terminals: those with parameters, those that set titles and the like, and the short ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d).*?(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]", re.DOTALL
)


@dataclass
class LogEntry:
    """A line of a build's log.

    Attributes:
        timestamp: When it was written.
        level: How important it is.
        message: The text, without escape sequences of terminals.
    """

    timestamp: datetime
    level: LogEntryLevel
    message: str

    def __post_init__(self) -> None:
        self.message = _ESCAPES.sub("", self.message)

    def __str__(self) -> str:
        return f"[{self.timestamp.isoformat()}] [{self.level}] {self.message}"


@dataclass
class LogEntryStart(LogEntry):
    """The first line of a build."""

    level: LogEntryLevel = field(default="debug", init=False)


@dataclass
class LogEntryEnd(LogEntry):
    """The last line of a build, however it ended."""

    level: LogEntryLevel = field(default="debug", init=False)


class TemplateBuildStatus(StrEnum):
    """How far a build is."""

    BUILDING = "building"
    WAITING = "waiting"
    READY = "ready"
    ERROR = "error"


@dataclass
class BuildStatusReason:
    """Why a build is where it is.

    Attributes:
        message: What went wrong.
        step: Which step failed: its number from 1, `base` or `finalize`.
        log_entries: What was said about it.
    """

    message: str
    step: str | None = None
    log_entries: list[LogEntry] = field(default_factory=list)


@dataclass
class TemplateBuildStatusResponse:
    """What is known of a build.

    Attributes:
        build_id: Which build.
        template_id: Which template.
        status: How far it is.
        log_entries: A page of its log.
        logs: The same as plain text.
        reason: Why it failed, if it did.
    """

    build_id: str
    template_id: str
    status: TemplateBuildStatus
    log_entries: list[LogEntry]
    logs: list[str]
    reason: BuildStatusReason | None = None


@dataclass
class BuildInfo:
    """A build that was asked for.

    Attributes:
        template_id: Which template.
        build_id: Which build of it.
        name: The name that was asked for.
        alias: The same under its former name.
        tags: The tags that the build has.
    """

    template_id: str
    build_id: str
    name: str
    alias: str
    tags: list[str] = field(default_factory=list)


@dataclass
class TemplateTagInfo:
    """Tags that a build was given.

    Attributes:
        build_id: Which build.
        tags: The tags.
    """

    build_id: str
    tags: list[str]


@dataclass
class TemplateTag:
    """A tag of a template.

    Attributes:
        tag: Its name.
        build_id: The build that it means.
        created_at: Since when.
    """

    tag: str
    build_id: str
    created_at: datetime


@dataclass
class TemplateInfo:
    """A template of this account.

    Attributes:
        template_id: Its id.
        names: Its names.
        cpu_count: How many processors its sandboxes have.
        memory_mb: How much memory they have, in MiB.
        public: Whether others may use it.
        created_at: When it was first built.
        build_status: How far its latest build is.
    """

    template_id: str
    names: list[str]
    cpu_count: int
    memory_mb: int
    public: bool
    created_at: datetime
    build_status: str
