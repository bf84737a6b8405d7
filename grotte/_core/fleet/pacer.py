"""The one task of a fleet that begins creations: when there is need, room, a slot of the budget, and it is time."""

from __future__ import annotations

import logging
import random
import time

from grotte._budget import POLL_SECONDS, BudgetLine, Slot
from grotte._core import _aio
from grotte._core.fleet.pool import AsyncPool

logger = logging.getLogger("grotte.fleet")

#: How often it is looked whether a sandbox of a fleet that was killed is gone, in seconds.
CLEAN_SECONDS = 1.0


class AsyncPacer:
    """Begins creations, each in a task of the crew.

    Args:
        pool: For whom.
        crew: Who carries them out.
        line: The place before the turnstile of a shared budget; None without one.
    """

    def __init__(self, pool: AsyncPool, crew: _aio.Crew, line: BudgetLine | None) -> None:
        self._pool = pool
        self._crew = crew
        self._line = line
        #: Slots that are ours and not in use: those whose former sandboxes had to be ended first.
        self._slots: list[Slot] = []
        self._cleaning = 0

    async def run(self) -> None:
        """Until the fleet is closed."""
        try:
            while not self._pool.closed.is_set():
                await self._step()
        except Exception as error:  # noqa: BLE001 - without a pacer those who wait would wait for ever
            self._pool.fail(error)
        finally:
            self._leave_line()

    async def _step(self) -> None:
        pool = self._pool
        rung = pool.bell.listen()
        for lease in pool.surplus():
            self._crew.start_soon(pool.dispose, lease)
        now = _aio.clock()
        opening = pool.opening(now)
        if opening is None:
            self._leave_line()
            await rung.wait()
        elif opening > now:
            left = pool.bear(now)
            await rung.wait(opening if left <= 0 else min(opening, now + left))
        elif self._line is None:
            self._begin(None)
        else:
            await self._with_budget(self._line, rung)

    def _begin(self, slot: Slot | None) -> None:
        start = self._pool.begin(_aio.clock())
        if start is not None:
            self._crew.start_soon(self._pool.make, start, slot)
        elif slot is not None:
            self._slots.append(slot)

    async def _with_budget(self, line: BudgetLine, rung: _aio.Event) -> None:
        slot = self._slots.pop() if self._slots else None
        if slot is None and self._cleaning < self._pool.need():
            slot = line.try_take()
        if slot is None:
            # jitter: processes that wait must not look at the same moments for ever
            pause = POLL_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
            await _aio.sleep(pause)
        elif slot.note is None:
            self._begin(slot)
        else:
            self._cleaning += 1
            self._crew.start_soon(self._clean, slot)

    async def _clean(self, slot: Slot) -> None:
        """End what a fleet that was killed has left in a slot; only then is it free."""
        note, clean = slot.note, False
        assert note is not None
        try:
            while not clean and not self._pool.closed.is_set():
                clean = time.time() >= note.until or await self._pool.recipe.has_ended(note)
                if not clean:
                    await self._pool.closed.wait(_aio.clock() + CLEAN_SECONDS)
        finally:
            self._cleaning -= 1
            if clean:
                slot.note = None
                self._slots.append(slot)
                self._pool.bell.ring()
            else:
                slot.abandon()

    def _leave_line(self) -> None:
        """Nobody waits: the others may go first, and have what we do not use."""
        if self._line is not None:
            self._line.leave()
        while self._slots:
            self._slots.pop().release()
