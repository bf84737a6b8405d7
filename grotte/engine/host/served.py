"""Processes of the launcher's that serve the engine itself: started when first needed, and again if they ended."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import anyio

from .frames import GuestMessage
from .link import Abandoned, Answer, GuestLink
from .spec import GuestError


class Served:
    """One of them, by its link.

    Args:
        start: Makes the launcher serve the other end of a link.
    """

    def __init__(self, start: Callable[[int], Awaitable[None]]) -> None:
        self._start = start
        self._starting = anyio.Lock()
        self._link: GuestLink | None = None

    async def request(self, op: str, arguments: dict[str, object], abandoned: Abandoned | None = None) -> Answer:
        """Ask for something; see `GuestLink.request`.

        Raises:
            GuestError: It was refused, or the process is gone.
        """
        link = self._link or await self._connect()
        return await link.request(op, arguments, (), abandoned)

    def post(self, op: str, arguments: dict[str, object]) -> None:
        """Ask for something whose answer nobody needs, if there is anybody to ask."""
        if self._link is not None:
            self._link.post(op, arguments)

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.close("the engine ended")

    async def _connect(self) -> GuestLink:
        async with self._starting:
            if self._link is not None:
                return self._link
            ours, theirs = socket.socketpair()
            try:
                await self._start(theirs.fileno())
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            self._link = GuestLink(ours, _ignore, self._lost)
            return self._link

    def _lost(self, reason: str) -> None:
        self._link = None


def _ignore(message: GuestMessage) -> None:
    raise GuestError("internal", "they tell nothing by themselves")
