"""One running sandbox, as the engine knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import anyio

from grotte.engine.host import Guest, GuestError, Limits, Watch
from grotte.engine.lifecycle.network import Network
from grotte.engine.lifecycle.templates import Template
from grotte.engine.processes.table import ProcessTable

#: What `base` runs commands as.
DEFAULT_USER = "user"


@dataclass(slots=True, kw_only=True)
class Order:
    """A sandbox that somebody asked for, checked.

    Attributes:
        timeout: Seconds to live.
        auto_pause: It is paused at the end of its time, not killed.
        auto_resume: A request to it while it is paused resumes it.
    """

    owner: str
    template: Template
    timeout: int
    secure: bool
    network: Network
    metadata: dict[str, str]
    envs: dict[str, str]
    auto_pause: bool = False
    auto_resume: bool = False


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
        changing: Held by whoever pauses, resumes or ends it.
        timeout: The seconds of life that it was given last.
        started_at: Unix microseconds.
        end_at: Unix microseconds, for people to read.
        deadline: The same moment on the event loop's clock, which no clock change moves.
        watchers: Watches that clients made to ask for their events, by id.
    """

    sandbox_id: str
    owner: str
    template: Template
    life: Life | None
    paused: bool = False
    changing: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    limits: Limits
    timeout: float
    auto_pause: bool = False
    auto_resume: bool = False
    started_at: int
    end_at: int
    deadline: float
    access_token: str | None = field(repr=False)
    traffic_token: str | None = field(repr=False)
    network: Network
    metadata: dict[str, str]
    envs: dict[str, str] = field(repr=False)
    watchers: dict[str, Watch] = field(default_factory=dict, repr=False)

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

    @property
    def state(self) -> Literal["running", "paused"]:
        return "paused" if self.paused else "running"

    @property
    def internet(self) -> bool:
        """Whether it reaches anything, or would."""
        return (self.life.guest.network if self.life else self.network).egress is not None

    def global_envs(self) -> dict[str, str]:
        """What every process finds in its environment; the sandbox's own facts cannot be overridden at creation."""
        facts = {"SANDBOX": "true", "SANDBOX_ID": self.sandbox_id, "TEMPLATE_ID": self.template.template_id}
        own = {f"{prefix}_{name}": value for prefix in ("E2B", "GROTTE") for name, value in facts.items()}
        return self.envs | own


def rfc3339(micros: int) -> str:
    """Unix microseconds as clients read them: UTC, six digits."""
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"
