"""The templates that this engine can start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grotte.engine.faults import ControlFault
from grotte.engine.lifecycle.ids import DEFAULT_TAG, parse_template


@dataclass(frozen=True, slots=True)
class Template:
    """Something that sandboxes start from.

    Attributes:
        template_id: 20 characters of ``[a-z0-9]``.
        alias: Its name among people.
        layers: Read-only directories, topmost first; none for `base`, which is made of the host's ``/usr``.
    """

    template_id: str
    alias: str
    layers: tuple[Path, ...] = ()


BASE = Template("grottebase0000000000", "base")
#: Namespaces under which other clients know their default image.
_BASE_NAMESPACES = (None, "parallactic", "e2bdev")


def find_template(reference: str) -> Template:
    """The template that a reference names.

    Raises:
        ControlFault: 400, it is no reference; 404, there is no such template.
    """
    parsed = parse_template(reference)
    known = parsed.alias == BASE.alias and parsed.namespace in _BASE_NAMESPACES
    known = known or (parsed.alias == BASE.template_id and parsed.namespace is None)
    if not known:
        raise ControlFault(404, f"template '{reference.strip()[:200]}' not found")
    if parsed.tag != DEFAULT_TAG:
        raise ControlFault(404, f"template '{parsed.alias}' has no tag '{parsed.tag[:200]}'")
    return BASE
