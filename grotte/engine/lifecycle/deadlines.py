"""When which sandbox's time is up, on the event loop's clock."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Mapping

import anyio

from grotte.engine.lifecycle.sandbox import Sandbox

#: How many deadlines that hold no longer may wait for their moment, besides as many as there are sandboxes.
STALE = 64


class Deadlines:
    """The deadlines of all sandboxes, soonest first.

    Args:
        live: The sandboxes that have not ended, by id.
    """

    def __init__(self, live: Mapping[str, Sandbox]) -> None:
        self._live = live
        self._heap: list[tuple[float, str]] = []
        self._sooner = anyio.Event()

    def watch(self, sandbox: Sandbox) -> None:
        """It has another deadline than before."""
        if len(self._heap) > 2 * len(self._live) + STALE:
            self._heap = [(other.deadline, other.sandbox_id) for other in self._live.values()]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (sandbox.deadline, sandbox.sandbox_id))
        if self._heap[0][1] == sandbox.sandbox_id:
            self._sooner.set()

    async def over(self) -> AsyncIterator[Sandbox]:
        """Each sandbox in the moment when its time is up, for ever."""
        while True:
            self._sooner = anyio.Event()
            now = anyio.current_time()
            while self._heap and self._heap[0][0] <= now:
                deadline, sandbox_id = heapq.heappop(self._heap)
                # An entry whose sandbox got another deadline is stale: that deadline has an entry of its own.
                sandbox = self._live.get(sandbox_id)
                if sandbox is not None and deadline == sandbox.deadline:
                    yield sandbox
            wait = self._heap[0][0] - now if self._heap else float("inf")
            with anyio.move_on_after(wait):
                await self._sooner.wait()
