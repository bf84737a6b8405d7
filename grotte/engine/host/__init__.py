"""Isolation: sandboxes on this machine, and the link to the guest in each."""

from __future__ import annotations

from .diagnose import diagnose, explain
from .guest import Guest, SpawnedProcess
from .host import SandboxHost
from .spec import (
    Check,
    Egress,
    Entry,
    ExitStatus,
    GuestError,
    HostError,
    Limits,
    OpenedFile,
    SandboxSpec,
    SpawnRequest,
    TerminalSize,
    UploadSlot,
    UserEntry,
)
from .watch import Watch, WatchEvent

__all__ = [
    "Check",
    "Egress",
    "Entry",
    "ExitStatus",
    "Guest",
    "GuestError",
    "HostError",
    "Limits",
    "OpenedFile",
    "SandboxHost",
    "SandboxSpec",
    "SpawnRequest",
    "SpawnedProcess",
    "TerminalSize",
    "UploadSlot",
    "UserEntry",
    "Watch",
    "WatchEvent",
    "diagnose",
    "explain",
]
