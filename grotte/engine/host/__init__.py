"""Isolation: sandboxes on this machine, and the link to the guest in each."""

from __future__ import annotations

from .diagnose import diagnose, explain
from .guest import Guest, SpawnedProcess
from .host import SandboxHost
from .spec import (
    Check,
    Entry,
    ExitStatus,
    GuestError,
    HostError,
    Limits,
    OpenedFile,
    SandboxSpec,
    SpawnRequest,
    UploadSlot,
    UserEntry,
)

__all__ = [
    "Check",
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
    "UploadSlot",
    "UserEntry",
    "diagnose",
    "explain",
]
