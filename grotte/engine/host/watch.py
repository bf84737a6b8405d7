"""A watch on a directory of a sandbox, as the engine's services see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import anyio
import msgspec

from .spec import Entry, GuestError

#: A guest that always has more is not asked for ever.
MAX_ROUNDS = 64


class WatchEvent(msgspec.Struct, frozen=True):
    """Something that happened below a watched directory.

    Attributes:
        name: Relative to the watched directory.
        type: What.
        entry: What is there now, if that was asked for and still is there.
    """

    name: str
    type: Literal["EVENT_TYPE_CREATE", "EVENT_TYPE_WRITE", "EVENT_TYPE_REMOVE", "EVENT_TYPE_RENAME", "EVENT_TYPE_CHMOD"]
    entry: Entry | None = None


class TakenEvents(msgspec.Struct):
    """The guest's answer to a question for events."""

    events: list[WatchEvent]
    more: bool
    failure: str | None = None


class Watch:
    """Events wait in the sandbox until they are taken; when too many do, the watch fails.

    Args:
        ask: Asks the guest for events.
        forget: Tells it that the watch is over.
    """

    def __init__(self, ask: Callable[[], Awaitable[TakenEvents]], forget: Callable[[], None]) -> None:
        self._ask = ask
        self._forget = forget
        self._over = False
        self._news = anyio.Event()
        self._news.set()  # the guest rings for what comes after the first look

    def ring(self) -> None:
        """There is something to take, or the sandbox is gone."""
        self._news.set()

    async def wait(self) -> None:
        """Wait until there is something to take."""
        await self._news.wait()

    async def take(self) -> list[WatchEvent]:
        """Return what has happened up to now since the last call, perhaps nothing.

        Raises:
            GuestError: ``internal``, events were lost after those that were returned; ``not_found``, the watch was
                closed; or the sandbox is gone.
        """
        if self._over:  # the guest may hear of the end after this question
            raise GuestError("not_found", "the watch is over")
        taken: list[WatchEvent] = []
        self._news = anyio.Event()
        for _ in range(MAX_ROUNDS):
            answer = await self._ask()
            taken += answer.events
            if answer.failure is not None and not taken:
                raise GuestError("internal", answer.failure)
            if not answer.more or answer.failure is not None:
                break
        if answer.more:
            self._news.set()
        return taken

    def close(self) -> None:
        """Stop watching."""
        self._over = True
        self._forget()
