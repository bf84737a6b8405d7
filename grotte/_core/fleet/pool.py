"""The sandboxes of a fleet: asked for in a line, given back, replaced, and all ended at the end.

What has to be decided is decided in `grotte/_proto/fleet`, under one lock that is never held across a wait; here it is
carried out. A sandbox is in `leases` from the moment it exists until it is known to be gone, so nothing is forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Container

from grotte._budget import Slot
from grotte._core import _aio
from grotte._core.fleet.lease import AsyncLease, Bell
from grotte._core.fleet.recipe import KILL_SECONDS, AsyncRecipe, Prepare
from grotte._proto.fleet.admission import Admission, Limits, Start
from grotte._proto.fleet.desk import Desk, Ticket
from grotte._proto.fleet.results import FleetStats
from grotte._proto.fleet.tally import Tally
from grotte._proto.fleet.verdicts import creation_failure
from grotte.errors import FleetClosedException, GrotteException, TimeoutException

logger = logging.getLogger("grotte.fleet")

#: How many creations may break while somebody is the first in line, before that is told.
TROUBLES = 2
#: How long nothing is created after one broke: so long at first, twice as long after the next, in seconds.
FIRST_REST = 0.1
LONGEST_REST = 5.0
#: What stood ready for longer than this is asked whether it still runs, in seconds.
IDLE_SECONDS = 1.0
#: How many are killed, and kept alive, at a time.
PARALLEL = 64


class AsyncPool:
    """All sandboxes of a fleet.

    Args:
        recipe: How they are made.
        limits: How many.
        reuse: Whether they are handed on; a function is called in between.
        patience: How long creations may be refused before those who wait are told, in seconds.
    """

    def __init__(self, recipe: AsyncRecipe, limits: Limits, *, reuse: bool | Prepare, patience: float) -> None:
        self.recipe = recipe
        self.tally = Tally()
        self.bell = Bell()
        self.closed = _aio.Event()
        self._admission = Admission(limits)
        self._desk: Desk[AsyncLease] = Desk()
        self._lock = _aio.Lock()
        self._leases: set[AsyncLease] = set()
        self._spares = 0
        self._reuse = reuse
        self._patience = patience
        self._kept = limits.size if reuse else 0
        self._broken_in_row = 0
        self._fault: Exception | None = None
        self._refusal: Exception | None = None

    # -- those who use them ----------------------------------------------------------------------------------------

    async def acquire(self, deadline: float | None = None) -> AsyncLease:
        """Wait for a sandbox, in line.

        Raises:
            FleetClosedException: the fleet's block ends.
            TimeoutException: the deadline passed.
            GrotteException: none can be created.
        """
        lease = await self._next(deadline)
        while not await self._is_fit(lease):
            await self.dispose(lease)
            lease = await self._next(deadline, again=True)
        return lease

    async def give_back(self, lease: AsyncLease, *, clean: bool) -> None:
        """Hand it on if that is wanted and it is `clean`, else end it."""
        if clean and self._reuse and await self._was_reset(lease):
            lease.idle_since = _aio.clock()
            if self._offer(lease):
                return
        await self.dispose(lease)

    async def dispose(self, lease: AsyncLease, among: Container[AsyncLease] | None = None) -> None:
        """End it, if it is still `among` those that the caller holds; whoever comes second waits for the first."""
        with self._lock:
            if among is not None and lease not in among:
                return  # somebody else may have it by now
            first, lease.ending = not lease.ending, True
        if not first:
            await lease.gone.wait(_aio.clock() + KILL_SECONDS)
            return
        try:
            lease.failure = await self.recipe.kill(lease.sandbox)
        except BaseException:
            lease.failure = GrotteException("killing it was interrupted", sandbox_id=lease.sandbox.sandbox_id)
            lease.ending = False
            raise
        if lease.failure is None:
            self._forget(lease)
        else:
            # it counts until it is gone: the keeper tries again
            lease.ending = False
            logger.warning("sandbox %s could not be killed: %s", lease.sandbox.sandbox_id, lease.failure)
        lease.gone.set()

    async def expire(self, lease: AsyncLease, deadline: float, over: _aio.Event) -> None:
        """End it at a deadline unless `over` is set before: how threads are kept from staying for ever."""
        if not await over.wait(deadline):
            lease.expired = True
            await self.dispose(lease)

    async def _next(self, deadline: float | None, *, again: bool = False) -> AsyncLease:
        event = _aio.Event()
        with self._lock:
            self._check_open()
            ticket = self._desk.ask(event.set, again=again)
            self.bell.ring()
        try:
            if not await event.wait(deadline):
                raise TimeoutException("no sandbox of the fleet became free in time")
            if ticket.error is not None:
                raise ticket.error
        except BaseException:
            self._withdraw(ticket)
            raise
        assert ticket.served is not None
        return ticket.served

    def _withdraw(self, ticket: Ticket[AsyncLease]) -> None:
        """Whoever waited has gone away; what it had got by then goes to the next one."""
        with self._lock:
            lease = self._desk.withdraw(ticket)
            if lease is not None and not self.closed.is_set():
                self._desk.offer(lease)
            self.bell.ring()

    async def _is_fit(self, lease: AsyncLease) -> bool:
        """Whether what may have stood ready for long still runs."""
        if lease.idle_since is None or _aio.clock() - lease.idle_since < IDLE_SECONDS:
            return not lease.lost
        try:
            runs = not lease.lost and await lease.sandbox.is_running(KILL_SECONDS)
        except GrotteException:
            runs = False
        except BaseException:
            await self.dispose(lease)
            raise
        if not runs:
            self.count_lost(lease)
        return runs

    async def _was_reset(self, lease: AsyncLease) -> bool:
        if not callable(self._reuse):
            return True
        try:
            await self._reuse(lease.sandbox)
        except Exception as error:  # noqa: BLE001 - a sandbox that cannot be reset is replaced, whatever the reason
            logger.info("sandbox %s could not be reset, and is replaced: %s", lease.sandbox.sandbox_id, error)
            return False
        except BaseException:
            await self.dispose(lease)
            raise
        return True

    def _offer(self, lease: AsyncLease) -> bool:
        """To the next in line, or to the spares; False: it is not wanted."""
        with self._lock:
            if self.closed.is_set() or lease.ending:
                return False
            if not self._desk.waiting and self._desk.ready >= self._kept:
                return False
            self._desk.offer(lease)
            self.bell.ring()
        return True

    def _forget(self, lease: AsyncLease) -> None:
        with self._lock:
            if lease not in self._leases:
                return
            self._leases.discard(lease)
            self._admission.ended(_aio.clock())
            self.bell.ring()
        if lease.slot is not None:
            lease.slot.release()

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise FleetClosedException("the fleet's block has ended: it gives no sandboxes any more")
        if self._fault is not None:
            raise self._fault

    # -- those who make them ---------------------------------------------------------------------------------------

    def need(self) -> int:
        """How many more creations are wanted."""
        with self._lock:
            desk, admission = self._desk, self._admission
            return 0 if self.closed.is_set() else desk.waiting + self._spares - desk.ready - admission.starting

    def opening(self, now: float) -> float | None:
        """When the next creation may begin; None: not before the bell rings."""
        if self.need() <= 0:
            return None
        with self._lock:
            return self._admission.opening(now)

    def bear(self, now: float) -> float:
        """How long to bear refusals yet, in seconds.

        When that is over those who wait are told, unless another attempt is due soon.
        """
        with self._lock:
            left = self._patience - self._admission.stuck_for(now)
            if left <= 0 and self._refusal is not None and self._admission.told_to_wait(now):
                self._desk.despair(self._refusal)
        return left

    def begin(self, now: float) -> Start | None:
        """Take the permission for one creation, if there still is one."""
        with self._lock:
            return self._admission.start(now) if self._admission.opening(now) == now else None

    async def make(self, start: Start, slot: Slot | None) -> None:
        """Create one sandbox, for whoever is first in line by then."""
        try:
            sandbox = await self.recipe.create(slot)
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            if slot is not None:
                slot.release()
            self._not_made(start, error)
            return
        except BaseException:
            if slot is not None:
                slot.abandon()  # the next holder looks whether there is a sandbox after all
            with self._lock:
                self._admission.failed()
            raise
        lease = AsyncLease(sandbox, slot)
        with self._lock:
            self._leases.add(lease)
            self._admission.succeeded()
            self._broken_in_row = 0
            self.tally.was_created(_aio.clock() - start.at)
        if not self._offer(lease):
            await self.dispose(lease)

    def _not_made(self, start: Start, error: Exception) -> None:
        kind, now = creation_failure(error), _aio.clock()
        with self._lock:
            if kind == "no room":
                self.tally.refused += 1
                wish = error.retry_after if isinstance(error, GrotteException) else None
                self._admission.refused(start, now, wish)
                self._refusal = error
                if self._admission.stuck_for(now) > self._patience:
                    self._desk.despair(error)
            else:
                self.tally.broken += 1
                self._admission.failed()
                heard = self._desk.trouble(error, 0 if kind == "wrong" else TROUBLES)
                self._rest(now, lonely=not heard, wrong=kind == "wrong")
            self.bell.ring()
        logger.info("a sandbox could not be created (%s): %s", kind, error)

    def _rest(self, now: float, *, lonely: bool, wrong: bool) -> None:
        """Nothing is gained by trying again at once, least of all for spares that nobody waits for."""
        self._broken_in_row += 1
        if lonely:
            self._admission.rest(now, LONGEST_REST)
        elif not wrong:
            self._admission.rest(now, min(LONGEST_REST, FIRST_REST * 2.0 ** min(self._broken_in_row, 10)))

    def fail(self, error: Exception) -> None:
        """Nothing can be created any more."""
        with self._lock:
            self._fault = error
            self._desk.despair(error)
        logger.error("the fleet cannot create sandboxes any more: %s", error)

    # -- those who look after them ---------------------------------------------------------------------------------

    def living(self) -> list[AsyncLease]:
        """Those that are not known to be gone."""
        with self._lock:
            return list(self._leases)

    def take_back(self, lease: AsyncLease) -> bool:
        """Take it from the spares; False: somebody has it."""
        with self._lock:
            return self._desk.take_back(lease)

    def surplus(self) -> list[AsyncLease]:
        """Those that stand ready although nobody asked for so many, which have to be ended."""
        with self._lock:
            return [] if self.closed.is_set() else self._desk.surplus(self._kept)

    def keep_spares(self, spares: int) -> None:
        """Keep so many ready from now on."""
        with self._lock:
            self._spares = spares
            self._kept = max(self._kept, spares)
            self.bell.ring()

    def count_lost(self, lease: AsyncLease) -> None:
        """A sandbox ended by itself, or cannot be reached any more."""
        with self._lock:
            self.tally.lost += not lease.lost
            lease.lost = True

    def count_retry(self) -> None:
        """An item is tried again."""
        with self._lock:
            self.tally.retries += 1

    def count_item(self, seconds: float, *, ok: bool) -> None:
        """An item has its result."""
        with self._lock:
            self.tally.was_done(seconds, ok=ok)

    def stats(self) -> FleetStats:
        """How things are."""
        with self._lock:
            idle = self._desk.ready
            in_use = len(self._leases) - idle
            return self.tally.snapshot(self._admission, ready=idle, in_use=in_use, waiting=self._desk.waiting)

    # -- the end ---------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Give out nothing any more, and begin nothing."""
        with self._lock:
            self.closed.set()
            self._desk.close(FleetClosedException("the fleet's block has ended while this waited"))
            self.bell.ring()

    async def end_all(self, seconds: float) -> None:
        """Kill all that live, side by side, as far as the time goes; those that are being killed are waited for."""
        left, until = self.living(), _aio.clock() + seconds
        async with _aio.open_nursery() as nursery:
            for _ in range(min(PARALLEL, len(left))):
                nursery.start_soon(self._end_some, left, until)

    async def _end_some(self, left: list[AsyncLease], until: float) -> None:
        while _aio.clock() < until:
            with self._lock:
                lease = left.pop() if left else None
            if lease is None:
                return
            await self.dispose(lease)

    def left_behind(self) -> tuple[str, ...]:
        """The ids of those that could not be killed; their budget stays taken until they are gone."""
        leases = self.living()
        for lease in leases:
            if lease.slot is not None:
                lease.slot.abandon()
        return tuple(lease.sandbox.sandbox_id for lease in leases)
