"""Who reads a connection that many share, without a task or thread of its own.

**The read baton.** Whoever waits and finds that nobody reads, reads for all: it waits until the socket is readable,
takes in what is there, hands it to the streams it belongs to and wakes those, and only those, whose wait is over.
When it leaves (its own wait is over, its deadline passed, it was cancelled) it wakes one of the parked to take the
baton. *Every* wait on a connection must be able to take it: somebody who only parks would wait for ever once the
last reader has left.

On asyncio the reader sleeps on while the event loop takes in what is for others (`look`). Those who run in the same
turn of the loop queue their frames, and one call at the turn's end sends all of them; on trio the reader does so.
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
        #: No parked stream's deadline is before this.
        self._soonest: float | None = None
        #: The reader waits on the socket right now, for writability too.
        self._blocked = False
        self._watches_write = False
        #: Nothing waits for the socket to become writable.
        self._all_sent = True
        #: What the event loop took in ended the reader's wait, and somebody else's.
        self._looked = self._woken = False
        #: When the reader looks up at the latest.
        self._until: float | None = None
        #: A `flush` comes at the end of this turn of the event loop.
        self._flush_due = False

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

    async def wait(self, stream: AsyncStream, goal: Callable[[AsyncStream], bool], scope: _aio.deadline_scope) -> None:
        """Return once `goal` holds; read for everybody whenever nobody else does."""
        stream.goal = goal
        while True:
            with self.lock:
                if goal(stream):
                    return
                event = None if self._reader is None else self._start_parking(stream, scope.step)
            if event is not None:
                await self._park(stream, event, scope)
            elif await self.read_for(stream, scope):
                return

    def _start_parking(self, stream: AsyncStream, deadline: float | None) -> _aio.Event:
        """Join the parked; the reader minds their deadlines, which costs less than a timer for each."""
        event = stream.event = _aio.Event()
        stream.deadline = deadline
        self._parked[stream] = None
        if deadline is not None and (self._soonest is None or deadline < self._soonest):
            self._soonest = deadline
            self.interrupt()
        return event

    async def _park(self, stream: AsyncStream, event: _aio.Event, scope: _aio.deadline_scope) -> None:
        try:
            await event.wait()
        except BaseException:
            self._unpark(stream, reads=False)
            raise
        if stream.ready() and self._heir is not stream:
            stream.event = None  # the ordinary case, in which whoever wakes also unparks
            return
        late = not stream.ready() and is_past(scope.step)
        self._unpark(stream, reads=not late)
        if late:
            await scope.expire()

    def _unpark(self, stream: AsyncStream, *, reads: bool) -> None:
        """Leave the parked; an heir that will not read leaves the baton to somebody else. Lock not held."""
        nobody = False
        with self.lock:
            stream.event = None
            self._parked.pop(stream, None)
            if self._heir is stream:
                self._heir = None
                if not reads or stream.ready():
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
        if not self._flush_due:
            self.flush()
        with self.lock:
            if party.ready() or self.closed:
                return True
            self._watches_write = not self._all_sent
            self._blocked = True
            self._looked = False
            until = self._until = earliest(self._alarm(), self._soonest, scope.step)
        await self._waiter.wait(self._watches_write, until, self._look)
        self._blocked = False  # it looks again by itself now: nobody needs to wake it
        if not self._looked:
            self.pump()
        now = _aio.clock()
        with self.lock:
            if now >= self._alarm():
                self._raise_alarm()
            if self._soonest is not None and now >= self._soonest:
                self._wake_late(now)
            if party.ready() or self.closed:
                return True
        if scope.step is not None and now >= scope.step:
            await scope.expire()
        return False

    def _look(self) -> bool:
        """Take in what came while the reader waits; True when that ends its wait."""
        self._blocked = False
        self.pump()
        if self._woken:  # they run next, and most will have something to send
            self._end_turn_with_flush()
        over = self.closed or not self._all_sent or self._reader is None or self._reader.ready()
        self._looked = over or earliest(self._until, self._alarm()) != self._until
        self._blocked = not self._looked
        return self._looked

    def _flush_soon(self) -> None:
        """Send what waits; in async, once for all who have something to say in this turn of the event loop."""
        if self._flush_due:
            return
        if not _aio.WRITES_IN_TURNS or (self._reader is None and self._heir is None):
            self.flush()
        elif not self._end_turn_with_flush():
            self.interrupt()

    def _end_turn_with_flush(self) -> bool:
        if not self._flush_due:
            self._flush_due = self._waiter.soon(self._flush_now_due)
        return self._flush_due

    def _flush_now_due(self) -> None:
        self._flush_due = False
        self.flush()

    def _wake_late(self, now: float) -> None:
        """Wake the parked whose deadline has passed."""
        left = [(stream, stream.deadline) for stream in self._parked if stream.deadline is not None]
        self._soonest = min((deadline for _, deadline in left if deadline > now), default=None)
        for stream, deadline in left:
            if deadline <= now:
                del self._parked[stream]
                stream.wake()

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


def is_past(deadline: float | None) -> bool:
    """Whether a deadline has passed."""
    return deadline is not None and _aio.clock() >= deadline
