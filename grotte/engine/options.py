"""What `serve` can be told."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from grotte._local import EngineAddress
from grotte.engine.host.spec import Limits
from grotte.engine.images.sources import ImageMap
from grotte.errors import EngineUnavailableException

#: How long an engine on demand waits for a client unless told otherwise, in seconds.
IDLE_SECONDS = 15.0


def idle_seconds() -> float:
    """What ``GROTTE_ENGINE_IDLE_SECONDS`` says, or the default.

    Raises:
        EngineUnavailableException: it is no number of seconds.
    """
    text = os.environ.get("GROTTE_ENGINE_IDLE_SECONDS")
    try:
        seconds = float(text) if text else IDLE_SECONDS
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise EngineUnavailableException("GROTTE_ENGINE_IDLE_SECONDS must be a number of seconds")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How an engine serves.

    Attributes:
        host: The address to listen on.
        port: The TCP port; 0 takes a free one.
        data_dir: Where state and sandboxes live; created if missing, held by one engine at a time.
        api_keys: Keys that the control plane accepts; each sees its own sandboxes only.
        on_demand: Publish the address for this user's processes and exit when nobody needs the engine.
        ready_fd: A descriptor that gets one JSON line, the address or the reason why there is none.
        domain: The domain that answers tell clients to build hosts of; None lets clients keep their own.
        max_sandboxes: How many may run at once.
        spares: How many sandboxes of each kind that is in use stand ready for the next creations; 0 for none.
        max_timeout: The longest life that a sandbox may ask for, in seconds.
        images: What names of images mean here.
        disk_bytes: How much each sandbox may write; 0 for as much as the disk takes.
        own_disks: Each gets a file system of that size; otherwise it is measured, and stopped beyond it.
        disk_reserve: Bytes of the disk that stay free, whatever sandboxes may write; None for a part of it, 0 for none.
        idle_seconds: How long an engine on demand waits for a client, in seconds.
        on_ready: Called once with the address when connections are accepted.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 3000
    api_keys: tuple[str, ...] = field(repr=False)
    on_demand: bool = False
    ready_fd: int | None = None
    domain: str | None = None
    max_sandboxes: int = 1000
    spares: int = 2
    max_timeout: int = 86400
    images: ImageMap = field(default_factory=ImageMap)
    disk_bytes: int = Limits().disk_bytes
    own_disks: bool = False
    disk_reserve: int | None = None
    idle_seconds: float = field(default_factory=idle_seconds)
    on_ready: Callable[[EngineAddress], None] | None = None
