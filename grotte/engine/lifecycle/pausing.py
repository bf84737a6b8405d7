"""Sandboxes that wait: stopped in memory or, after the engine was gone, files only."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from grotte.engine.faults import ControlFault
from grotte.engine.host import Guest, HostError, SandboxHost, SandboxSpec
from grotte.engine.lifecycle.rows import settings_of
from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.lifecycle.store import Store

log = logging.getLogger("grotte.engine")


class Pausing:
    """Takes sandboxes from running to paused and back.

    Args:
        lives: Tells whether a sandbox has not ended.
        spec_of: What a sandbox is launched with.
        attach: Makes a guest a sandbox's own.
    """

    def __init__(
        self,
        host: SandboxHost,
        store: Store,
        lives: Callable[[Sandbox], bool],
        spec_of: Callable[[Sandbox], SandboxSpec],
        attach: Callable[[Sandbox, Guest], None],
    ) -> None:
        self._host = host
        self._store = store
        self._lives = lives
        self._spec_of = spec_of
        self._attach = attach

    async def pause(self, sandbox: Sandbox, *, memory: bool) -> None:
        """Stop all that runs in a sandbox: its memory and its connections stay as they are, or only its files do.

        Raises:
            ControlFault: 404, it has ended; 409, it is paused; 500, it would not stop.
        """
        async with sandbox.changing:
            self._check(sandbox)
            if sandbox.paused:
                raise ControlFault(409, f"sandbox {sandbox.sandbox_id} is already paused")
            with anyio.CancelScope(shield=True):  # the host bounds it
                await self._pause(sandbox, memory=memory)
        log.info("event=paused sandbox=%s memory=%d", sandbox.sandbox_id, memory)

    async def _pause(self, sandbox: Sandbox, *, memory: bool) -> None:
        try:
            if memory:
                await self._host.freeze(sandbox.sandbox_id)
        except HostError as error:
            raise ControlFault(500, f"sandbox {sandbox.sandbox_id} cannot be paused: {error}") from None
        end_at = time.time_ns() // 1000
        try:
            self._store.set_end(sandbox.sandbox_id, end_at, "paused")
        except sqlite3.Error:
            self._host.thaw(sandbox.sandbox_id)
            raise
        sandbox.paused, sandbox.end_at, sandbox.deadline = True, end_at, float("inf")
        if not memory:
            self._set_reboots(sandbox, True)
            await self._leave_memory(sandbox)

    async def resume(self, sandbox: Sandbox, prolong: Callable[[], None], *, memory: bool) -> bool:
        """Let a sandbox go on: with its processes if they are still in memory, else with its files.

        Args:
            prolong: Gives it time to live; called before anything runs.
            memory: Off, processes that are still in memory end, and it starts from its files.

        Returns:
            False if it ran already; then `prolong` was not called.

        Raises:
            ControlFault: 404, it has ended; 500, the machine could not do it.
        """
        async with sandbox.changing:
            self._check(sandbox)
            if not sandbox.paused:
                return False
            with anyio.CancelScope(shield=True):
                if not memory:
                    await self._leave_memory(sandbox)
                if sandbox.life is None:
                    await self._launch(sandbox)
            if sandbox.reboots:
                self._set_reboots(sandbox, False)
            prolong()
            sandbox.paused = False
            self._host.thaw(sandbox.sandbox_id)
        log.info("event=resumed sandbox=%s", sandbox.sandbox_id)
        return True

    def _set_reboots(self, sandbox: Sandbox, reboots: bool) -> None:
        sandbox.reboots = reboots
        self._store.set_settings(sandbox.sandbox_id, settings_of(sandbox))

    async def _launch(self, sandbox: Sandbox) -> None:
        try:
            await self._host.put_away(sandbox.sandbox_id)  # it may have died while it was paused, just now
            guest = await self._host.launch(self._spec_of(sandbox))
        except HostError as error:
            log.error("event=resume_failed sandbox=%s reason=%s", sandbox.sandbox_id, error)  # noqa: TRY400  (no bug)
            raise ControlFault(500, f"the sandbox could not be started: {error}") from None
        self._attach(sandbox, guest)

    @asynccontextmanager
    async def at_rest(self, sandbox: Sandbox) -> AsyncIterator[None]:
        """Keep a sandbox still for the length of a block; it goes on afterwards if it ran.

        Raises:
            ControlFault: 404, it has ended; 500, it would not stop.
        """
        async with sandbox.changing:
            self._check(sandbox)
            if sandbox.paused:
                yield
                return
            try:
                await self._host.freeze(sandbox.sandbox_id)
                yield
            except HostError as error:
                raise ControlFault(500, str(error)) from None
            finally:
                self._host.thaw(sandbox.sandbox_id)

    async def put_away(self, sandbox: Sandbox) -> None:
        """The engine ends: keep the files of a paused sandbox, and nothing else of it."""
        async with sandbox.changing:
            await self._leave_memory(sandbox)

    async def _leave_memory(self, sandbox: Sandbox) -> None:
        life, sandbox.life = sandbox.life, None
        if life is not None:
            life.processes.lose_all()
        try:
            await self._host.put_away(sandbox.sandbox_id)
        except HostError as error:
            raise ControlFault(500, str(error)) from None

    def _check(self, sandbox: Sandbox) -> None:
        if not self._lives(sandbox):
            raise ControlFault(404, f"sandbox {sandbox.sandbox_id} not found")
