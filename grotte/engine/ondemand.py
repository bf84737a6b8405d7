"""An engine on demand leaves when nobody needs it, and never under a client's feet."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from grotte._local import clients_lock, release, remove_address, try_exclusive

log = logging.getLogger("grotte.engine")

#: How often it looks for clients, in seconds.
POLL = 0.5


async def wait_until_unneeded(busy: Callable[[], bool], idle_seconds: float) -> None:
    """Return when there were neither sandboxes nor clients for so long.

    On return the address is withdrawn, and the clients' lock is held until this process ends: who wants an engine from
    now on waits for that, and starts a new one.
    """
    idle_since = anyio.current_time()
    poll = min(POLL, max(idle_seconds / 4, 0.01))
    while True:
        await anyio.sleep(poll)
        lock = None if busy() else try_exclusive(clients_lock())
        if lock is None:
            idle_since = anyio.current_time()
        elif anyio.current_time() - idle_since >= idle_seconds:
            log.info("event=idle seconds=%s", idle_seconds)
            remove_address()
            return
        else:
            release(lock)
