"""Templates by name: list, describe, publish, delete."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from grotte.engine.builds.catalogue import BuildRow, Catalogue, TemplateRow
from grotte.engine.builds.queue import Builds
from grotte.engine.control.creation import read_json
from grotte.engine.control.pages import read_page
from grotte.engine.control.routes import Routes
from grotte.engine.control.sandboxes import ENVD_VERSION, MAX_BODY, MIB
from grotte.engine.faults import ControlFault
from grotte.engine.host import Limits
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import parse_template
from grotte.engine.lifecycle.sandbox import rfc3339
from grotte.engine.lifecycle.templates import BASE, Templates, is_base

Json = dict[str, Any]


class TemplateArea:
    """The handlers behind ``/templates``.

    Args:
        templates: What there is.
        builds: What is under way.
        limits: What sandboxes may use, unless their template says otherwise.
    """

    def __init__(self, templates: Templates, builds: Builds, limits: Limits) -> None:
        self._limits = limits
        self._templates = templates
        self._catalogue = templates.catalogue
        self._builds = builds

    def routes(self) -> Routes:
        return {
            "GET /templates": self.list_all,
            "GET /v2/templates": self.list_pages,
            "GET /default-templates": self.list_defaults,
            "GET /templates/*": self.get,
            "DELETE /templates/*": self.delete,
            "PATCH /templates/*": self.update,
            "PATCH /v2/templates/*": self.update,
            "GET /templates/aliases/*": self.find_alias,
        }

    async def list_all(self, request: Request, owner: str) -> None:
        await request.reply_json(200, [self._shown(row) for row in self._catalogue.templates(owner)])

    async def list_pages(self, request: Request, owner: str) -> None:
        rows, more = read_page(request.query, self._catalogue.templates(owner))
        await request.reply_json(200, [self._shown(row) for row in rows], more)

    async def list_defaults(self, request: Request, owner: str) -> None:
        await request.reply_json(200, [_base(self._limits)])

    async def get(self, request: Request, owner: str, reference: str) -> None:
        parsed = parse_template(unquote(reference))
        row = self._catalogue.template(parsed, owner)
        if row is None and is_base(parsed):
            await request.reply_json(200, _base(self._limits) | {"builds": []})
            return
        row = row or self._catalogue.public_template(parsed)
        if row is None:
            raise ControlFault(404, f"template '{unquote(reference)[:200]}' not found")
        builds, more = read_page(request.query, self._catalogue.builds(row.id))
        shown = self._shown(row) | {"builds": [_build(build, self._limits) for build in builds]}
        await request.reply_json(200, shown, more)

    async def delete(self, request: Request, owner: str, reference: str) -> None:
        """Delete a template, with whatever is being built of it, or a snapshot."""
        reference = unquote(reference)
        row = self._catalogue.template(parse_template(reference), owner)
        if row is not None:
            await self._builds.cancel(row.id)
        await self._templates.delete(reference, owner)
        await request.reply(204)

    async def update(self, request: Request, owner: str, reference: str) -> None:
        public = read_json(await request.body(MAX_BODY)).get("public")
        row = own_template(self._catalogue, owner, reference)
        if public is not None:
            if not isinstance(public, bool):
                raise ControlFault(400, "public must be true or false")
            self._catalogue.set_public(row.id, public)
        await request.reply_json(200, {"names": [row.name]})

    async def find_alias(self, request: Request, owner: str, alias: str) -> None:
        parsed = parse_template(unquote(alias))
        row = self._catalogue.template(parsed, owner)
        if row is not None and ":" not in unquote(alias):
            await request.reply_json(200, {"templateID": row.id, "public": row.public})
            return
        found = self._templates.find(unquote(alias), owner)
        row = self._catalogue.template_by_id(found.template_id)
        public = row.public if row else found is BASE
        await request.reply_json(200, {"templateID": found.template_id, "public": public})

    def _shown(self, row: TemplateRow) -> Json:
        builds = self._catalogue.builds(row.id)
        # what sandboxes start from, if there is anything
        latest = next((build for build in builds if build.status == "ready"), builds[0])
        return _named(row.id, row.name) | _sizes(latest, self._limits) | {
            "buildID": latest.id,
            "public": row.public,
            "createdAt": rfc3339(row.made_at),
            "updatedAt": rfc3339(row.changed_at),
            "createdBy": None,
            "lastSpawnedAt": rfc3339(row.spawned_at) if row.spawned_at else None,
            "spawnCount": row.spawned,
            "buildCount": len(builds),
            "envdVersion": ENVD_VERSION,
            "buildStatus": latest.status,
        }  # fmt: skip


def own_template(catalogue: Catalogue, owner: str, reference: str) -> TemplateRow:
    """An owner's template, by the segment of a path.

    Raises:
        ControlFault: 400, it is no reference; 404, there is none.
    """
    row = catalogue.template(parse_template(unquote(reference)), owner)
    if row is None:
        raise ControlFault(404, f"template '{unquote(reference)[:200]}' not found")
    return row


def _named(template_id: str, name: str) -> Json:
    return {"templateID": template_id, "names": [name], "aliases": [name]}


def _sizes(build: BuildRow, default: Limits) -> Json:
    return _shown_limits(build.setup.limits(default))


def _shown_limits(limits: Limits) -> Json:
    return {
        "cpuCount": int(limits.cpus),
        "memoryMB": limits.memory_bytes // MIB,
        "diskSizeMB": limits.disk_bytes // MIB,
    }


def _build(build: BuildRow, default: Limits) -> Json:
    ended = {"finishedAt": rfc3339(build.ended_at)} if build.ended_at else {}
    times = {"createdAt": rfc3339(build.made_at), "updatedAt": rfc3339(build.changed_at)} | ended
    return {"buildID": build.id, "status": build.status, "envdVersion": ENVD_VERSION} | times | _sizes(build, default)


def _base(limits: Limits) -> Json:
    """What the engine has without building it."""
    never = rfc3339(0)
    return (
        _named(BASE.template_id, BASE.alias)
        | _shown_limits(limits)
        | {
            "buildID": "00000000-0000-0000-0000-000000000000",
            "public": True,
            "createdAt": never,
            "updatedAt": never,
            "createdBy": None,
            "lastSpawnedAt": None,
            "spawnCount": 0,
            "buildCount": 0,
            "envdVersion": ENVD_VERSION,
            "buildStatus": "ready",
            "isDefault": True,
        }
    )
