"""What a template tells the sandboxes that start from it, besides its files."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from grotte.engine.host import Limits
from grotte.engine.host.spec import MIB


class Setup(msgspec.Struct, frozen=True, omit_defaults=True):
    """How its sandboxes are.

    Attributes:
        on_host_usr: Its layers stand on `base`, not on an image that brings everything.
        user: Whom processes run as, unless they are told.
        workdir: Where they start; nothing for the user's home.
        envs: What they find in their environment.
        start_cmd: What runs in every sandbox from its start on.
        ready_cmd: What succeeds once that is ready.
        cpus: Processors; 0 for the engine's default.
        memory_mb: Memory in MiB; 0 for the engine's default.
    """

    on_host_usr: bool = True
    user: str = "user"
    workdir: str = ""
    envs: dict[str, str] = {}
    start_cmd: str = ""
    ready_cmd: str = ""
    cpus: int = 0
    memory_mb: int = 0

    def limits(self, default: Limits) -> Limits:
        """What a sandbox may use."""
        memory = self.memory_mb * MIB if self.memory_mb else default.memory_bytes
        return replace(default, memory_bytes=memory, cpus=float(self.cpus or default.cpus))
