"""Between the control plane's JSON and what users give and get."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypedDict, cast
from urllib.parse import quote, urlencode

from msgspec import UNSET, UnsetType

from grotte._proto import arguments, control, mounts
from grotte._proto.entries import timestamp
from grotte._proto.mounts import Named
from grotte.errors import InvalidArgumentException
from grotte.models import (
    SandboxInfo,
    SandboxInfoLifecycle,
    SandboxLifecycle,
    SandboxListOrder,
    SandboxMetrics,
    SandboxNetworkOpts,
    SandboxNetworkUpdate,
    SandboxOnResume,
    SandboxQuery,
    SandboxState,
    SnapshotMode,
)

DEFAULT_TEMPLATE = "base"
#: How long a sandbox lives unless the caller says otherwise, in seconds.
DEFAULT_LIFETIME = 300
#: The longest page of a list, and of what the control plane adds to a life at once, in seconds.
MAX_PAGE = 100
#: Copies that one call makes.
MAX_FORKS = 20
MAX_REFRESH = 3600

INTERNET: Literal["allow_internet_access"] = "allow_internet_access"
_KEY = re.compile(r"[a-z0-9-]{1,255}")
_NETWORK_LISTS = ("allow_out", "deny_out", "dns_servers")
_NETWORK_NAMES = {*_NETWORK_LISTS, "allow_public_traffic", "mask_request_host", "https_ports"}


def new_sandbox(
    template: str | None,
    timeout: float | None,
    metadata: Mapping[str, str] | None,
    envs: Mapping[str, str] | None,
    *,
    secure: bool,
    allow_internet_access: bool,
    network: SandboxNetworkOpts | None,
    lifecycle: SandboxLifecycle | None,
    volume_mounts: Mapping[str, str | Named] | None,
) -> control.NewSandbox:
    """The request for a new sandbox.

    Raises:
        InvalidArgumentException: something in it cannot be right.
    """
    pause, resume = _lifecycle(lifecycle)
    return control.NewSandbox(
        template_id=DEFAULT_TEMPLATE if template is None else arguments.identifier(template, "template"),
        timeout=arguments.lifetime(DEFAULT_LIFETIME if timeout is None else timeout),
        auto_pause=pause,
        auto_resume=control.AutoResume(enabled=resume) if pause else UNSET,
        secure=_flag(secure, "secure"),
        allow_internet_access=_flag(allow_internet_access, "allow_internet_access"),
        metadata=arguments.string_map(metadata, "metadata"),
        env_vars=arguments.environment(envs),
        network=UNSET if network is None else _network(network),
        volume_mounts=mounts.volume_mounts(volume_mounts) or UNSET,
    )


def network_update(internet_access: bool, network: SandboxNetworkOpts | None) -> control.NetworkUpdate:
    """The request that replaces a sandbox's egress rules."""
    rules = control.NetworkConfig() if network is None else _network(network)
    return control.NetworkUpdate(
        allow_internet_access=_flag(internet_access, "internet_access"),
        allow_out=rules.allow_out,
        deny_out=rules.deny_out,
        dns_servers=rules.dns_servers,
    )


def network_arguments(network: SandboxNetworkUpdate) -> NetworkArguments:
    """The arguments of `set_network` for all of them in one dict."""
    if not isinstance(network, Mapping):
        raise InvalidArgumentException(f"network must be a dict, not {type(network).__name__}")
    rules = cast("SandboxNetworkOpts", {name: rule for name, rule in network.items() if name != INTERNET})
    return {"internet_access": network.get(INTERNET, True), "network": rules}


class NetworkArguments(TypedDict):
    """The arguments of `set_network`."""

    internet_access: bool
    network: SandboxNetworkOpts


def connect_lifetime(timeout: float | None) -> int:
    """What a running sandbox's life is extended to; 0 stands for the default, as it always did."""
    return arguments.lifetime(timeout or DEFAULT_LIFETIME)


def refresh_seconds(seconds: float | None, duration: float | None) -> int:
    """One number under two names."""
    if (seconds is None) == (duration is None):
        raise InvalidArgumentException("give either seconds or duration")
    value = seconds if duration is None else duration
    return arguments.whole(arguments.lifetime(value, "seconds", zero=True), "seconds", 0, MAX_REFRESH)


def idempotency_key(key: object) -> str | None:
    """What makes a repeated creation the same one."""
    if key is None:
        return None
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidArgumentException("idempotency_key must be 1 to 255 lower-case letters, digits and '-'")
    return key


def new_key() -> str:
    """An idempotency key that is used once; in the form of a sandbox's id, so that what it made can be killed by it."""
    return f"i{secrets.token_hex(10)}"


def pause_request(keep_memory: bool | None, mode: SnapshotMode | None, strict: bool) -> control.PauseRequest | None:
    """How to pause; None for as servers do by themselves."""
    memory = _with_memory(keep_memory, mode)
    healthy = True if _flag(strict, "strict") else UNSET
    if memory is UNSET and healthy is UNSET:
        return None
    return control.PauseRequest(memory=memory, require_healthy_guest=healthy)


def snapshot_request(name: str | None, mode: SnapshotMode | None) -> control.SnapshotRequest:
    """What to take a snapshot of, and what to call it."""
    called = UNSET if name is None else arguments.identifier(name, "name")
    return control.SnapshotRequest(name=called, memory=_with_memory(None, mode))


def _with_memory(keep_memory: bool | None, mode: SnapshotMode | None) -> bool | UnsetType:
    if mode is None:
        return UNSET if keep_memory is None else _flag(keep_memory, "keep_memory")
    if mode not in ("full", "filesystem"):
        raise InvalidArgumentException(f"mode must be 'full' or 'filesystem', not {arguments.shown(mode)}")
    if keep_memory is not None:
        raise InvalidArgumentException("give either keep_memory or mode")
    return mode == "full"


def reboots(on_resume: SandboxOnResume) -> bool:
    """Whether what was in memory is left behind."""
    if on_resume not in ("restore", "reboot"):
        raise InvalidArgumentException(f"on_resume must be 'restore' or 'reboot', not {arguments.shown(on_resume)}")
    return on_resume == "reboot"


def list_query(
    query: SandboxQuery | None, limit: int | None, next_token: str | None, order: SandboxListOrder | None = None
) -> dict[str, str]:
    """The parameters of one page; running sandboxes unless the query names states."""
    if not isinstance(query, SandboxQuery | None):
        raise InvalidArgumentException(f"query must be a SandboxQuery, not {type(query).__name__}")
    query = query or SandboxQuery()
    states = [SandboxState.RUNNING] if query.state is None else query.state
    try:
        found = {"state": ",".join(SandboxState(state).value for state in states)} if states else {}
    except ValueError:
        raise InvalidArgumentException(
            f"state must be a list of 'running' and 'paused', not {arguments.shown(states)}"
        ) from None
    metadata = arguments.string_map(query.metadata, "metadata")
    if metadata:
        # the server unquotes twice: the pairs, and then each key and value
        found["metadata"] = urlencode({quote(key): quote(value) for key, value in metadata.items()})
    if query.template is not None:
        found["template"] = arguments.identifier(query.template, "template")
    if query.started_after is not None:
        found["startedAfter"] = _moment(query.started_after, "started_after").isoformat()
    if order is not None:
        if order not in ("asc", "desc"):
            raise InvalidArgumentException(f"order must be 'asc' or 'desc', not {arguments.shown(order)}")
        found["order"] = order
    return found | _page_query(limit, next_token)


def _page_query(limit: int | None, next_token: str | None) -> dict[str, str]:
    found = {}
    if limit is not None:
        found["limit"] = str(arguments.whole(limit, "limit", 1, MAX_PAGE))
    if next_token is not None:
        found["nextToken"] = arguments.text(next_token, "next_token")
    return found


def _moment(value: object, name: str) -> datetime:
    """A moment; one without a time zone is local, as everywhere in Python."""
    if not isinstance(value, datetime):
        raise InvalidArgumentException(f"{name} must be a datetime, not {type(value).__name__}")
    return value.astimezone(UTC)


def snapshots_query(
    sandbox_id: str | None, limit: int | None, next_token: str | None, name: str | None = None
) -> dict[str, str]:
    """The parameters of one page of snapshots."""
    found = {}
    if name is not None:
        found["name"] = arguments.identifier(name, "name")
    if sandbox_id is not None:
        found["sandboxID"] = arguments.identifier(sandbox_id, "sandbox_id")
    return found | _page_query(limit, next_token)


def fork_request(count: int, timeout: float | None) -> control.ForkRequest:
    """So many copies, each with so long a life."""
    return control.ForkRequest(timeout=connect_lifetime(timeout), count=arguments.whole(count, "count", 1, MAX_FORKS))


def metrics_query(start: datetime | None, end: datetime | None) -> dict[str, str]:
    """The time between, in unix seconds."""
    found = {}
    for name, moment in (("start", start), ("end", end)):
        if moment is not None:
            found[name] = str(math.floor(_moment(moment, name).timestamp()))
    return found


def sandbox_info(listed: control.ListedSandbox) -> SandboxInfo:
    """What users see of an element of a list, or of all that is known of one sandbox."""
    detail = listed if isinstance(listed, control.SandboxDetail) else None
    internet = detail.allow_internet_access if detail else None
    return SandboxInfo(
        sandbox_id=listed.sandbox_id,
        sandbox_domain=detail.domain if detail else None,
        template_id=listed.template_id,
        name=listed.alias or None,
        metadata=listed.metadata or {},
        started_at=timestamp(listed.started_at),
        end_at=timestamp(listed.end_at),
        state=SandboxState(listed.state),
        cpu_count=listed.cpu_count,
        memory_mb=listed.memory_mb,
        envd_version=listed.envd_version,
        allow_internet_access=None if isinstance(internet, UnsetType) else internet,
        network=_public_network(detail.network) if detail and detail.network else None,
        lifecycle=_public_lifecycle(detail.lifecycle) if detail and detail.lifecycle else None,
        volume_mounts=[{"name": mount.name, "path": mount.path} for mount in listed.volume_mounts or ()],
        envd_unresponsive_at_pause=listed.unresponsive is True,
    )


def sandbox_metrics(metric: control.Metric) -> SandboxMetrics:
    return SandboxMetrics(
        cpu_count=metric.cpu_count,
        cpu_used_pct=metric.cpu_used_pct,
        disk_total=metric.disk_total,
        disk_used=metric.disk_used,
        mem_total=metric.mem_total,
        mem_used=metric.mem_used,
        mem_cache=metric.mem_cache,
        timestamp=timestamp(metric.timestamp),
    )


def _lifecycle(lifecycle: SandboxLifecycle | None) -> tuple[bool, bool]:
    """Whether it is paused when its time is over, and whether a request then wakes it."""
    if lifecycle is None:
        return False, False
    if not isinstance(lifecycle, Mapping) or not lifecycle.keys() <= {"on_timeout", "auto_resume"}:
        raise InvalidArgumentException("lifecycle must be a dict with 'on_timeout' and maybe 'auto_resume'")
    on_timeout = lifecycle.get("on_timeout", "kill")
    resume = _flag(lifecycle.get("auto_resume", False), "auto_resume")
    if on_timeout not in ("kill", "pause"):
        raise InvalidArgumentException(f"on_timeout must be 'kill' or 'pause', not {arguments.shown(on_timeout)}")
    if resume and on_timeout != "pause":
        raise InvalidArgumentException("auto_resume needs on_timeout='pause'")
    return on_timeout == "pause", resume


def _network(network: SandboxNetworkOpts) -> control.NetworkConfig:
    if not isinstance(network, Mapping) or not network.keys() <= _NETWORK_NAMES:
        raise InvalidArgumentException(f"network must be a dict with some of {', '.join(sorted(_NETWORK_NAMES))}")
    for name in _NETWORK_LISTS:
        rules = network.get(name, [])
        if not isinstance(rules, list) or not all(isinstance(rule, str) and rule for rule in rules):
            raise InvalidArgumentException(f"{name} must be a list of addresses and ranges")
    host, ports = network.get("mask_request_host"), network.get("https_ports", [])
    if not isinstance(ports, list):
        raise InvalidArgumentException(f"https_ports must be a list of ports, not {type(ports).__name__}")
    return control.NetworkConfig(
        allow_out=network.get("allow_out", UNSET),
        deny_out=network.get("deny_out", UNSET),
        allow_public_traffic=_flag(network.get("allow_public_traffic", True), "allow_public_traffic"),
        mask_request_host=UNSET if host is None else arguments.text(host, "mask_request_host"),
        dns_servers=network.get("dns_servers", UNSET),
        https_ports=[arguments.whole(port, "https_ports", 1, 65535) for port in ports] or UNSET,
    )


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentException(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _public_network(network: control.NetworkConfig) -> SandboxNetworkOpts:
    found: SandboxNetworkOpts = {}
    if isinstance(network.allow_out, list):
        found["allow_out"] = network.allow_out
    if isinstance(network.deny_out, list):
        found["deny_out"] = network.deny_out
    if isinstance(network.allow_public_traffic, bool):
        found["allow_public_traffic"] = network.allow_public_traffic
    if isinstance(network.mask_request_host, str):
        found["mask_request_host"] = network.mask_request_host
    if isinstance(network.dns_servers, list):
        found["dns_servers"] = network.dns_servers
    if isinstance(network.https_ports, list):
        found["https_ports"] = network.https_ports
    return found


def _public_lifecycle(lifecycle: control.Lifecycle) -> SandboxInfoLifecycle:
    return {"on_timeout": lifecycle.on_timeout, "auto_resume": lifecycle.auto_resume}
