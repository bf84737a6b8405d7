"""What a client may ask a new sandbox to be."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from grotte._proto.control import NetworkConfig, NewSandbox
from grotte.engine.faults import ControlFault, not_offered
from grotte.engine.lifecycle.sandbox import Order
from grotte.engine.lifecycle.templates import find_template

#: Fields that change what a sandbox is, and that this engine cannot honour: refused, never ignored.
_NOT_OFFERED_FIELDS = ("mcp", "iam", "volumeMounts")
_NOT_OFFERED_NETWORK = ("allowOut", "egressProxy", "rules", "dnsServers", "httpsPorts", "maskRequestHost")


def read_json(body: bytes, *, required: bool = True) -> dict[str, Any]:
    """A request's JSON object.

    Raises:
        ControlFault: 400, it is none.
    """
    if not body.strip() and not required:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ControlFault(400, "the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise ControlFault(400, "the body must be a JSON object")
    return value


def read_order(
    fields: dict[str, Any], owner: str, *, default_timeout: int, max_timeout: int, always_secure: bool
) -> Order:
    """Check a request for a sandbox.

    Raises:
        ControlFault: 400 for what makes no sense, 404 for an unknown template, 501 for what is not offered.
    """
    try:
        asked = msgspec.convert({k: v for k, v in fields.items() if v is not None}, NewSandbox)
    except msgspec.ValidationError as error:
        raise ControlFault(400, f"invalid request: {error}") from None
    template = find_template(asked.template_id)
    _refuse_unsupported(fields, asked)
    secure = always_secure or bool(asked.secure)
    private = isinstance(asked.network, NetworkConfig) and asked.network.allow_public_traffic is False
    if private and not secure:
        raise ControlFault(400, "public access can be turned off for secure sandboxes only")
    return Order(
        owner=owner,
        template=template,
        timeout=check_timeout(default_timeout if asked.timeout is UNSET else asked.timeout, max_timeout),
        secure=secure,
        private_traffic=private,
        internet=asked.allow_internet_access is not False,
        metadata=asked.metadata or {},
        envs=_checked_envs(asked.env_vars or {}),
    )


def check_timeout(seconds: int, max_timeout: int) -> int:
    """A sandbox's life in seconds.

    Raises:
        ControlFault: 400, it is not positive or too long.
    """
    if seconds <= 0:
        raise ControlFault(400, "the timeout must be greater than 0 seconds")
    if seconds > max_timeout:
        raise ControlFault(400, f"the timeout cannot be greater than {max_timeout} seconds")
    return seconds


def _refuse_unsupported(fields: dict[str, Any], asked: NewSandbox) -> None:
    auto_resume = asked.auto_resume if asked.auto_resume not in (UNSET, None) else None
    if asked.auto_pause_memory is False and not asked.auto_pause:
        raise ControlFault(400, "autoPauseMemory needs autoPause")
    if asked.auto_pause or (auto_resume and auto_resume.enabled):
        raise not_offered("autoPause")
    for name in _NOT_OFFERED_FIELDS:
        if fields.get(name):
            raise not_offered(name)
    network = fields.get("network") or {}
    for name in _NOT_OFFERED_NETWORK:
        if network.get(name):
            raise not_offered(f"network.{name}")


def _checked_envs(envs: dict[str, str]) -> dict[str, str]:
    for name, value in envs.items():
        if not name or "=" in name or "\0" in name:
            raise ControlFault(400, "envVars: a name is empty, or holds '=' or NUL")
        if "\0" in value:
            raise ControlFault(400, f"envVars: the value of {name[:100]} holds NUL")
    return envs
