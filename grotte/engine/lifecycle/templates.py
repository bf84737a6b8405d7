"""The templates that this engine can start: `base`, and the snapshots of sandboxes."""

from __future__ import annotations

import logging
import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from grotte.engine.faults import ControlFault
from grotte.engine.host import HostError, SandboxHost
from grotte.engine.lifecycle.ids import DEFAULT_TAG, TemplateReference, parse_template
from grotte.engine.lifecycle.store import SnapshotRow, Store

if TYPE_CHECKING:
    from grotte.engine.lifecycle.sandbox import Sandbox

log = logging.getLogger("grotte.engine")

#: The kernel takes the names of all layers in one page.
MAX_LAYERS = 40
_ALPHABET = string.ascii_lowercase + string.digits


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


class Templates:
    """What can be started, and by whom.

    Args:
        in_use: Tells which layers sandboxes stand on.
    """

    def __init__(self, host: SandboxHost, store: Store, in_use: Callable[[], set[Path]]) -> None:
        self._host = host
        self._store = store
        self._in_use = in_use
        self._snapshots: dict[str, SnapshotRow] = {row.id: row for row in store.snapshots()}

    def find(self, reference: str, owner: str) -> Template:
        """The template that an owner's reference names.

        Raises:
            ControlFault: 400, it is no reference; 404, there is no such template.
        """
        parsed = parse_template(reference)
        if (row := self._row(parsed, owner)) is not None:
            return self._template(row)
        if not _is_base(parsed):
            raise ControlFault(404, f"template '{reference.strip()[:200]}' not found")
        if parsed.tag != DEFAULT_TAG:
            raise ControlFault(404, f"template '{parsed.alias}' has no tag '{parsed.tag[:200]}'")
        return BASE

    def stored(self, template_id: str) -> Template:
        """The template of a sandbox that exists already.

        Raises:
            ControlFault: 404, it is gone.
        """
        if template_id == BASE.template_id:
            return BASE
        if template_id not in self._snapshots:
            raise ControlFault(404, "its template is gone")
        return self._template(self._snapshots[template_id])

    def snapshots(self, owner: str) -> list[SnapshotRow]:
        """An owner's snapshots, oldest first."""
        return [row for row in self._snapshots.values() if row.owner == owner and not row.hidden]

    def _row(self, parsed: TemplateReference, owner: str) -> SnapshotRow | None:
        """The newest that fits: a name may be given again."""
        if parsed.namespace is not None:
            return None
        fitting = [row for row in self.snapshots(owner) if parsed.alias in (row.id, row.name) and parsed.tag == row.tag]
        return fitting[-1] if fitting else None

    def _template(self, row: SnapshotRow) -> Template:
        return Template(row.id, row.name or row.id, tuple(self._host.layer(name) for name in (row.id, *row.below)))

    async def add(self, sandbox: Sandbox, name: str | None, *, hidden: bool) -> Template:
        """Make a snapshot of a sandbox that is at rest.

        Raises:
            ControlFault: 400, the name is malformed, or the sandbox stands on too many snapshots; 500, the machine
                could not do it.
        """
        alias, tag = _name_and_tag(name)
        below = [layer.name for layer in sandbox.template.layers]
        if len(below) >= MAX_LAYERS:
            raise ControlFault(400, f"a sandbox can stand on at most {MAX_LAYERS} snapshots")
        snapshot_id = "".join(secrets.choice(_ALPHABET) for _ in range(20))
        try:
            await self._host.copy_layer(sandbox.sandbox_id, snapshot_id)
        except HostError as error:
            raise ControlFault(500, str(error)) from None
        now = time.time_ns() // 1000
        row = SnapshotRow(snapshot_id, sandbox.owner, alias, tag, hidden, below, sandbox.sandbox_id, now)
        self._store.add_snapshot(row)
        self._snapshots[row.id] = row
        log.info("event=snapshot sandbox=%s template=%s", sandbox.sandbox_id, row.id)
        return self._template(row)

    async def delete(self, reference: str, owner: str) -> None:
        """Delete a snapshot; what other snapshots need of it stays until they go.

        Raises:
            ControlFault: 400, sandboxes stand on it, or it is no reference; 404, there is none.
        """
        parsed = parse_template(reference)
        row = self._row(parsed, owner)
        if row is None:
            if _is_base(parsed):
                raise ControlFault(400, "template 'base' is part of the engine and cannot be deleted")
            raise ControlFault(404, f"template '{reference.strip()[:200]}' not found")
        if self._host.layer(row.id) in self._in_use():
            raise ControlFault(400, f"template '{reference.strip()[:200]}' is in use by sandboxes")
        self._store.hide_snapshot(row.id)
        self._snapshots[row.id] = msgspec.structs.replace(row, hidden=True)
        await self.collect()

    async def collect(self) -> None:
        """Remove hidden snapshots on which nothing stands any more."""
        for row in [row for row in self._snapshots.values() if row.hidden]:
            needed = {name for other in self._snapshots.values() for name in other.below}
            if row.id in needed or self._host.layer(row.id) in self._in_use() or row.id not in self._snapshots:
                continue
            del self._snapshots[row.id]
            self._store.remove_snapshot(row.id)
            try:
                await self._host.remove_layer(row.id)
            except HostError as error:
                # The next start removes what no row names.
                log.error("event=layer_left template=%s reason=%s", row.id, error)  # noqa: TRY400  (no bug)


def _is_base(parsed: TemplateReference) -> bool:
    known = parsed.alias == BASE.alias and parsed.namespace in _BASE_NAMESPACES
    return known or (parsed.alias == BASE.template_id and parsed.namespace is None)


def _name_and_tag(name: str | None) -> tuple[str, str]:
    if name is None:
        return "", DEFAULT_TAG
    parsed = parse_template(name)
    if parsed.namespace is not None or _is_base(parsed):
        raise ControlFault(400, "a snapshot's name is alias[:tag], and not base")
    return parsed.alias, parsed.tag
