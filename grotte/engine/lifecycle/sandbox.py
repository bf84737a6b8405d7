"""One running sandbox, as the engine knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import anyio

from grotte.engine.host import Guest, GuestError, Limits, Watch
from grotte.engine.journal import Journal
from grotte.engine.lifecycle.metering import History
from grotte.engine.lifecycle.network import Network
from grotte.engine.lifecycle.starting import facts
from grotte.engine.lifecycle.templates import Template
from grotte.engine.lifecycle.volumes import VolumeMount
from grotte.engine.processes.table import ProcessTable

#: How long a sandbox may take to show that it is well, in seconds.
ANSWER_SECONDS = 5.0
#: What a date can say, in seconds since 1970: the years 1 to 9999. Files may claim others.
FIRST_TIME, LAST_TIME = -62135596800, 253402300799


@dataclass(slots=True, kw_only=True)
class Order:
    """A sandbox that somebody asked for, checked.

    Attributes:
        timeout: Seconds to live.
        auto_pause: It is paused at the end of its time, not killed.
        auto_pause_memory: Its processes are kept then, not its files alone.
        auto_resume: A request to it while it is paused resumes it.
        mounts: Volumes that it shares with others.
    """

    owner: str
    template: Template
    timeout: int
    secure: bool
    network: Network
    metadata: dict[str, str]
    envs: dict[str, str]
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False
    mounts: tuple[VolumeMount, ...] = ()


@dataclass(slots=True, eq=False)
class Life:
    """What of a sandbox is in memory, and not only on the disk."""

    guest: Guest
    processes: ProcessTable


@dataclass(slots=True, eq=False, kw_only=True)
class Sandbox:
    """A sandbox that runs, or can go on.

    Attributes:
        life: None while there are only files: it is paused then.
        paused: Nothing runs in it.
        reboots: It was paused without its memory: it starts anew when it is resumed, which no request to it may do.
        changing: Held by whoever pauses, resumes or ends it.
        timeout: The seconds of life that it was given last.
        started_at: Unix microseconds.
        end_at: Unix microseconds, for people to read.
        deadline: The same moment on the event loop's clock, which no clock change moves.
        mounts: Volumes that it shares with others.
        watchers: Watches that clients made to ask for their events, by id.
        history: What it used.
        journal: What happened in it and to it.
    """

    sandbox_id: str
    owner: str
    template: Template
    life: Life | None
    paused: bool = False
    reboots: bool = False
    changing: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    limits: Limits
    timeout: float
    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False
    started_at: int
    end_at: int
    deadline: float
    access_token: str | None = field(repr=False)
    traffic_token: str | None = field(repr=False)
    network: Network
    metadata: dict[str, str]
    envs: dict[str, str] = field(repr=False)
    mounts: tuple[VolumeMount, ...] = ()
    watchers: dict[str, Watch] = field(default_factory=dict, repr=False)
    history: History = field(default_factory=History, repr=False)
    journal: Journal = field(default_factory=Journal, repr=False)

    @property
    def guest(self) -> Guest:
        """The link into it.

        Raises:
            GuestError: It is paused, and not even in memory.
        """
        return self._in_memory().guest

    @property
    def processes(self) -> ProcessTable:
        """What runs in it.

        Raises:
            GuestError: It is paused, and not even in memory.
        """
        return self._in_memory().processes

    def _in_memory(self) -> Life:
        if self.life is None:
            raise GuestError("unavailable", "the sandbox is paused")
        return self.life

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.life is None or not self.life.guest.closed.is_set()

    async def answers(self) -> bool:
        """Whether commands could be run in it."""
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                await self.guest.user("root")
            except GuestError:
                return False
            return True
        return False

    @property
    def wakes(self) -> bool:
        """Whether a request to it resumes it, if it is paused."""
        return self.auto_resume and not self.reboots

    @property
    def state(self) -> Literal["running", "paused"]:
        return "paused" if self.paused else "running"

    @property
    def cpu_count(self) -> int:
        """Its processors, as clients count them: whole ones."""
        return max(1, math.ceil(self.limits.cpus))

    @property
    def internet(self) -> bool:
        """Whether it reaches anything, or would."""
        return (self.life.guest.network if self.life else self.network).egress is not None

    def global_envs(self) -> dict[str, str]:
        """What every process finds in its environment; the sandbox's own facts cannot be overridden at creation."""
        return self.template.setup.envs | self.envs | facts(self.sandbox_id, self.template.template_id)


def rfc3339(micros: int) -> str:
    """Unix microseconds as clients read them: UTC, six digits."""
    moment = datetime.fromtimestamp(min(max(micros // 1_000_000, FIRST_TIME), LAST_TIME), UTC)
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"
