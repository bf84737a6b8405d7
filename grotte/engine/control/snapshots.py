"""The handlers behind snapshots and forks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import msgspec

from grotte._proto import control
from grotte.engine.control.creation import check_timeout, read_flag, read_json
from grotte.engine.control.handover import Handover
from grotte.engine.control.pages import read_page
from grotte.engine.control.routes import Routes
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import parse_template
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Order, Sandbox
from grotte.engine.lifecycle.store import SnapshotRow
from grotte.engine.lifecycle.templates import Template

MAX_BODY = 1024 * 1024
FORK_TIMEOUT = 15
MAX_FORKS = 100


class Forked(msgspec.Struct, omit_defaults=True):
    """One of the copies that were asked for, or why there is none."""

    sandbox: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: control.ErrorBody | msgspec.UnsetType = msgspec.UNSET


class Snapshots:
    """The handlers.

    Args:
        handover: How copies reach whoever asked for them.
        describe: A sandbox as the answer of its creation has it.
    """

    def __init__(
        self, registry: Registry, handover: Handover, max_timeout: int, describe: Callable[[Sandbox], bytes]
    ) -> None:
        self._registry = registry
        self._handover = handover
        self._max_timeout = max_timeout
        self._describe = describe

    def routes(self) -> Routes:
        return {
            "POST /sandboxes/{id}/snapshots": self.take,
            "POST /sandboxes/{id}/fork": self.fork,
            "GET /snapshots": self.list,
        }

    async def take(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY), required=False)
        name = fields.get("name")
        if name is not None and not isinstance(name, str):
            raise ControlFault(400, "name must be a string")
        read_flag(fields, "memory")  # there is none in a snapshot
        sandbox = self._registry.owned(sandbox_id, owner)
        template = await self._registry.snapshot(sandbox, name or None)
        (row,) = [row for row in self._registry.templates.snapshots(owner) if row.id == template.template_id]
        await request.reply_json(201, _shown(row))

    async def list(self, request: Request, owner: str) -> None:
        rows = [row for row in self._registry.templates.snapshots(owner)[::-1] if _matches(row, request.query)]
        page, more = read_page(request.query, rows)
        await request.reply_json(200, [_shown(row) for row in page], more)

    async def fork(self, request: Request, owner: str, sandbox_id: str) -> None:
        fields = read_json(await request.body(MAX_BODY), required=False)
        timeout = check_timeout(_number(fields, "timeout", FORK_TIMEOUT), self._max_timeout)
        count = _number(fields, "count", 1)
        if not 1 <= count <= MAX_FORKS:
            raise ControlFault(400, f"count must be between 1 and {MAX_FORKS}")
        sandbox = self._registry.owned(sandbox_id, owner)
        make = partial(self._copies, sandbox, timeout, count)
        await self._handover.answer(request, owner, fields, make)

    async def _copies(self, sandbox: Sandbox, timeout: int, count: int, made: Made) -> bytes:
        """Copy, and see it through: what is made must be known."""
        with anyio.CancelScope(shield=True):
            template = await self._registry.snapshot(sandbox, hidden=True)
            with self._registry.holding(template):
                forks = [await self._fork(_order(sandbox, template, timeout), made) for _ in range(count)]
            await self._registry.templates.collect()
        return msgspec.json.encode(forks)

    async def _fork(self, order: Order, made: Made) -> Forked:
        try:
            copy = await self._registry.create(order)
        except ControlFault as fault:
            return Forked(error=control.ErrorBody(code=fault.status, message=fault.message))
        made.append(copy)
        return Forked(sandbox=msgspec.Raw(self._describe(copy)))


#: `list` is a method there.
Made = list[Sandbox]


def _order(sandbox: Sandbox, template: Template, timeout: int) -> Order:
    """A sandbox as this one was asked for."""
    return Order(
        owner=sandbox.owner,
        template=template,
        timeout=timeout,
        secure=sandbox.access_token is not None,
        network=sandbox.network,
        metadata=dict(sandbox.metadata),
        envs=dict(sandbox.envs),
        auto_pause=sandbox.auto_pause,
        auto_pause_memory=sandbox.auto_pause_memory,
        auto_resume=sandbox.auto_resume,
        mounts=sandbox.mounts,
    )


def _shown(row: SnapshotRow) -> control.Snapshot:
    names = [f"{row.name}:{row.tag}"] if row.name else []
    return control.Snapshot(snapshot_id=f"{row.id}:{row.tag}", names=names)


def _matches(row: SnapshotRow, query: dict[str, str]) -> bool:
    sandbox_id, name = query.get("sandboxID"), query.get("name")
    if name:
        parsed = parse_template(name)
        if parsed.alias != row.name or (":" in name and parsed.tag != row.tag):
            return False
    return not sandbox_id or sandbox_id.partition("-")[0] == row.sandbox


def _number(fields: dict[str, Any], name: str, default: int) -> int:
    value = default if fields.get(name) is None else fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ControlFault(400, f"{name} must be a whole number")
    return value
