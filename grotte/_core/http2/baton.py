"""Who reads a connection that many share, without a task or thread of its own.

**The read baton.** Whoever waits and finds that nobody reads, reads for all: it waits until the socket is readable,
takes in what is there, hands it to the streams it belongs to and wakes those, and only those, whose wait is over.
When it leaves (its own wait is over, its deadline passed, it was cancelled) it wakes one of the parked to take the
baton. *Every* wait on a connection must be able to take it: somebody who only parks would wait for ever once the
last reader has left.

In async the reader is the writer too: those who run in the same turn of the event loop queue their frames, and the
reader, which one of them wakes, sends all of them with one system call.
"""

from __future__ import annotations

from collections.abc import Callable

from grotte._core import _aio
from grotte._core.http2.stream import AsyncParty, AsyncStream
from grotte._proto.options import earliest


class AsyncBaton:
    """The waiting half of a connection; the other half says what reading is.

    Methods that say so must be called with `lock` held; the others take it.
    """

    def __init__(self, lock: _aio.Lock, waiter: _aio.SocketWaiter) -> None:
        self.lock = lock
        self.closed = False
        self._waiter = waiter
        self._reader: AsyncParty | None = None
        #: Who waits while somebody else reads; who has been woken to read next but did not run yet.
        self._parked: dict[AsyncStream, None] = {}
        self._heir: AsyncStream | None = None
        #: The reader waits on the socket right now, for writability too.
        self._blocked = False
        self._watches_write = False
        #: Nothing waits for the socket to become writable.
        self._all_sent = True

    def pump(self) -> None:
        """Take in what has arrived, then send what waits; never blocks. Lock not held."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what waits; never blocks. Lock not held."""
        raise NotImplementedError

    def _alarm(self) -> float:
        """When the reader should look up although nothing came."""
        raise NotImplementedError

    def _raise_alarm(self) -> None:
        raise NotImplementedError

    def _nobody_left(self) -> None:
        """The baton is free and nobody is parked."""
        raise NotImplementedError

    @property
    def unread(self) -> bool:
        """Whether somebody could read here."""
        return self._reader is None and not self.closed

    async def wait(self, stream: AsyncStream, goal: Callable[[], bool], scope: _aio.deadline_scope) -> None:
        """Return once `goal` holds; read for everybody whenever nobody else does."""
        stream.goal = goal
        while not await self.read_for(stream, scope):
            with self.lock:
                if stream.ready():
                    return
                if self._reader is None:
                    continue
                event = stream.event = _aio.Event()
                self._parked[stream] = None
            await self._park(stream, event, scope)

    async def _park(self, stream: AsyncStream, event: _aio.Event, scope: _aio.deadline_scope) -> None:
        woken = nobody = False
        try:
            woken = await event.wait(scope.step)
            if not woken:
                await scope.expire()
        finally:
            with self.lock:
                stream.event = None
                self._parked.pop(stream, None)
                if self._heir is stream:
                    self._heir = None
                    if not woken or stream.ready():  # it will not read: somebody else must
                        nobody = self._pass_baton()
            if nobody:
                self.flush()

    async def read_for(self, party: AsyncParty, scope: _aio.deadline_scope) -> bool:
        """Read for everybody until the party's wait is over; False when somebody reads already."""
        with self.lock:
            if party.ready():
                return True
            if self._reader is not None or self.closed:
                return False
            self._reader = party
            party.reading = self
        try:
            while not await self._read_once(party, scope):
                pass
        finally:
            with self.lock:
                self._reader = party.reading = None
                self._blocked = False
                nobody = self._pass_baton()
            if nobody:
                self.flush()  # what was left to the reader that is not
        return True

    async def _read_once(self, party: AsyncParty, scope: _aio.deadline_scope) -> bool:
        self.flush()
        with self.lock:
            if party.ready() or self.closed:
                return True
            self._watches_write = not self._all_sent
            self._blocked = True
            alarm = self._alarm()
        heard = await self._waiter.wait(self._watches_write, earliest(alarm, scope.step))
        self.pump()
        with self.lock:
            self._blocked = False
            if not heard and _aio.clock() >= alarm:
                self._raise_alarm()
            if party.ready() or self.closed:
                return True
        if not heard and scope.step is not None and _aio.clock() >= scope.step:
            await scope.expire()
        return False

    def interrupt(self) -> None:
        """Make the reader look again. Lock held."""
        if self._blocked:
            self._blocked = False
            self._waiter.wake()

    def _pass_baton(self) -> bool:
        """Have somebody else read; True when there is nobody. Lock held."""
        if self._reader is not None or self._heir is not None:
            return False
        if self._parked and not self.closed:
            self._heir = next(iter(self._parked))
            del self._parked[self._heir]
            self._heir.wake()
            return False
        self._nobody_left()
        return True
