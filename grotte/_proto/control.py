"""The control plane's JSON: requests and answers of ``/sandboxes`` and its kin, as the wire has them."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

SandboxState = Literal["running", "paused"]
OnTimeout = Literal["kill", "pause"]


class ControlMessage(Struct, omit_defaults=False, kw_only=True):
    """Unknown fields are ignored; a field that is UNSET is left out, one that is None is written as null."""


class AutoResume(ControlMessage, kw_only=True):
    enabled: bool = False


class VolumeMount(ControlMessage, kw_only=True):
    name: str
    path: str


class NetworkConfig(ControlMessage, rename="camel", kw_only=True):
    allow_out: list[str] | UnsetType | None = UNSET
    deny_out: list[str] | UnsetType | None = UNSET
    allow_public_traffic: bool | UnsetType | None = UNSET
    mask_request_host: str | UnsetType | None = UNSET
    dns_servers: list[str] | UnsetType | None = UNSET
    https_ports: list[int] | UnsetType | None = UNSET


class NewSandbox(ControlMessage, kw_only=True):
    """``POST /sandboxes`` and ``POST /v2/sandboxes``; mind the one snake_case name."""

    template_id: str = msgspec.field(name="templateID")
    timeout: int | UnsetType = UNSET
    auto_pause: bool | UnsetType = msgspec.field(default=UNSET, name="autoPause")
    auto_pause_memory: bool | UnsetType = msgspec.field(default=UNSET, name="autoPauseMemory")
    auto_resume: AutoResume | UnsetType | None = msgspec.field(default=UNSET, name="autoResume")
    secure: bool | UnsetType = UNSET
    allow_internet_access: bool | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType | None = UNSET
    env_vars: dict[str, str] | UnsetType | None = msgspec.field(default=UNSET, name="envVars")
    network: NetworkConfig | UnsetType | None = UNSET
    volume_mounts: list[VolumeMount] | UnsetType | None = msgspec.field(default=UNSET, name="volumeMounts")


class Sandbox(ControlMessage, kw_only=True):
    """The answer of create, connect and resume. The three nullable fields are always written: see the protocol's
    nullability traps."""

    template_id: str = msgspec.field(name="templateID")
    sandbox_id: str = msgspec.field(name="sandboxID")
    client_id: str = msgspec.field(default="", name="clientID")
    envd_version: str = msgspec.field(name="envdVersion")
    alias: str | UnsetType | None = UNSET
    envd_access_token: str | None = msgspec.field(default=None, name="envdAccessToken")
    traffic_access_token: str | None = msgspec.field(default=None, name="trafficAccessToken")
    domain: str | None = None


class Lifecycle(ControlMessage, kw_only=True):
    auto_resume: bool = msgspec.field(default=False, name="autoResume")
    on_timeout: OnTimeout = msgspec.field(default="kill", name="onTimeout")


class ListedSandbox(ControlMessage, kw_only=True):
    """An element of ``GET /v2/sandboxes``."""

    template_id: str = msgspec.field(name="templateID")
    sandbox_id: str = msgspec.field(name="sandboxID")
    client_id: str = msgspec.field(default="", name="clientID")
    started_at: str = msgspec.field(name="startedAt")
    end_at: str = msgspec.field(name="endAt")
    state: SandboxState
    cpu_count: int = msgspec.field(name="cpuCount")
    memory_mb: int = msgspec.field(name="memoryMB")
    disk_size_mb: int = msgspec.field(default=0, name="diskSizeMB")
    envd_version: str = msgspec.field(name="envdVersion")
    alias: str | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType | None = UNSET
    volume_mounts: list[VolumeMount] | UnsetType | None = msgspec.field(default=UNSET, name="volumeMounts")
    unresponsive: bool | UnsetType | None = msgspec.field(default=UNSET, name="envdUnresponsiveAtPause")


class SandboxDetail(ListedSandbox, kw_only=True):
    """``GET /sandboxes/{id}``."""

    envd_access_token: str | None = msgspec.field(default=None, name="envdAccessToken")
    allow_internet_access: bool | UnsetType | None = msgspec.field(default=UNSET, name="allowInternetAccess")
    domain: str | None = None
    network: NetworkConfig | UnsetType | None = UNSET
    lifecycle: Lifecycle | UnsetType | None = UNSET


class TimeoutRequest(ControlMessage, kw_only=True):
    """``POST /sandboxes/{id}/timeout`` and the connects, in seconds."""

    timeout: int | UnsetType = UNSET
    memory: bool | UnsetType = UNSET


class PauseRequest(ControlMessage, rename="camel", kw_only=True):
    """``POST /sandboxes/{id}/pause``; may be left out altogether."""

    memory: bool | UnsetType = UNSET
    require_healthy_guest: bool | UnsetType = UNSET


class SnapshotRequest(ControlMessage, kw_only=True):
    """``POST /sandboxes/{id}/snapshots``."""

    name: str | UnsetType = UNSET
    memory: bool | UnsetType = UNSET


class ErrorBody(ControlMessage, kw_only=True):
    """Every error of the control plane carries both fields: clients read them without a default."""

    code: int
    message: str
    error_code: str | UnsetType = UNSET


class RefreshRequest(ControlMessage, kw_only=True):
    """``POST /sandboxes/{id}/refreshes``, in seconds."""

    duration: int | UnsetType = UNSET


class NetworkUpdate(ControlMessage, kw_only=True):
    """``PUT /sandboxes/{id}/network``: replaces what was said before; one name is snake_case, as in `NewSandbox`."""

    allow_out: list[str] | UnsetType | None = msgspec.field(default=UNSET, name="allowOut")
    deny_out: list[str] | UnsetType | None = msgspec.field(default=UNSET, name="denyOut")
    dns_servers: list[str] | UnsetType | None = msgspec.field(default=UNSET, name="dnsServers")
    allow_internet_access: bool | UnsetType = UNSET


class Snapshot(ControlMessage, kw_only=True):
    """The answer of ``POST /sandboxes/{id}/snapshots``."""

    snapshot_id: str = msgspec.field(name="snapshotID")
    names: list[str] = msgspec.field(default_factory=list)


class ForkRequest(ControlMessage, kw_only=True):
    """``POST /sandboxes/{id}/fork``."""

    timeout: int
    count: int


class Fork(ControlMessage, kw_only=True):
    """An element of its answer: one of the two."""

    sandbox: Sandbox | None = None
    error: ErrorBody | None = None


class Metric(ControlMessage, rename="camel", kw_only=True):
    """An element of ``GET /sandboxes/{id}/metrics``."""

    timestamp: str
    cpu_count: int
    cpu_used_pct: float
    mem_used: int
    mem_total: int
    mem_cache: int = 0
    disk_used: int
    disk_total: int
