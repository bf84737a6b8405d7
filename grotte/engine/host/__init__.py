"""Isolation: sandboxes on this machine, and the link to the guest in each."""

from __future__ import annotations

from .diagnose import diagnose, explain, why_no_disks
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
    Mount,
    OpenedFile,
    SandboxSpec,
    SpawnRequest,
    TerminalSize,
    UploadSlot,
    UserEntry,
)
from .standalone.accounts import PATH
from .usage import Usage
from .volumes import VolumeEntry, VolumeKeeper, VolumeUpload
from .watch import Watch, WatchEvent

__all__ = [
    "PATH",
    "Check",
    "Egress",
    "Entry",
    "ExitStatus",
    "Guest",
    "GuestError",
    "HostError",
    "Limits",
    "Mount",
    "OpenedFile",
    "SandboxHost",
    "SandboxSpec",
    "SpawnRequest",
    "SpawnedProcess",
    "TerminalSize",
    "UploadSlot",
    "Usage",
    "UserEntry",
    "VolumeEntry",
    "VolumeKeeper",
    "VolumeUpload",
    "Watch",
    "WatchEvent",
    "diagnose",
    "explain",
    "why_no_disks",
]
