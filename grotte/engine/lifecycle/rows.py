"""Between sandboxes and the rows that outlive the engine."""

from __future__ import annotations

from grotte.engine.host import Limits
from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.lifecycle.store import SandboxRow, Settings
from grotte.engine.lifecycle.templates import Template


def row_of(sandbox: Sandbox) -> SandboxRow:
    """What is stored of a sandbox."""
    return SandboxRow(
        id=sandbox.sandbox_id,
        owner=sandbox.owner,
        template=sandbox.template.template_id,
        started_at=sandbox.started_at,
        end_at=sandbox.end_at,
        access_token=sandbox.access_token,
        traffic_token=sandbox.traffic_token,
        metadata=sandbox.metadata,
        envs=sandbox.envs,
        settings=settings_of(sandbox),
    )


def settings_of(sandbox: Sandbox) -> Settings:
    """What is stored of it and may change."""
    return Settings(
        timeout=sandbox.timeout,
        auto_pause=sandbox.auto_pause,
        auto_resume=sandbox.auto_resume,
        network=sandbox.network,
        build=sandbox.template.build,
        auto_pause_memory=sandbox.auto_pause_memory,
        mounts=sandbox.mounts,
        reboots=sandbox.reboots,
    )


def from_row(row: SandboxRow, template: Template, limits: Limits) -> Sandbox:
    """A sandbox of an earlier engine, of which there are only files."""
    return Sandbox(
        sandbox_id=row.id,
        owner=row.owner,
        template=template,
        life=None,
        paused=True,
        reboots=row.settings.reboots,
        limits=template.setup.limits(limits),
        timeout=row.settings.timeout,
        auto_pause=row.settings.auto_pause,
        auto_pause_memory=row.settings.auto_pause_memory,
        auto_resume=row.settings.auto_resume,
        mounts=row.settings.mounts,
        started_at=row.started_at,
        end_at=row.end_at,
        deadline=float("inf"),
        access_token=row.access_token,
        traffic_token=row.traffic_token,
        network=row.settings.network,
        metadata=row.metadata,
        envs=row.envs,
    )
