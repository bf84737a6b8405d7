"""What a build is to be made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from grotte.engine.builds.steps import Step, read_steps
from grotte.engine.faults import ControlFault
from grotte.engine.images.reference import ImageError, parse_image

#: What other clients call the image that is `base` here.
BASE_IMAGES = frozenset({"", "base", "parallactic/base", "e2bdev/base"})
MAX_COMMAND = 64 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may pull from a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A build, checked.

    Attributes:
        image: Where it starts, as a registry or the configuration knows it; nothing for `base`.
        template: Where it starts instead, if it starts from a template.
        steps: What is done then.
        start_cmd: What runs in every sandbox; None for what the template has.
        ready_cmd: What succeeds when that is ready; None for what the template has.
        force: Nothing is taken from the cache.
    """

    image: str
    template: str
    credentials: Credentials | None
    steps: list[Step]
    start_cmd: str | None
    ready_cmd: str | None
    force: bool


class WireBuild(msgspec.Struct, rename="camel"):
    """``POST /v2/templates/{id}/builds/{build}``; unknown fields are ignored."""

    from_image: str | None = None
    from_template: str | None = None
    from_image_registry: dict[str, Any] | None = None
    start_cmd: str | None = None
    ready_cmd: str | None = None
    steps: list[dict[str, Any]] | None = None
    force: bool | None = None


def read_build(fields: dict[str, Any]) -> BuildRequest:
    """Check a request for a build.

    Raises:
        ControlFault: 400, it makes no sense; 501, it wants credentials of a kind that is not offered.
    """
    try:
        wire = msgspec.convert(fields, WireBuild)
    except msgspec.ValidationError as error:
        raise ControlFault(400, f"invalid request: {error}") from None
    if wire.from_image and wire.from_template:
        raise ControlFault(400, "a template starts from an image or from a template, not from both")
    for name, command in (("startCmd", wire.start_cmd), ("readyCmd", wire.ready_cmd)):
        if command and (len(command) > MAX_COMMAND or "\0" in command):
            raise ControlFault(400, f"{name} is too long, or holds NUL")
    return BuildRequest(
        image=_image(wire.from_image or ""),
        template=(wire.from_template or "").strip(),
        credentials=_credentials(wire.from_image_registry),
        steps=read_steps(wire.steps),
        start_cmd=wire.start_cmd or None,
        ready_cmd=wire.ready_cmd or None,
        force=wire.force is True,
    )


def _image(name: str) -> str:
    name = name.strip()
    if re.sub(r":(latest|default)$", "", name) in BASE_IMAGES:
        return ""
    try:
        parse_image(name)
    except ImageError as error:
        raise ControlFault(400, str(error)) from None
    return name


def _credentials(given: dict[str, Any] | None) -> Credentials | None:
    if not given:
        return None
    kind = given.get("type", "registry")
    if kind in ("aws", "gcp"):
        raise ControlFault(501, f"registry credentials of type '{kind}' are not offered by this engine: make a token of"
                                " them, and send that as type 'registry'")  # fmt: skip
    name, password = given.get("username"), given.get("password")
    if kind != "registry" or not isinstance(name, str) or not isinstance(password, str) or not name or ":" in name:
        raise ControlFault(400, "fromImageRegistry must be of type 'registry', with a username and a password")
    return Credentials(name, password)
