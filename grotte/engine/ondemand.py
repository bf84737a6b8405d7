"""An engine on demand leaves when nobody needs it, and never under a client's feet; its log stays small."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import anyio

from grotte._local import clients_lock, release, remove_address, try_exclusive

log = logging.getLogger("grotte.engine")

#: How large the log of an engine on demand may grow, in bytes: it lies where users have little room.
MAX_LOG = 4 << 20

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


class ShortLog(logging.StreamHandler[TextIO]):
    """Writes to stderr; where that is a file to append to, the older half of it goes when it has grown too long."""

    def __init__(self, most: int = MAX_LOG) -> None:
        super().__init__(sys.stderr)
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with suppress(OSError, ValueError):  # no file, a full disk, or no stderr at all
            self._cut(self.stream.fileno())

    def _cut(self, fd: int) -> None:
        state = os.fstat(fd)
        if state.st_size <= self._most or not stat.S_ISREG(state.st_mode):
            return
        kept = os.pread(fd, self._most // 2, state.st_size - self._most // 2)
        os.ftruncate(fd, 0)
        os.write(fd, kept.partition(b"\n")[2])
