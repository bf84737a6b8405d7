"""All builds of an engine: those under way, those that wait, and how they end."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from grotte.engine.builds.builder import Builder, BuildFailed
from grotte.engine.builds.catalogue import BuildRow, Reason
from grotte.engine.builds.logs import BuildLogs
from grotte.engine.builds.request import BuildRequest
from grotte.engine.lifecycle.templates import Templates

log = logging.getLogger("grotte.engine")

#: How many builds are worked on at once.
AT_ONCE = 4
#: How long an engine that stops waits for builds to go, in seconds.
CANCEL_GRACE = 20.0


class Builds:
    """Builds belong to the engine, not to the request that asked for one.

    Args:
        templates: What they make.
        builder: Who makes it.
        logs: What they say.
    """

    def __init__(self, templates: Templates, builder: Builder, logs: BuildLogs) -> None:
        self._templates = templates
        self._builder = builder
        self.logs = logs
        self._turns = anyio.CapacityLimiter(AT_ONCE)
        self._running: dict[str, tuple[BuildRow, anyio.CancelScope, anyio.Event]] = {}
        self._tasks: TaskGroup

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Builds]:
        """Work on builds for the length of a block; what is not ready by then has failed."""
        self._templates.catalogue.recover()
        async with anyio.create_task_group() as self._tasks:
            try:
                yield self
            finally:
                with anyio.move_on_after(CANCEL_GRACE, shield=True):
                    await self.cancel_all()
                self._tasks.cancel_scope.cancel()

    @property
    def busy(self) -> bool:
        """Whether one is under way, or waits for its turn."""
        return bool(self._running)

    def start(self, row: BuildRow, owner: str, request: BuildRequest) -> None:
        """Let a build have its turn."""
        self._templates.catalogue.set_building(row.id)
        entry = (row, anyio.CancelScope(), anyio.Event())
        self._running[row.id] = entry
        self._tasks.start_soon(self._work, *entry, owner, request)

    async def _work(
        self, row: BuildRow, scope: anyio.CancelScope, done: anyio.Event, owner: str, request: BuildRequest
    ) -> None:
        reason = Reason("the build was cancelled", "base")
        try:
            with scope:
                async with self._turns:
                    reason = await self._attempt(row, owner, request)
        finally:
            del self._running[row.id]
            done.set()
            if reason.message:
                self._note_failure(row, reason)
        if not scope.cancel_called:
            await self._templates.collect()

    def _note_failure(self, row: BuildRow, reason: Reason) -> None:
        try:
            self._templates.catalogue.set_failed(row.id, reason)
        except sqlite3.Error:  # a full disk; the next start takes it for failed
            log.exception("event=build_end_not_stored build=%s", row.id)

    async def _attempt(self, row: BuildRow, owner: str, request: BuildRequest) -> Reason:
        """Build; return why that failed, with no message if it did not."""
        writer = self.logs.writer(row.id)
        try:
            await self._builder.build(row, owner, request, writer)
            self._templates.catalogue.set_ready(row)
        except BuildFailed as failure:
            writer.write(failure.reason.message, "error", failure.reason.step)
            log.info("event=build_failed build=%s step=%s", row.id, failure.reason.step)
            return failure.reason
        except Exception:
            # One build's trouble must not end the engine, whose task this is.
            log.exception("event=build_broken build=%s", row.id)
            writer.write("the engine failed; its log says why", "error")
            return Reason("the engine failed; its log says why", "base")
        writer.write("the template is ready", step="finalize")
        log.info("event=build_ready build=%s template=%s", row.id, row.template)
        return Reason("", "")

    async def cancel(self, template_id: str) -> None:
        """Stop all builds of a template, and wait until nothing of them runs."""
        await self._cancel([entry for entry in self._running.values() if entry[0].template == template_id])

    async def cancel_all(self) -> None:
        """The same for all templates."""
        await self._cancel(list(self._running.values()))

    async def _cancel(self, entries: list[tuple[BuildRow, anyio.CancelScope, anyio.Event]]) -> None:
        for _, scope, _ in entries:
            scope.cancel()
        for _, _, done in entries:
            await done.wait()
