"""Sandboxes on their way to the client that asked for them: one that leaves, or gives its request up, leaves none."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import msgspec

from grotte.engine.data.rpc import until_disconnected
from grotte.engine.faults import ClientGone, ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.idempotency import Idempotency
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Sandbox


class Handover:
    """Makes sandboxes and sends the answer that names them.

    Args:
        registry: Where they are.
        idempotency: What stands for which key.
    """

    def __init__(self, registry: Registry, idempotency: Idempotency) -> None:
        self._registry = registry
        self._idempotency = idempotency

    async def answer(
        self, request: Request, owner: str, fields: dict[str, Any], make: Callable[[list[Sandbox]], Awaitable[bytes]]
    ) -> None:
        """Make sandboxes, unless the request's key stands for some already, and answer with 201.

        Args:
            request: Of the client that waits for them.
            owner: Whose they are.
            fields: What was asked for.
            make: Adds each sandbox to the list as soon as there is one, and returns the answer.

        Raises:
            ClientGone: it left before the answer was there, and they were ended.
            ControlFault: 409, it has said that it does not want them; 400 and 422, the key cannot be used.
        """
        key = request.headers.get("idempotency-key")
        made: list[Sandbox] = []
        work: Callable[[], Awaitable[bytes]] = partial(make, made)
        if key is not None:
            work = partial(self._idempotency.once, owner, key, _digest(request, fields), work)
        try:
            answer = await until_disconnected(request, work)
        except ClientGone:
            # Nobody else knows of them, so they are ended.
            if made and (key is None or self._idempotency.unheard(owner, key)):
                await self._end(made)
            raise
        if key is not None and made and not self._idempotency.heard(owner, key):
            await self._end(made)
            raise ControlFault(409, "the request with this Idempotency-Key was given up")
        await request.reply(201, answer)

    async def give_up(self, owner: str, key: str) -> bool:
        """Whoever sent a request with this key did not get its answer and wants none: end what it made or will make.

        Returns:
            Whether it had made anything yet.
        """
        named = self._idempotency.give_up(owner, key)
        found = [self._registry.find(sandbox_id) for sandbox_id in named]
        await self._end([sandbox for sandbox in found if sandbox is not None and sandbox.owner == owner])
        return bool(named)

    async def _end(self, sandboxes: list[Sandbox]) -> None:
        async with anyio.create_task_group() as tasks:
            for sandbox in sandboxes:
                tasks.start_soon(self._registry.kill, sandbox)


def _digest(request: Request, fields: dict[str, Any]) -> bytes:
    """What was asked for, whatever the order of its fields."""
    canonical = msgspec.json.encode(fields, order="deterministic")
    return hashlib.sha256(request.path.encode() + b"\n" + canonical).digest()
