"""`fleet.map`: many items, one result each, as they are done or in their order.

The workers belong to the fleet's own tasks, so nothing is yielded inside a nursery: the iteration may be left at any
point, and what still runs then is ended by `aclose`, by the end of its block, or at the latest by that of the fleet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from grotte._core import _aio
from grotte._core.fleet.effort import AsyncEffort, Outcome
from grotte._core.fleet.lease import Bell
from grotte._core.fleet.pool import AsyncPool
from grotte._core.sandbox import AsyncSandbox
from grotte._proto.fleet.results import FleetFailure, FleetResult, FleetSuccess
from grotte._proto.pinned import Pinned
from grotte.errors import FleetClosedException

T = TypeVar("T")
R = TypeVar("R")

#: How many results may wait for the one who iterates, besides one for each worker.
AHEAD = 64
#: How long `aclose` waits for functions that cannot be interrupted, in seconds.
CLOSE_SECONDS = 20.0


class AsyncFleetMap(Pinned, Generic[T, R]):
    """Results, one for each item: iterate over it, once.

    Work begins with the iteration and keeps a little ahead of it. `async with` around it ends what is left when the
    iteration is not carried through.

    Example:
        ```python
        async with fleet.map(evaluate, programs) as results:
            async for result in results:
                if result.ok and result.value == "found":
                    break
        ```
    """

    _instead = "its work goes on in its fleet; pass on the results"

    def __init__(
        self,
        pool: AsyncPool,
        crew: _aio.Crew,
        function: Callable[[AsyncSandbox, T], _aio.Eventually[R]],
        items: Iterable[T],
        *,
        ordered: bool,
        deadline: float | None,
        retries: int,
        workers: int,
    ) -> None:
        """Not to be called: `fleet.map` makes it."""
        self._crew = crew
        self._function = function
        self._items: Iterator[T] = iter(items)
        self._ordered = ordered
        self._workers = workers
        self._effort: AsyncEffort[R] = AsyncEffort(pool, crew, deadline, retries)
        self._pool = pool
        self._lock = _aio.Lock()
        self._turn = _aio.Lock()
        self._bell = Bell()
        self._nursery: _aio.Nursery | None = None
        self._results: dict[int, FleetResult[T, R]] = {}
        self._begun = self._drained = self._exhausted = self._closing = False
        self._taken = self._given = self._hired = self._working = 0
        self._failure: Exception | None = None
        self._ended = _aio.Event()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(workers={self._workers}, given={self._given}, closing={self._closing})"

    def __aiter__(self) -> AsyncIterator[FleetResult[T, R]]:
        return self

    async def __anext__(self) -> FleetResult[T, R]:
        """The next result.

        Raises:
            FleetClosedException: the fleet's block ended before all items were done.
        """
        self._begin()
        while True:
            rung = self._bell.listen()
            with self._lock:
                result = self._next_result()
                over = result is None and self._drained and not self._working
            if result is not None:
                self._bell.ring()
                return result
            if over:
                self._check_complete()
                raise StopAsyncIteration
            await rung.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way; further results are not wanted."""
        with self._lock:
            self._closing = self._drained = True
            begun, self._begun = self._begun, True
            self._bell.ring()
        if not begun:
            return
        if self._nursery is not None:
            self._nursery.cancel()
        for lease in list(self._effort.holds):
            # a function on a thread ends when its sandbox does
            await self._pool.dispose(lease, among=self._effort.holds)
        with _aio.shield(CLOSE_SECONDS):
            await self._ended.wait(_aio.clock() + CLOSE_SECONDS)

    def _check_complete(self) -> None:
        """Every item has had its result, or there is a reason why not."""
        if self._failure is not None:
            raise self._failure
        if not self._closing and (not self._exhausted or self._given < self._taken):
            raise FleetClosedException("the fleet's block ended before all items were done")

    def _next_result(self) -> FleetResult[T, R] | None:
        if self._closing or not self._results or (self._ordered and self._given not in self._results):
            return None
        index = self._given if self._ordered else next(iter(self._results))
        self._given += 1
        return self._results.pop(index)

    def _begin(self) -> None:
        with self._lock:
            begun, self._begun = self._begun, True
            if not begun:
                self._working = self._hired = 1
        if not begun:
            self._crew.start_soon(self._employ)

    async def _employ(self) -> None:
        try:
            async with _aio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._work, nursery)
        finally:
            with self._lock:
                self._working, self._drained = 0, True
            self._ended.set()
            self._bell.ring()

    async def _work(self, nursery: _aio.Nursery) -> None:
        try:
            while await self._has_room():
                taken = self._take()
                if taken is None:
                    return
                self._hire(nursery)
                index, item = taken
                outcome = await self._effort.carry_out(partial(self._call, item))
                self._put(index, item, outcome)
        except FleetClosedException as error:
            self._break_off(error)
        finally:
            with self._lock:
                self._working -= 1
            self._bell.ring()

    def _call(self, item: T, sandbox: AsyncSandbox) -> _aio.Eventually[R]:
        return self._function(sandbox, item)

    async def _has_room(self) -> bool:
        """Wait until another item may be begun; False when none should be."""
        while True:
            rung = self._bell.listen()
            with self._lock:
                if self._closing or self._drained:
                    return False
                if self._taken - self._given < self._workers + AHEAD:
                    return True
            await rung.wait()

    def _take(self) -> tuple[int, T] | None:
        """The next item, if there is one; items come from a program of the user's, which may fail."""
        with self._turn:
            if self._drained:
                return None
            try:
                item = next(self._items)
            except StopIteration:
                self._drained = self._exhausted = True
                return None
            except Exception as error:  # noqa: BLE001 - raised where results are taken
                self._break_off(error)
                return None
            with self._lock:
                self._taken += 1
                return self._taken - 1, item

    def _hire(self, nursery: _aio.Nursery) -> None:
        """One more worker as long as there are items for it: a few items need only a few."""
        with self._lock:
            if self._hired >= self._workers or self._drained:
                return
            self._hired += 1
            self._working += 1
        nursery.start_soon(self._work, nursery)

    def _put(self, index: int, item: T, outcome: Outcome[R]) -> None:
        attempts = tuple(outcome.attempts)
        result: FleetResult[T, R]
        if outcome.error is None:
            result = FleetSuccess(index, item, outcome.values[-1], attempts)
        else:
            result = FleetFailure(index, item, outcome.error, outcome.kind, attempts)
        with self._lock:
            self._results[index] = result
        self._bell.ring()

    def _break_off(self, error: Exception) -> None:
        with self._lock:
            self._failure = self._failure or error
            self._drained = True
