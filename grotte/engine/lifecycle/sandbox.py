"""One running sandbox, as the engine knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from grotte.engine.host import Guest, Limits
from grotte.engine.lifecycle.templates import Template
from grotte.engine.processes.table import ProcessTable

#: What `base` runs commands as.
DEFAULT_USER = "user"


@dataclass(slots=True, kw_only=True)
class Order:
    """A sandbox that somebody asked for, checked.

    Attributes:
        timeout: Seconds to live.
    """

    owner: str
    template: Template
    timeout: int
    secure: bool
    private_traffic: bool
    internet: bool
    metadata: dict[str, str]
    envs: dict[str, str]


@dataclass(slots=True, eq=False, kw_only=True)
class Sandbox:
    """A live sandbox.

    Attributes:
        started_at: Unix microseconds.
        end_at: Unix microseconds, for people to read.
        deadline: The same moment on the event loop's clock, which no clock change moves.
    """

    sandbox_id: str
    owner: str
    template: Template
    guest: Guest
    processes: ProcessTable
    limits: Limits
    started_at: int
    end_at: int
    deadline: float
    access_token: str | None = field(repr=False)
    traffic_token: str | None = field(repr=False)
    internet: bool
    metadata: dict[str, str]
    envs: dict[str, str] = field(repr=False)

    @property
    def alive(self) -> bool:
        return not self.guest.closed.is_set()

    def global_envs(self) -> dict[str, str]:
        """What every process finds in its environment; the sandbox's own facts cannot be overridden at creation."""
        facts = {"SANDBOX": "true", "SANDBOX_ID": self.sandbox_id, "TEMPLATE_ID": self.template.template_id}
        own = {f"{prefix}_{name}": value for prefix in ("E2B", "GROTTE") for name, value in facts.items()}
        return self.envs | own


def rfc3339(micros: int) -> str:
    """Unix microseconds as clients read them: UTC, six digits."""
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"
