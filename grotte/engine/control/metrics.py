"""The handlers behind metrics, of one sandbox over time and of many at this moment."""

from __future__ import annotations

import math
import re

import msgspec

from grotte.engine.control.routes import Routes
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import plain_sandbox_id
from grotte.engine.lifecycle.metering import Sample
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Sandbox, rfc3339

#: How many sandboxes one question may be about.
MAX_SANDBOXES = 100


class Metric(msgspec.Struct, rename="camel"):
    """A sample as clients read it: every field is there, always."""

    timestamp: str
    timestamp_unix: int
    cpu_count: int
    cpu_used_pct: float
    mem_used: int
    mem_total: int
    mem_cache: int
    disk_used: int
    disk_total: int


class Metrics:
    """The handlers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> Routes:
        return {"GET /sandboxes/metrics": self.latest, "GET /sandboxes/{id}/metrics": self.history}

    async def history(self, request: Request, owner: str, sandbox_id: str) -> None:
        start, end = (_unix_seconds(request.query, name) for name in ("start", "end"))
        if start is not None and end is not None and start > end:
            raise ControlFault(400, "start must not be after end")
        sandbox = self._registry.owned(sandbox_id, owner)
        await self._registry.meter.now(sandbox)
        first, last = start or 0, math.inf if end is None else end
        # Whole seconds are asked for: the one that `end` names is part of it.
        samples = [sample for sample in sandbox.history if first <= sample.at < last + 1]
        await request.reply_json(200, [metric_of(sandbox, sample) for sample in samples])

    async def latest(self, request: Request, owner: str) -> None:
        wanted = [word for words in request.every("sandbox_ids") for word in words.split(",") if word]
        if not 1 <= len(wanted) <= MAX_SANDBOXES:
            raise ControlFault(400, f"sandbox_ids must name 1 to {MAX_SANDBOXES} sandboxes")
        found: dict[str, Metric] = {}
        for word in wanted:
            sandbox_id = plain_sandbox_id(word)
            if sandbox_id is None:
                raise ControlFault(400, f"invalid sandbox id: {word[:100]}")
            sandbox = self._registry.find(sandbox_id)
            if sandbox is None or sandbox.owner != owner:
                continue
            if (sample := await self._registry.meter.now(sandbox)) is not None:
                found[sandbox_id] = metric_of(sandbox, sample)
        await request.reply_json(200, {"sandboxes": found})


def metric_of(sandbox: Sandbox, sample: Sample) -> Metric:
    """A sample with what it is a part of."""
    return Metric(
        timestamp=rfc3339(round(sample.at * 1_000_000)),
        timestamp_unix=int(sample.at),
        cpu_count=sandbox.cpu_count,
        cpu_used_pct=sample.cpu_percent,
        mem_used=sample.memory,
        mem_total=sandbox.limits.memory_bytes,
        mem_cache=sample.cache,
        disk_used=sample.disk_used,
        disk_total=sample.disk_total,
    )


def _unix_seconds(query: dict[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ControlFault(400, f"{name} must be a number of seconds since 1970")
    return int(text)
