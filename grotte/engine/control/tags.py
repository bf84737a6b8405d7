"""Tags: names for the builds of a template."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from grotte.engine.builds.catalogue import BuildRow, TagRow, TemplateRow
from grotte.engine.control.creation import read_json
from grotte.engine.control.pages import read_limit, read_token, token_of
from grotte.engine.control.routes import Routes
from grotte.engine.control.sandboxes import MAX_BODY
from grotte.engine.control.templates import own_template
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import DEFAULT_TAG, check_tag, parse_template
from grotte.engine.lifecycle.sandbox import rfc3339
from grotte.engine.lifecycle.templates import Templates

#: How many tags a page has unless it is asked for more.
GROUPS = 25
_ORDERS: dict[str, Callable[[TagRow], tuple[int, str]]] = {
    "latest": lambda tag: (tag.made_at, tag.tag),
    "name": lambda tag: (0, tag.tag),
}


class TagArea:
    """The handlers of tags; each tag means one build, and nobody remembers what it meant before."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._catalogue = templates.catalogue

    def routes(self) -> Routes:
        return {
            "POST /templates/tags": self.assign,
            "DELETE /templates/tags": self.remove,
            "GET /templates/*/tags": self.list_tags,
            "GET /templates/*/tags/count": self.count,
            "GET /templates/*/tags/exists": self.exists,
            "GET /templates/*/tags/groups": self.groups,
            "GET /templates/*/tags/{tag}/assignments": self.assignments,
        }

    async def assign(self, request: Request, owner: str) -> None:
        fields = read_json(await request.body(MAX_BODY))
        target, tags = _text(fields, "target"), _tags(fields)
        row = own_template(self._catalogue, owner, target)
        tag = parse_template(target).tag
        build = self._catalogue.tagged(row.id, tag)
        if build is None:
            raise ControlFault(404, f"template '{row.name}' has no tag '{tag}'")
        self._catalogue.set_tags(row.id, build.id, tags)
        await self._templates.collect()
        await request.reply_json(201, {"tags": tags, "buildID": build.id})

    async def remove(self, request: Request, owner: str) -> None:
        fields = read_json(await request.body(MAX_BODY))
        name, tags = _text(fields, "name"), _tags(fields)
        row = own_template(self._catalogue, owner, name)
        if DEFAULT_TAG in tags:
            raise ControlFault(400, f"the tag '{DEFAULT_TAG}' cannot be removed")
        self._catalogue.remove_tags(row.id, tags)
        await self._templates.collect()
        await request.reply(204)

    async def list_tags(self, request: Request, owner: str, reference: str) -> None:
        _, tags = self._tags(owner, reference)
        shown = [{"tag": tag.tag, "buildID": tag.build, "createdAt": rfc3339(tag.made_at)} for tag in tags]
        await request.reply_json(200, shown)

    async def count(self, request: Request, owner: str, reference: str) -> None:
        _, tags = self._tags(owner, reference)
        await request.reply_json(200, {"total": len(tags)})

    async def exists(self, request: Request, owner: str, reference: str) -> None:
        _, tags = self._tags(owner, reference)
        wanted = check_tag(request.query.get("tag", ""))
        known = any(tag.tag == wanted for tag in tags)
        await request.reply_json(200, {"exists": known, "normalizedTag": wanted})

    async def groups(self, request: Request, owner: str, reference: str) -> None:
        query = request.query
        read_limit(query.get("assignmentLimit"))  # each tag has one
        row, tags = self._tags(owner, reference)
        found = _in_order(tags, query.get("sort") or "latest_desc", query.get("tagsCursor"))
        found = [tag for tag in found if query.get("search", "").lower() in tag.tag]
        limit = read_limit(query.get("tagsLimit"), GROUPS)
        groups = [
            {"tag": tag.tag, "assignments": [self._assignment(row, tag)], "hasMore": False} for tag in found[:limit]
        ]
        more = token_of(found[limit - 1].made_at, found[limit - 1].tag) if len(found) > limit else None
        await request.reply_json(200, {"tags": groups, "nextCursor": more})

    async def assignments(self, request: Request, owner: str, reference: str, tag: str) -> None:
        row, tags = self._tags(owner, reference)
        wanted = check_tag(tag)
        data = [self._assignment(row, known) for known in tags if known.tag == wanted]
        await request.reply_json(200, {"data": data, "nextCursor": None})

    def _tags(self, owner: str, reference: str) -> tuple[TemplateRow, list[TagRow]]:
        row = own_template(self._catalogue, owner, reference)
        return row, self._catalogue.tags(row.id)

    def _assignment(self, row: TemplateRow, tag: TagRow) -> dict[str, Any]:
        build: BuildRow | None = self._catalogue.build(tag.build)
        event = uuid.uuid5(uuid.UUID(tag.build), f"{row.id}:{tag.tag}:{tag.made_at}")
        return {
            "assignmentId": str(event),
            "buildId": tag.build,
            "assignedAt": rfc3339(tag.made_at),
            "buildCreatedAt": rfc3339(build.made_at if build else tag.made_at),
            "buildFinishedAt": rfc3339(build.ended_at) if build and build.ended_at else None,
        }


def _in_order(tags: list[TagRow], sort: str, cursor: str | None) -> list[TagRow]:
    """Tags as they were asked for, those behind the last page."""
    by, _, way = sort.rpartition("_")
    if by not in _ORDERS or way not in ("asc", "desc"):
        raise ControlFault(400, "sort must be latest or name, with _asc or _desc")
    place, down = _ORDERS[by], way == "desc"
    if cursor:
        made_at, tag = read_token(cursor, "tagsCursor")
        last = place(TagRow(tag, "", made_at))
        tags = [tag for tag in tags if (place(tag) < last if down else place(tag) > last)]
    return sorted(tags, key=place, reverse=down)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ControlFault(400, f"{name} must be a string")
    return value


def _tags(fields: dict[str, Any]) -> list[str]:
    tags = fields.get("tags")
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags):
        raise ControlFault(400, "tags must be a list of strings")
    return list(dict.fromkeys(check_tag(tag) for tag in tags))
