"""The templates that this engine can start: `base`, those that were built, and the snapshots of sandboxes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from grotte.engine.builds.catalogue import BuildRow, Catalogue, TemplateRow, new_layer_id
from grotte.engine.faults import ControlFault
from grotte.engine.host import HostError, SandboxHost
from grotte.engine.lifecycle.ids import DEFAULT_TAG, TemplateReference, parse_template
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.store import SnapshotRow, Store

if TYPE_CHECKING:
    from grotte.engine.lifecycle.sandbox import Sandbox

log = logging.getLogger("grotte.engine")

#: The kernel takes the names of all layers in one page.
MAX_LAYERS = 72
NO_SETUP = Setup()


@dataclass(frozen=True, slots=True)
class Template:
    """Something that sandboxes start from.

    Attributes:
        template_id: 20 characters of ``[a-z0-9]``.
        alias: Its name among people.
        layers: Read-only directories, topmost first; none for `base`, which is made of the host's ``/usr``.
        setup: How its sandboxes are.
        build: Which of its builds it is, if it was built.
    """

    template_id: str
    alias: str
    layers: tuple[Path, ...] = ()
    setup: Setup = NO_SETUP
    build: str = ""


BASE = Template("grottebase0000000000", "base")
#: Namespaces under which other clients know their default image.
_BASE_NAMESPACES = (None, "parallactic", "e2bdev")


class Templates:
    """What can be started, and by whom.

    Args:
        in_use: Tells which templates sandboxes stand on.

    Attributes:
        catalogue: Those that were built.
    """

    def __init__(self, host: SandboxHost, store: Store, in_use: Callable[[], list[Template]]) -> None:
        self._host = host
        self._store = store
        self._in_use = in_use
        self._snapshots: dict[str, SnapshotRow] = {row.id: row for row in store.snapshots()}
        self.catalogue = Catalogue(store.database)

    def find(self, reference: str, owner: str) -> Template:
        """The template that an owner's reference names.

        Raises:
            ControlFault: 400, it is no reference; 404, there is no such template.
        """
        parsed = parse_template(reference)
        if (built := self.catalogue.template(parsed, owner)) is not None:
            return self._tagged(built, parsed)
        if (row := self._row(parsed, owner)) is not None:
            return self._template(row)
        if is_base(parsed):
            if parsed.tag != DEFAULT_TAG:
                raise _no_tag(parsed)
            return BASE
        if (built := self.catalogue.public_template(parsed)) is not None:
            return self._tagged(built, parsed)
        raise ControlFault(404, f"template '{reference.strip()[:200]}' not found")

    def _tagged(self, row: TemplateRow, reference: TemplateReference) -> Template:
        build = self.catalogue.tagged(row.id, reference.tag)
        if build is None:
            raise _no_tag(reference)
        return self.built(row, build)

    def built(self, row: TemplateRow, build: BuildRow) -> Template:
        """What a build has made, or has made so far."""
        layers = tuple(self._host.layer(name) for name in build.layers)
        return Template(row.id, row.name, layers, build.setup, build.id)

    def stored(self, template_id: str, build_id: str) -> Template:
        """The template of a sandbox that exists already.

        Raises:
            ControlFault: 404, it is gone.
        """
        if template_id == BASE.template_id:
            return BASE
        if template_id in self._snapshots:
            return self._template(self._snapshots[template_id])
        row, build = self.catalogue.template_by_id(template_id), self.catalogue.build(build_id)
        if row is None or build is None:
            raise ControlFault(404, "its template is gone")
        return self.built(row, build)

    def snapshots(self, owner: str) -> list[SnapshotRow]:
        """An owner's snapshots, oldest first."""
        return [row for row in self._snapshots.values() if row.owner == owner and not row.hidden]

    def _row(self, parsed: TemplateReference, owner: str) -> SnapshotRow | None:
        """The newest that fits."""
        if parsed.namespace is not None:
            return None
        fitting = [row for row in self.snapshots(owner) if parsed.alias in (row.id, row.name) and parsed.tag == row.tag]
        return fitting[-1] if fitting else None

    def _template(self, row: SnapshotRow) -> Template:
        layers = tuple(self._host.layer(name) for name in (row.id, *row.below))
        return Template(row.id, row.name or row.id, layers, row.setup)

    async def add(self, sandbox: Sandbox, name: str | None, *, hidden: bool) -> Template:
        """Make a snapshot of a sandbox that is at rest.

        Raises:
            ControlFault: 400, the name is malformed or a template's, or the sandbox stands on too many snapshots; 500,
                the machine could not do it.
        """
        alias, tag = _name_and_tag(name)
        if alias and self.catalogue.template(TemplateReference(None, alias, tag), sandbox.owner) is not None:
            raise ControlFault(400, f"the name '{alias}' is that of a template: no snapshot could be found by it")
        below = [layer.name for layer in sandbox.template.layers]
        if len(below) >= MAX_LAYERS:
            raise ControlFault(400, f"a sandbox can stand on at most {MAX_LAYERS} snapshots")
        snapshot_id = new_layer_id()
        try:
            await self._host.copy_layer(sandbox.sandbox_id, snapshot_id)
        except HostError as error:
            raise ControlFault(500, str(error)) from None
        now = time.time_ns() // 1000
        setup = sandbox.template.setup
        row = SnapshotRow(snapshot_id, sandbox.owner, alias, tag, hidden, below, sandbox.sandbox_id, now, setup)
        earlier = [other for other in self.snapshots(row.owner) if alias and (other.name, other.tag) == (alias, tag)]
        self._store.add_snapshot(row)
        self._snapshots[row.id] = row
        for other in earlier:
            # it stays, by its id: deleting what a name means must not bring back what it meant before
            self._store.unname_snapshot(other.id)
            self._snapshots[other.id] = msgspec.structs.replace(other, name="")
        log.info("event=snapshot sandbox=%s template=%s", sandbox.sandbox_id, row.id)
        return self._template(row)

    async def delete(self, reference: str, owner: str) -> None:
        """Delete a template or snapshot; what others need of it stays until they go.

        Raises:
            ControlFault: 400, sandboxes stand on it, or it is no reference; 404, there is none.
        """
        parsed = parse_template(reference)
        if (built := self.catalogue.template(parsed, owner)) is not None:
            await self._delete_built(built)
            return
        row = self._row(parsed, owner)
        if row is None:
            if is_base(parsed):
                raise ControlFault(400, "template 'base' is part of the engine and cannot be deleted")
            raise ControlFault(404, f"template '{reference.strip()[:200]}' not found")
        if self._host.layer(row.id) in self._layers_in_use():
            raise ControlFault(400, f"template '{reference.strip()[:200]}' is in use by sandboxes")
        self._store.hide_snapshot(row.id)
        self._snapshots[row.id] = msgspec.structs.replace(row, hidden=True)
        await self.collect()

    async def _delete_built(self, row: TemplateRow) -> None:
        if any(template.template_id == row.id for template in self._in_use()):
            raise ControlFault(400, f"template '{row.name}' is in use by sandboxes")
        self.catalogue.remove_template(row.id)
        await self.collect()

    async def collect(self) -> None:
        """Remove hidden snapshots, and layers of builds, on which nothing stands any more."""
        await self._collect_snapshots()
        used = {layer.name for layer in self._layers_in_use()} | self.catalogue.needed_layers()
        used |= {name for row in self._snapshots.values() for name in row.below}
        for name in self.catalogue.layers() - used:
            if name in self.catalogue.layers():
                self.catalogue.remove_layer(name)
                await self._remove_layer(name)

    def _layers_in_use(self) -> set[Path]:
        return {layer for template in self._in_use() for layer in template.layers}

    async def _collect_snapshots(self) -> None:
        for row in [row for row in reversed(self._snapshots.values()) if row.hidden]:  # what stands on others first
            needed = {name for other in self._snapshots.values() for name in other.below}
            if row.id in needed or self._host.layer(row.id) in self._layers_in_use() or row.id not in self._snapshots:
                continue
            del self._snapshots[row.id]
            self._store.remove_snapshot(row.id)
            await self._remove_layer(row.id)

    async def _remove_layer(self, name: str) -> None:
        try:
            await self._host.remove_layer(name)
        except HostError as error:
            # The next start removes what no row names.
            log.error("event=layer_left layer=%s reason=%s", name, error)  # noqa: TRY400  (no bug)


def _no_tag(parsed: TemplateReference) -> ControlFault:
    return ControlFault(404, f"template '{parsed.alias}' has no tag '{parsed.tag[:200]}' that is ready")


def is_base(parsed: TemplateReference) -> bool:
    """Whether a reference means what this engine has without building it."""
    known = parsed.alias == BASE.alias and parsed.namespace in _BASE_NAMESPACES
    return known or (parsed.alias == BASE.template_id and parsed.namespace is None)


def _name_and_tag(name: str | None) -> tuple[str, str]:
    if name is None:
        return "", DEFAULT_TAG
    parsed = parse_template(name)
    if parsed.namespace is not None or is_base(parsed):
        raise ControlFault(400, "a snapshot's name is alias[:tag], and not base")
    return parsed.alias, parsed.tag
