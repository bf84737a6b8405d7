"""A build from its request to its end: files are sent, the log is followed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from grotte._core import _aio
from grotte._core.template_api import AsyncTemplatePlane
from grotte._core.template_context import Bundle, bundle_of, packed
from grotte._proto import arguments
from grotte._proto.templates import wire
from grotte._proto.templates.logger import BuildLogger
from grotte._proto.templates.recipe import Recipe
from grotte._proto.templates.results import BuildInfo, LogEntry, LogEntryEnd, LogEntryStart, TemplateBuildStatus
from grotte.errors import BuildException, InvalidArgumentException

#: How often the log is asked for, in seconds.
REFRESH = 0.2
MAX_CPUS, MAX_MEMORY_MB = 2**16, 2**31 - 1
_ENDED = (TemplateBuildStatus.READY, TemplateBuildStatus.ERROR)


def build_name(name: str | None, alias: str | None) -> str:
    """The name of a build, which may be given as `alias`, too."""
    given = name or alias
    if not given:
        raise InvalidArgumentException("name must be given: what the template will be called")
    return arguments.identifier(given, "name")


def tag_list(tags: str | Sequence[str]) -> list[str]:
    """One tag, or several."""
    found = [tags] if isinstance(tags, str) else tags
    if not isinstance(found, Sequence) or not found:
        raise InvalidArgumentException("tags must be a str or a list of str, not empty")
    return [arguments.identifier(tag, "a tag") for tag in found]


class AsyncBuild:
    """One build of one template.

    Args:
        recipe: What the template is made of.
        wanted: Its name and size.
        skip_cache: Everything is done again.
        on_build_logs: Who is told what happens.
    """

    def __init__(
        self,
        recipe: Recipe,
        wanted: wire.NewBuild,
        skip_cache: bool,
        on_build_logs: _aio.OutputHandler[LogEntry] | None,
    ) -> None:
        _aio.check_handler(on_build_logs, "on_build_logs")
        self._recipe = recipe
        self._wanted = wanted
        self._force = skip_cache
        self._listener = on_build_logs

    async def run(self, api: AsyncTemplatePlane) -> BuildInfo:
        """Start it, and wait until the template is there.

        Raises:
            BuildException: it failed.
        """
        await self._tell(LogEntryStart(datetime.now(UTC), "Build started"))
        try:
            info = await self.start(api)
            await self._say("Waiting for logs...")
            await self._follow(api, info)
        finally:
            # the listener may wait for this to put its display away; it hears of a cancelled build, too
            with _aio.shield(1):
                await self._tell(LogEntryEnd(datetime.now(UTC), "Build finished"))
        return info

    async def start(self, api: AsyncTemplatePlane) -> BuildInfo:
        """Ask for it, send its files, and start it; before anything is sent, all files are looked at."""
        bundles = [await self._bundle(place) for place in range(len(self._recipe.steps))]
        name = self._wanted.name
        await self._say(f"Requesting build for template: {name}")
        build = await api.request_build(self._wanted)
        template_id, build_id = build.template_id, build.build_id
        await self._say(f"Template created with ID: {template_id}, Build ID: {build_id}")
        await self._send_files(api, template_id, bundles)
        hashes = [None if bundle is None else bundle.digest for bundle in bundles]
        await self._say("Starting building...")
        await api.start_build(template_id, build_id, wire.build_start(self._recipe, hashes, force=self._force))
        return BuildInfo(template_id, build_id, name=name, alias=name, tags=build.tags or [])

    async def _bundle(self, place: int) -> Bundle | None:
        step = self._recipe.steps[place]
        return await _aio.run_in_thread(bundle_of, self._recipe, step) if step.type == "COPY" else None

    async def _send_files(self, api: AsyncTemplatePlane, template_id: str, bundles: list[Bundle | None]) -> None:
        sent: set[str] = set()
        for step, bundle in zip(self._recipe.steps, bundles, strict=True):
            if bundle is None or bundle.digest in sent:
                continue
            sent.add(bundle.digest)
            offer = await api.upload_offer(template_id, bundle.digest)
            if not offer.url or (offer.present and not step.force_upload):
                await self._say(f"Skipping upload of '{bundle.source}', already cached")
                continue
            async with packed(bundle) as (archive, size):
                await api.upload(offer, archive, size)
            await self._say(f"Uploaded '{bundle.source}'")
        if sent:
            await self._say("All file uploads completed")

    async def _follow(self, api: AsyncTemplatePlane, info: BuildInfo) -> None:
        """Pass the log on until the build has ended and nothing is left of it."""
        offset = 0
        before: list[LogEntry] = []
        while True:
            status = await api.build_status(info.template_id, info.build_id, offset)
            found = wire.public_status(status)
            ended = status.status in _ENDED
            if ended and found.log_entries in ([], before):
                break  # the end, or a server that has one page for every offset
            before = found.log_entries
            for entry in found.log_entries:
                await self._tell(entry)
            offset += len(found.log_entries)
            if not found.log_entries and not ended:
                if isinstance(self._listener, BuildLogger):
                    self._listener.refresh()
                await _aio.sleep(REFRESH)
        if status.status == TemplateBuildStatus.ERROR:
            failure = BuildException(found.reason.message if found.reason else "Build failed")
            failure.step = found.reason.step if found.reason else None
            raise failure

    async def _say(self, text: str) -> None:
        await self._tell(wire.own_entry(text))

    async def _tell(self, entry: LogEntry) -> None:
        if self._listener is not None:
            await _aio.call(self._listener, entry)
