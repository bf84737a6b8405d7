"""One item's way through sandboxes: until there is a value, a failure of its own, or enough of others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from grotte._core import _aio
from grotte._core.fleet.lease import AsyncLease
from grotte._core.fleet.pool import AsyncPool
from grotte._core.sandbox import AsyncSandbox
from grotte._proto.fleet.results import FailureKind, FleetAttempt
from grotte._proto.fleet.verdicts import creation_failure, is_infrastructure
from grotte.errors import FleetClosedException, TimeoutException

R = TypeVar("R")


@dataclass(slots=True)
class Outcome(Generic[R]):
    """What came of an item.

    Attributes:
        values: The value, if there is one.
        error: The last failure, if there is none.
        kind: Whose failure that is.
        attempts: All tries.
    """

    values: list[R] = field(default_factory=list)
    error: Exception | None = None
    kind: FailureKind = "function"
    attempts: list[FleetAttempt] = field(default_factory=list)


class AsyncEffort(Generic[R]):
    """Runs a function in a sandbox, in another one if the first one fails it.

    Args:
        pool: Where sandboxes come from.
        crew: Who watches deadlines where functions cannot be interrupted.
        deadline: How long the function may run, all tries together, in seconds; None for ever.
        retries: How often an item is tried again.
    """

    def __init__(self, pool: AsyncPool, crew: _aio.Crew, deadline: float | None, retries: int) -> None:
        self._pool = pool
        self._crew = crew
        self._deadline = deadline
        self._retries = retries
        self.holds: set[AsyncLease] = set()

    async def carry_out(self, function: Callable[[AsyncSandbox], _aio.Eventually[R]]) -> Outcome[R]:
        """Run it until there is an outcome.

        Raises:
            FleetClosedException: the fleet's block ends.
        """
        outcome: Outcome[R] = Outcome()
        begun = _aio.clock()
        while await self._try(function, outcome):
            self._pool.count_retry()
        self._pool.count_item(_aio.clock() - begun, ok=outcome.error is None)
        return outcome

    async def _try(self, function: Callable[[AsyncSandbox], _aio.Eventually[R]], outcome: Outcome[R]) -> bool:
        """One try; whether another one should follow."""
        begun = _aio.clock()
        try:
            lease = await self._pool.acquire()
        except FleetClosedException:
            raise
        except Exception as error:  # noqa: BLE001 - a result like others
            outcome.attempts.append(FleetAttempt(None, _aio.clock() - begun, error))
            outcome.error, outcome.kind = error, "infrastructure"
            again = creation_failure(error) == "broken"
        else:
            again = await self._try_in(lease, function, outcome)
        return again and len(outcome.attempts) <= self._retries and not self._pool.closed.is_set()

    async def _try_in(
        self, lease: AsyncLease, function: Callable[[AsyncSandbox], _aio.Eventually[R]], outcome: Outcome[R]
    ) -> bool:
        self.holds.add(lease)
        outcome.error = None
        begun = _aio.clock()
        try:
            late = await self._run(lease, function, outcome)
        finally:
            seconds = _aio.clock() - begun
            self.holds.discard(lease)
            await self._pool.give_back(lease, clean=bool(outcome.values) and outcome.error is None)
        if late:
            text = f"the item took longer than its deadline of {self._deadline:g} s"
            outcome.error = TimeoutException(text, sandbox_id=lease.sandbox.sandbox_id)
        outcome.attempts.append(FleetAttempt(lease.sandbox.sandbox_id, seconds, outcome.error))
        if outcome.error is None:
            return False
        outcome.kind = "deadline" if late else "function"
        if late or not is_infrastructure(outcome.error, lease.sandbox.sandbox_id):
            return False
        outcome.kind = "infrastructure"
        self._pool.count_lost(lease)
        return True

    async def _run(
        self, lease: AsyncLease, function: Callable[[AsyncSandbox], _aio.Eventually[R]], outcome: Outcome[R]
    ) -> bool:
        """Run the function; whether its deadline passed."""
        spent = sum(attempt.seconds for attempt in outcome.attempts if attempt.sandbox_id is not None)
        limit = None if self._deadline is None else _aio.clock() + self._deadline - spent
        over = _aio.Event()
        if limit is not None and not _aio.INTERRUPTS:
            self._crew.start_soon(self._pool.expire, lease, limit, over)
        with _aio.deadline_scope(limit) as scope:
            try:
                outcome.values.append(await function(lease.sandbox))
            except Exception as error:  # noqa: BLE001 - a result like others
                outcome.error = error
            finally:
                over.set()
        failed_late = outcome.error is not None and limit is not None and _aio.clock() >= limit
        return not outcome.values and (scope.expired or lease.expired or failed_late)
