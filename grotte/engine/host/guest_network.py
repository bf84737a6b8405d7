"""The engine's view of one sandbox's way out: what stands, what was asked for, and why they differ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from .spec import Egress, HostError

#: More than the launcher gives itself.
ANSWER_SECONDS = 20


class GuestNetwork:
    """The network of one sandbox.

    Args:
        ask: Sends the launcher what is wanted.
        missing: Why this machine gives no sandbox a way out, or nothing.

    Attributes:
        egress: What the sandbox may reach at this moment; None for nothing at all.
        problem: Why that is less than what was asked for, or nothing.
    """

    def __init__(self, ask: Callable[[Egress | None], Awaitable[None]], missing: str) -> None:
        self.egress: Egress | None = None
        self.problem = missing
        self._missing = missing
        self._ask = ask
        self._asked: Egress | None = None
        self._answer: asyncio.Future[None] | None = None
        self._lock = anyio.Lock()

    def expect(self, egress: Egress | None) -> Egress | None:
        """The launcher is about to be asked together with the launch; return what it is to be asked for."""
        if egress is None or self._missing:
            return None
        self._asked, self._answer = egress, asyncio.get_running_loop().create_future()
        return egress

    async def settle(self) -> None:
        """Wait for the answer to what was expected; a sandbox without its network is still a sandbox."""
        if self._answer is not None:
            with anyio.move_on_after(ANSWER_SECONDS):
                await self._answer

    async def change(self, egress: Egress | None) -> None:
        """Replace what the sandbox may reach; commands started afterwards see no other network.

        Args:
            egress: The ranges; None takes the whole network away.

        Raises:
            HostError: It cannot be had; then the sandbox reaches nothing.
        """
        if egress is not None and self._missing:
            raise HostError(f"no internet access inside sandboxes: {self._missing}")
        async with self._lock:
            with anyio.CancelScope(shield=True):  # bounded, and half a change helps nobody
                await self._change(egress)

    async def _change(self, egress: Egress | None) -> None:
        await self.settle()
        self._asked, self._answer = egress, asyncio.get_running_loop().create_future()
        await self._ask(egress)
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                await self._answer
        except TimeoutError:
            self.problem = "the launcher did not answer in time"
        if egress is not None and self.egress is None:
            raise HostError(f"the sandbox's network cannot be set up: {self.problem}")

    def told(self, done: bool, reason: str) -> None:
        """The launcher tells how things stand, because it was asked or because the way out is lost."""
        self.egress, self.problem = (self._asked, "") if done else (None, reason)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def close(self) -> None:
        """The sandbox is gone."""
        self.told(False, "the sandbox is gone")
