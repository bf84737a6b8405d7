"""Host names in the lists of what sandboxes may reach: the packet filter knows addresses only.

A name's addresses are looked up when it is set, and again while a running sandbox has it in a list. Those that it had
before stay, so that nothing under way is cut off, and nothing that was denied is let in.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import anyio

from grotte.engine.faults import ControlFault
from grotte.engine.host import Egress, GuestError, HostError
from grotte.engine.lifecycle.network import is_name
from grotte.engine.lifecycle.sandbox import Sandbox

log = logging.getLogger("grotte.engine")

#: Seconds between two looks at all names, and how long one may take.
INTERVAL, PATIENCE = 15.0, 5.0
#: How many addresses of a name are kept: those that came last.
MAX_ADDRESSES = 32


class Names:
    """The addresses of host names.

    Args:
        running: The sandboxes whose lists are kept up to date.
    """

    def __init__(self, running: Callable[[], Iterable[Sandbox]]) -> None:
        self._running = running
        self._addresses: dict[str, tuple[str, ...]] = {}

    async def resolved(self, egress: Egress | None) -> Egress | None:
        """The same with addresses in the place of names.

        Raises:
            ControlFault: 400, a name that is to be closed has no address.
        """
        names = set(_names(egress))
        if egress is None or not names:
            return egress
        await self._look_up(names)
        for text in egress.deny:
            if is_name(text) and not self._addresses.get(text):
                raise ControlFault(400, f"denyOut: {text!r} cannot be looked up, and so not be closed")
        return self.known(egress)

    def known(self, egress: Egress | None) -> Egress | None:
        """The same with the addresses that were found last."""
        if egress is None:
            return None
        return replace(egress, allow=tuple(self._ranges(egress.allow)), deny=tuple(self._ranges(egress.deny)))

    def _ranges(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            yield from self._addresses.get(text, ()) if is_name(text) else (text,)

    async def keep(self) -> None:
        """Look names up again, for ever; to be run as a task."""
        while True:
            await anyio.sleep(INTERVAL)
            users = [sandbox for sandbox in self._running() if any(_names(sandbox.network.egress))]
            wanted = {name for sandbox in users for name in _names(sandbox.network.egress)}
            for name in self._addresses.keys() - wanted:
                del self._addresses[name]
            await self._look_up(wanted)
            for sandbox in users:
                await self._update(sandbox)

    async def _update(self, sandbox: Sandbox) -> None:
        try:
            network = sandbox.guest.network
            egress = self.known(sandbox.network.egress)
            if network.egress is not None and network.egress != egress:
                await network.change(egress)
        except (GuestError, HostError) as error:  # it was paused or ended meanwhile, or reaches nothing now
            log.warning("event=names_not_updated sandbox=%s reason=%s", sandbox.sandbox_id, error)

    async def _look_up(self, names: set[str]) -> None:
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(self._look_at, name)

    async def _look_at(self, name: str) -> None:
        found: tuple[str, ...] = ()
        with anyio.move_on_after(PATIENCE):
            try:
                answers = await anyio.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
            except OSError as error:
                log.info("event=name_not_found name=%s reason=%s", name, error)
                return
            found = tuple(f"{address[0]}/32" for *_, address in answers)
        earlier = self._addresses.get(name, ())
        self._addresses[name] = tuple(dict.fromkeys((*sorted(found), *earlier)))[:MAX_ADDRESSES]


def _names(egress: Egress | None) -> Iterator[str]:
    if egress is not None:
        yield from filter(is_name, (*egress.allow, *egress.deny))
