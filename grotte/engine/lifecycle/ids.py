"""Names on the wire: sandbox ids and template references."""

from __future__ import annotations

import re
import secrets
import string
import uuid
from dataclasses import dataclass

from grotte.engine.faults import ControlFault

_ALPHABET = string.ascii_lowercase + string.digits
_SANDBOX_ID = re.compile(r"i[a-z0-9]{20}")
#: The client id may be anything that a host label holds: composites are read, never written, by today's clients.
_COMPOSITE = re.compile(r"(i[a-z0-9]{20})(?:-[A-Za-z0-9_-]*)?")
_NAME = re.compile(r"[a-z0-9_-]+")
_TAG = re.compile(r"[a-z0-9_.-]+")

DEFAULT_TAG = "default"


@dataclass(frozen=True, slots=True)
class TemplateReference:
    """``[namespace/]alias[:tag]``, normalised."""

    namespace: str | None
    alias: str
    tag: str


def new_sandbox_id() -> str:
    number, letters = secrets.randbelow(len(_ALPHABET) ** 20), []
    for _ in range(20):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return "i" + "".join(letters)


def plain_sandbox_id(text: str) -> str | None:
    """The sandbox id of ``{id}`` or ``{id}-{client}``; None if it is neither."""
    match = _COMPOSITE.fullmatch(text)
    return match.group(1) if match else None


def parse_template(text: str) -> TemplateReference:
    """Read a template reference.

    Raises:
        ControlFault: 400, it is none.
    """
    name, _, tag = text.strip().lower().partition(":")
    namespace, slash, alias = name.rpartition("/")
    parts_fit = _NAME.fullmatch(alias) and (not slash or _NAME.fullmatch(namespace))
    tag_fits = ":" not in text or (_TAG.fullmatch(tag) and not _is_uuid(tag))
    if not parts_fit or not tag_fits:
        raise ControlFault(400, "invalid template reference: expected [namespace/]alias[:tag]")
    return TemplateReference(namespace if slash else None, alias, tag or DEFAULT_TAG)


def check_tag(text: str) -> str:
    """A tag, normalised.

    Raises:
        ControlFault: 400, it is none.
    """
    tag = text.strip().lower()
    if not _TAG.fullmatch(tag) or _is_uuid(tag):
        raise ControlFault(400, f"invalid tag {text[:200]!r}: expected [a-z0-9-_.]+, and no UUID")
    return tag


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
