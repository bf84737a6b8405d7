"""All that builds templates, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grotte.engine.builds.builder import Builder
from grotte.engine.builds.contexts import Contexts
from grotte.engine.builds.logs import BuildLogs
from grotte.engine.builds.queue import Builds
from grotte.engine.builds.workshop import Workshop
from grotte.engine.host import Limits, SandboxHost
from grotte.engine.images.puller import Puller
from grotte.engine.images.sources import ImageMap
from grotte.engine.lifecycle.store import Store
from grotte.engine.lifecycle.templates import Templates


@dataclass(frozen=True, slots=True)
class Building:
    """What the control plane needs of it."""

    builds: Builds
    logs: BuildLogs
    contexts: Contexts


@asynccontextmanager
async def open_building(
    data_dir: Path, host: SandboxHost, store: Store, templates: Templates, images: ImageMap, limits: Limits
) -> AsyncIterator[Building]:
    """Build templates for the length of a block.

    Args:
        data_dir: The engine's; contexts and what is being fetched lie in it.
        host: Where steps are done.
        store: Where it is remembered what was done.
        templates: What there is.
        images: What names of images mean here.
        limits: What a step may use, unless its template says otherwise.
    """
    contexts, logs = Contexts(data_dir / "contexts"), BuildLogs(store.database)
    puller = Puller(data_dir / "images", host, templates.catalogue, images)
    builder = Builder(templates, Workshop(host, limits), puller, contexts)
    async with Builds(templates, builder, logs).open() as builds:
        yield Building(builds, logs, contexts)
