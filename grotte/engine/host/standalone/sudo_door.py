"""Where ``sudo`` knocks: there from the start, so that nobody inside can take its place.

What answers is imported when the first one comes.
"""

from __future__ import annotations

import posix
import select

from .lean import AF_UNIX, SOCK_SEQPACKET, accept, socket, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .accounts import Accounts
    from .elevations import Elevations
    from .family import Numbers

ADDRESS = "/run/grotte/sudo"
BACKLOG = 64


class SudoDoor:
    """The listening socket, on the loop of a poller, and what serves those who come."""

    def __init__(self, poller: select.poll, accounts: Accounts, families: Numbers) -> None:
        self._poller = poller
        self._accounts = accounts
        self._families = families
        self._elevations: Elevations | None = None
        self._listener = socket(AF_UNIX, SOCK_SEQPACKET)
        self._listener.setblocking(False)
        with suppress(FileNotFoundError):
            posix.unlink(ADDRESS)
        self._listener.bind(ADDRESS)
        posix.chmod(ADDRESS, 0o666)  # who may have what is decided by the kernel's word on who asks
        self._listener.listen(BACKLOG)
        poller.register(self._listener, select.POLLIN)

    def serve(self, ready: set[int]) -> None:
        """Serve those of the descriptors that are clients, or new ones."""
        if self._elevations is None and self._listener.fileno() in ready:
            self._open()
        if self._elevations is not None:
            self._elevations.serve(ready)

    def _open(self) -> None:
        try:
            from .elevations import Elevations

            self._elevations = Elevations(self._listener, self._poller, self._accounts, self._families)
        except Exception:  # noqa: BLE001 - there is no memory left: who asks is turned away, and may come again
            with suppress(OSError):
                accept(self._listener).close()

    def ended(self, pid: int, status: int) -> None:
        """A process has ended; whoever waits for it is told."""
        if self._elevations is not None:
            self._elevations.ended(pid, status)
