"""What a client may ask a new sandbox to be."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from grotte._proto.control import AutoResume, NewSandbox
from grotte.engine.control.mounts import read_mounts
from grotte.engine.control.network import read_network
from grotte.engine.faults import ControlFault, not_offered
from grotte.engine.lifecycle.sandbox import Order
from grotte.engine.lifecycle.templates import Templates
from grotte.engine.lifecycle.volumes import Volumes

#: Fields that change what a sandbox is, and that this engine cannot honour: refused, never ignored.
_NOT_OFFERED_FIELDS = ("mcp", "iam")


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


def read_flag(fields: dict[str, Any], name: str) -> bool | None:
    """A field that is true, false, or not there.

    Raises:
        ControlFault: 400, it is something else.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise ControlFault(400, f"{name} must be true or false")
    return value


def read_order(
    fields: dict[str, Any],
    owner: str,
    templates: Templates,
    volumes: Volumes,
    *,
    default_timeout: int,
    max_timeout: int,
    always_secure: bool,
) -> Order:
    """Check a request for a sandbox.

    Raises:
        ControlFault: 400 for what makes no sense, 404 for an unknown template, 501 for what is not offered.
    """
    try:
        asked = msgspec.convert({k: v for k, v in fields.items() if v is not None}, NewSandbox)
    except msgspec.ValidationError as error:
        raise ControlFault(400, f"invalid request: {error}") from None
    _refuse_unsupported(fields, asked)  # before the template, which may be one for that alone
    template = templates.find(asked.template_id, owner)
    secure = always_secure or bool(asked.secure)
    network = read_network(fields, asked)
    if not network.allow_public_traffic and not secure:
        raise ControlFault(400, "public access can be turned off for secure sandboxes only")
    return Order(
        owner=owner,
        template=template,
        timeout=check_timeout(default_timeout if asked.timeout is UNSET else asked.timeout, max_timeout),
        secure=secure,
        network=network,
        auto_pause=asked.auto_pause is True,
        auto_pause_memory=asked.auto_pause_memory is not False,
        auto_resume=_auto_resume(asked),
        mounts=read_mounts(asked.volume_mounts or (), owner, volumes),
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
    if asked.auto_pause_memory is False:
        if not asked.auto_pause:
            raise ControlFault(400, "autoPauseMemory needs autoPause")
        if _auto_resume(asked):
            raise ControlFault(400, "autoPauseMemory: false does not go with autoResume")
    for name in _NOT_OFFERED_FIELDS:
        if fields.get(name):
            raise not_offered(name)


def _auto_resume(asked: NewSandbox) -> bool:
    return isinstance(asked.auto_resume, AutoResume) and asked.auto_resume.enabled


def _checked_envs(envs: dict[str, str]) -> dict[str, str]:
    for name, value in envs.items():
        if not name or "=" in name or "\0" in name:
            raise ControlFault(400, "envVars: a name is empty, or holds '=' or NUL")
        if "\0" in value:
            raise ControlFault(400, f"envVars: the value of {name[:100]} holds NUL")
    return envs
