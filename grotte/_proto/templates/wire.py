"""The JSON of ``/templates``, and what users get of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import msgspec
from msgspec import UNSET, UnsetType

from grotte._proto.control import ControlMessage
from grotte._proto.templates.recipe import Recipe, StepType
from grotte._proto.templates.results import (
    BuildStatusReason,
    LogEntry,
    LogEntryLevel,
    TemplateBuildStatus,
    TemplateBuildStatusResponse,
    TemplateInfo,
    TemplateTag,
)

_LEVELS = ("debug", "info", "warn", "error")


class NewBuild(ControlMessage, kw_only=True):
    """``POST /v3/templates``."""

    name: str
    tags: list[str] | UnsetType = UNSET
    cpu_count: int = msgspec.field(name="cpuCount")
    memory_mb: int = msgspec.field(name="memoryMB")


class RequestedBuild(ControlMessage, kw_only=True):
    """Its answer."""

    template_id: str = msgspec.field(name="templateID")
    build_id: str = msgspec.field(name="buildID")
    tags: list[str] | None = None


class UploadOffer(ControlMessage, kw_only=True):
    """``GET /templates/{id}/files/{hash}``: whether the files are there, and where they may be sent."""

    present: bool
    url: str | None = None
    headers: dict[str, str] | None = None


class WireStep(ControlMessage, rename="camel", kw_only=True):
    type: StepType
    args: tuple[str, ...]
    force: bool
    files_hash: str | UnsetType = UNSET
    force_upload: bool | UnsetType = UNSET


class BuildStart(ControlMessage, rename="camel", kw_only=True):
    """``POST /v2/templates/{id}/builds/{build}``."""

    steps: list[WireStep]
    force: bool
    from_image: str | UnsetType = UNSET
    from_template: str | UnsetType = UNSET
    from_image_registry: dict[str, str] | UnsetType = UNSET
    start_cmd: str | UnsetType = UNSET
    ready_cmd: str | UnsetType = UNSET


class WireLogEntry(ControlMessage, kw_only=True):
    timestamp: datetime
    message: str
    level: str = "info"
    step: str | None = None


class WireReason(ControlMessage, kw_only=True):
    message: str
    step: str | None = None
    log_entries: list[WireLogEntry] | None = msgspec.field(default=None, name="logEntries")


class WireStatus(ControlMessage, kw_only=True):
    """``GET /templates/{id}/builds/{build}/status``."""

    template_id: str = msgspec.field(name="templateID")
    build_id: str = msgspec.field(name="buildID")
    status: TemplateBuildStatus
    logs: list[str] | None = None
    log_entries: list[WireLogEntry] | None = msgspec.field(default=None, name="logEntries")
    reason: WireReason | None = None


class NewTags(ControlMessage, kw_only=True):
    """``POST /templates/tags``."""

    target: str
    tags: list[str]


class OldTags(ControlMessage, kw_only=True):
    """``DELETE /templates/tags``."""

    name: str
    tags: list[str]


class AssignedTags(ControlMessage, kw_only=True):
    build_id: str = msgspec.field(name="buildID")
    tags: list[str]


class WireTag(ControlMessage, kw_only=True):
    tag: str
    build_id: str = msgspec.field(name="buildID")
    created_at: datetime = msgspec.field(name="createdAt")


class ListedTemplate(ControlMessage, kw_only=True):
    """An element of ``GET /templates``."""

    template_id: str = msgspec.field(name="templateID")
    names: list[str] | None = None
    aliases: list[str] | None = None
    cpu_count: int = msgspec.field(default=0, name="cpuCount")
    memory_mb: int = msgspec.field(default=0, name="memoryMB")
    public: bool = False
    created_at: datetime = msgspec.field(name="createdAt")
    build_status: str = msgspec.field(default="", name="buildStatus")


def build_start(recipe: Recipe, hashes: list[str | None], *, force: bool = False) -> BuildStart:
    """A recipe as it is sent, with the hashes of what its COPY steps copy."""
    steps = [
        WireStep(
            type=step.type,
            args=step.args,
            force=step.force,
            files_hash=digest if digest is not None else UNSET,
            force_upload=step.force_upload if step.force_upload is not None else UNSET,
        )
        for step, digest in zip(recipe.steps, hashes, strict=True)
    ]
    return BuildStart(
        steps=steps,
        force=recipe.force or force,
        from_image=recipe.image if recipe.image is not None else UNSET,
        from_template=recipe.template if recipe.template is not None else UNSET,
        from_image_registry=recipe.registry if recipe.registry is not None else UNSET,
        start_cmd=recipe.start_cmd if recipe.start_cmd is not None else UNSET,
        ready_cmd=recipe.ready_cmd if recipe.ready_cmd is not None else UNSET,
    )


def public_status(status: WireStatus) -> TemplateBuildStatusResponse:
    """What users see of a build."""
    reason = status.reason
    return TemplateBuildStatusResponse(
        build_id=status.build_id,
        template_id=status.template_id,
        status=status.status,
        log_entries=_public_entries(status.log_entries),
        logs=status.logs or [],
        reason=None if reason is None else _public_reason(reason),
    )


def _public_reason(reason: WireReason) -> BuildStatusReason:
    return BuildStatusReason(reason.message, reason.step, _public_entries(reason.log_entries))


def public_tag(tag: WireTag) -> TemplateTag:
    return TemplateTag(tag.tag, tag.build_id, tag.created_at)


def public_template(template: ListedTemplate) -> TemplateInfo:
    return TemplateInfo(
        template_id=template.template_id,
        names=template.names or template.aliases or [],
        cpu_count=template.cpu_count,
        memory_mb=template.memory_mb,
        public=template.public,
        created_at=template.created_at,
        build_status=template.build_status,
    )


def own_entry(message: str) -> LogEntry:
    """What this side says of a build."""
    return LogEntry(datetime.now(UTC), "info", message)


def _public_entries(entries: list[WireLogEntry] | None) -> list[LogEntry]:
    return [LogEntry(entry.timestamp, _level(entry.level), entry.message) for entry in entries or []]


def _level(level: str) -> LogEntryLevel:
    return cast("LogEntryLevel", level) if level in _LEVELS else "info"
