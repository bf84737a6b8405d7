"""Builds: ask for one, send its files, start it, watch it."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import unquote

from grotte.engine.builds.catalogue import BuildRow
from grotte.engine.builds.contexts import Contexts
from grotte.engine.builds.logs import LEVELS, BuildLogs, Entry, Level
from grotte.engine.builds.queue import Builds
from grotte.engine.builds.request import read_build
from grotte.engine.control.creation import read_json
from grotte.engine.control.pages import read_limit
from grotte.engine.control.routes import Routes
from grotte.engine.control.sandboxes import MAX_BODY
from grotte.engine.control.templates import own_template
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import DEFAULT_TAG, check_tag, parse_template
from grotte.engine.lifecycle.sandbox import rfc3339
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.templates import Templates, is_base

#: The longest description of a build, in bytes.
MAX_BUILD = 16 * MAX_BODY
MAX_TAGS = 100
MAX_CPUS, MIN_MEMORY, MAX_MEMORY = 1024, 128, 16 << 20
MAX_LOGS = 1000
_HASH = re.compile(r"[0-9a-f]{64}")


class BuildArea:
    """The handlers of builds.

    Args:
        templates: What there is.
        builds: What is under way.
        logs: What it says.
        contexts: What it copies.
    """

    def __init__(self, templates: Templates, builds: Builds, logs: BuildLogs, contexts: Contexts) -> None:
        self._catalogue = templates.catalogue
        self._builds = builds
        self._logs = logs
        self._contexts = contexts

    def routes(self) -> Routes:
        return {
            "POST /v3/templates": self.create,
            "POST /v2/templates": self.create,
            "GET /templates/*/files/{hash}": self.offer_upload,
            "POST /v2/templates/*/builds/{build}": self.start,
            "GET /templates/*/builds/{build}/status": self.status,
            "GET /templates/*/builds/{build}/logs": self.logs,
        }

    def keyless(self) -> Routes:
        """Routes whose path is the secret."""
        return {"PUT /uploads/{token}": self.upload}

    async def create(self, request: Request, owner: str) -> None:
        fields = read_json(await request.body(MAX_BODY))
        name, tags = _read_name(fields)
        setup = Setup(
            cpus=_size(fields, "cpuCount", 1, MAX_CPUS), memory_mb=_size(fields, "memoryMB", MIN_MEMORY, MAX_MEMORY)
        )
        reference = parse_template(name)
        row = self._catalogue.template(reference, owner) or self._catalogue.add_template(owner, name)
        build = self._catalogue.add_build(row.id, tags, setup)
        answer = {
            "templateID": row.id,
            "buildID": build.id,
            "public": row.public,
            "names": [row.name],
            "tags": tags,
            "aliases": [row.name],
        }
        await request.reply_json(202, answer)

    # -- files -----------------------------------------------------------------------------------------------------

    async def offer_upload(self, request: Request, owner: str, reference: str, digest: str) -> None:
        own_template(self._catalogue, owner, reference)
        if not _HASH.fullmatch(digest):
            raise ControlFault(400, "the hash of files is 64 lowercase hexadecimal digits")
        host = request.headers.get("host", "")
        address = f"{request.scheme}://{host}/uploads/{self._contexts.offer(owner, digest)}"
        present = self._contexts.path(owner, digest).exists()
        await request.reply_json(201, {"present": present, "url": address})

    async def upload(self, request: Request, token: str) -> None:
        await self._contexts.receive(token, request.chunks())
        await request.reply(200)

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, request: Request, owner: str, reference: str, build_id: str) -> None:
        asked = read_build(read_json(await request.body(MAX_BUILD)))
        build = self._build(owner, reference, build_id)
        if build.status != "waiting":
            raise ControlFault(400, f"the build is not waiting for its start: it is '{build.status}'")
        self._builds.start(build, owner, asked)
        await request.reply(202)

    async def status(self, request: Request, owner: str, reference: str, build_id: str) -> None:
        build = self._build(owner, reference, build_id)
        offset = _number(request.query, "logsOffset", 0, 1 << 31)
        entries = self._logs.page(build.id, offset, read_limit(request.query.get("limit")), _level(request))
        answer: dict[str, Any] = {
            "templateID": build.template,
            "buildID": build.id,
            "status": build.status,
            "logs": [f"{entry.message}\n" for entry in entries],
            "logEntries": [_entry(entry) for entry in entries],
        }
        if build.reason is not None and build.status == "error":
            errors = self._logs.page(build.id, 0, MAX_LOGS, "error")
            answer["reason"] = {
                "message": build.reason.message,
                "step": build.reason.step,
                "logEntries": [_entry(entry) for entry in errors],
            }
        await request.reply_json(200, answer)

    async def logs(self, request: Request, owner: str, reference: str, build_id: str) -> None:
        build = self._build(owner, reference, build_id)
        direction = request.query.get("direction") or "forward"
        if direction not in ("forward", "backward"):
            raise ControlFault(400, "direction must be forward or backward")
        if request.query.get("source", "persistent") not in ("temporary", "persistent"):
            raise ControlFault(400, "source must be temporary or persistent")
        cursor = _number(request.query, "cursor", -1, 1 << 53)
        limit = _number(request.query, "limit", 100, MAX_LOGS)
        found = self._logs.around(
            build.id, None if cursor < 0 else cursor * 1000, limit, _level(request), backward=direction == "backward"
        )
        await request.reply_json(200, {"logs": [_entry(entry) for entry in found]})

    def _build(self, owner: str, reference: str, build_id: str) -> BuildRow:
        try:
            uuid.UUID(build_id)
        except ValueError:
            raise ControlFault(400, "the id of a build is a UUID") from None
        template = own_template(self._catalogue, owner, reference)
        build = self._catalogue.build(build_id.lower())
        if build is None or build.template != template.id:
            raise ControlFault(404, f"build '{unquote(build_id)}' not found")
        return build


def _read_name(fields: dict[str, Any]) -> tuple[str, list[str]]:
    """The name of a template to build, and the tags that it will have."""
    name, tags = fields.get("name") or fields.get("alias"), fields.get("tags") or []
    if not isinstance(name, str) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ControlFault(400, "name must be a string, tags a list of strings")
    parsed = parse_template(name)
    if parsed.namespace is not None or is_base(parsed):
        raise ControlFault(400, "a template's name is alias[:tag], and not base")
    wanted = [parsed.tag] if ":" in name else []
    wanted += [check_tag(tag) for tag in tags]
    if len(wanted) > MAX_TAGS:
        raise ControlFault(400, f"a build has at most {MAX_TAGS} tags")
    return parsed.alias, list(dict.fromkeys(wanted)) or [DEFAULT_TAG]


def _size(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ControlFault(400, f"{name} must be a whole number from {least} to {most}")
    return value


def _number(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > most:
        raise ControlFault(400, f"{name} must be a whole number from 0 to {most}")
    return int(text)


def _level(request: Request) -> Level:
    wanted = request.query.get("level") or "debug"
    for level in LEVELS:
        if level == wanted:
            return level
    raise ControlFault(400, f"level must be one of {', '.join(LEVELS)}")


def _entry(entry: Entry) -> dict[str, str]:
    step = {"step": entry.step} if entry.step else {}
    return {"timestamp": rfc3339(entry.at), "message": entry.message, "level": entry.level} | step
