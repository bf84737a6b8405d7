"""Turns: work that a stranger feeds must not have the event loop to itself.

Awaiting does not suspend what can go on at once: whoever sends faster than it is read would keep all others waiting.
"""

from __future__ import annotations

import asyncio

#: Steps of a hundredth of a millisecond or so, and for how many bytes one stands.
MOST_STEPS, STEP_BYTES = 32, 8192


class Turns:
    """Counts steps, and lets others have their turn after a few.

    Example::

        turns = Turns()
        while (event := next_event()) is not None:
            await turns.step()
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_STEPS

    async def step(self, size: int = 0) -> None:
        """One step was taken.

        Args:
            size: Of how many bytes.
        """
        self._left -= 1 + size // STEP_BYTES
        if self._left <= 0:
            self._left = MOST_STEPS
            await asyncio.sleep(0)
