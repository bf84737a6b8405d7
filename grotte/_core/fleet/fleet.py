"""Hundreds of sandboxes from one program: a block that owns them all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

from grotte._budget import SharedBudget
from grotte._core import _aio
from grotte._core.fleet.effort import AsyncEffort
from grotte._core.fleet.keeper import keep_alive
from grotte._core.fleet.mapping import AsyncFleetMap
from grotte._core.fleet.pacer import AsyncPacer
from grotte._core.fleet.pool import AsyncPool
from grotte._core.fleet.recipe import FLEET_KEY, KILL_SECONDS, MARK_KEY, AsyncRecipe, Prepare, SandboxKind
from grotte._core.fleet.show import show
from grotte._core.sandbox import AsyncSandbox
from grotte._interrupts import Guard
from grotte._proto import arguments
from grotte._proto.fleet import options as checked
from grotte._proto.fleet.admission import Limits
from grotte._proto.fleet.results import FleetStats
from grotte._proto.pinned import Pinned
from grotte.config import ApiParams
from grotte.errors import FleetClosedException, GrotteException, InvalidArgumentException, SandboxesLeftException
from grotte.models import SandboxNetworkOpts

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("grotte.fleet")

#: How long closing may take to kill the sandboxes that are alive, in seconds; creations under way get as much again.
CLOSE_SECONDS = 30.0
#: How often an item is tried again after its sandbox failed it, unless the caller says otherwise.
RETRIES = 2


class AsyncFleet(Pinned):
    """Many sandboxes, as many at a time as there may be, and none of them left at the end of the block.

    However the block is left, also by cancellation, Ctrl-C and SIGTERM, every sandbox is killed: side by side, and in a
    bounded time. What could not be killed is named, and ends with its time.

    Example:
        ```python
        async with AsyncFleet("base", size=50) as fleet:
            async for result in fleet.map(evaluate, programs):
                print(result.item, result.unwrap())
        ```
    """

    _instead = "a fleet belongs to one process; make one in each, with a SharedBudget if all shall keep one limit"

    def __init__(
        self,
        template: str | None = None,
        *,
        size: int,
        max_starting: int | None = None,
        creates_per_second: float | None = None,
        spares: int = 0,
        budget: SharedBudget | None = None,
        prepare: Prepare | None = None,
        reuse: bool | Prepare = False,
        patience: float = 120.0,
        progress: bool = False,
        sandboxes: type[AsyncSandbox] = AsyncSandbox,
        timeout: float = 300.0,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        secure: bool = True,
        allow_internet_access: bool = True,
        network: SandboxNetworkOpts | None = None,
        volume_mounts: Mapping[str, str] | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        """Nothing happens before the block begins.

        Args:
            template: What sandboxes are made from. Default: ``"base"``.
            size: How many may be alive at a time, those being created and killed included.
            max_starting: How many may be created at a time. Default: 32, or `size` if that is less.
            creates_per_second: How many creations may begin each second. Default: no limit.
            spares: How many stand ready beyond those in use, within `size`.
            budget: A limit that is shared with other fleets, in this process and in others.
            prepare: Called once with a sandbox; all others are made from its snapshot. Where there are no snapshots it
                is called with each.
            reuse: Whether a sandbox is handed on after use, instead of being replaced by a fresh one; a function is
                called in between, to undo what its last user did. One whose user failed is always replaced.
            patience: How long the server may refuse every creation before those who wait are told, in seconds.
            progress: Show a line on stderr: on a terminal at once, else as log records of ``grotte.fleet``.
            sandboxes: Whose they are: the ``Sandbox`` of an `AsyncGrotte`, to use its account and connections. Default:
                those of the environment.
            timeout: How long a sandbox lives when the fleet does not extend its life any more, in seconds. As long as
                the fleet's block lasts it does.
            metadata: As for `AsyncSandbox.create`; the fleet adds ``grotte.fleet`` and ``grotte.mark``.
            envs: As for `AsyncSandbox.create`.
            secure: As for `AsyncSandbox.create`.
            allow_internet_access: As for `AsyncSandbox.create`.
            network: As for `AsyncSandbox.create`.
            volume_mounts: As for `AsyncSandbox.create`.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            InvalidArgumentException: an argument is wrong.
            AuthenticationException: there is no key, and no engine on this machine.
        """
        self._limits: Limits = checked.limits(size, max_starting, creates_per_second)
        self._spares = arguments.whole(spares, "spares", 0, self._limits.size)
        self._lifetime = float(arguments.lifetime(timeout))
        self._patience = checked.positive(patience, "patience")
        if budget is not None and not isinstance(budget, SharedBudget):
            raise InvalidArgumentException(f"budget must be a SharedBudget, not {type(budget).__name__}")
        self._budget = budget
        _aio.check_handler(prepare, "prepare")
        if not isinstance(reuse, bool):
            _aio.check_handler(reuse, "reuse")
        self._reuse = reuse
        self._progress = progress
        kind = SandboxKind(
            sandboxes=sandboxes,
            template=template,
            timeout=self._lifetime,
            metadata=checked.without(arguments.string_map(metadata, "metadata"), (FLEET_KEY, MARK_KEY)),
            envs=envs,
            secure=secure,
            allow_internet_access=allow_internet_access,
            network=network,
            volume_mounts=volume_mounts,
            options=options,
        )
        self._recipe = AsyncRecipe(kind, prepare)
        self._stack = AsyncExitStack()
        self._opened: AsyncPool | None = None

    def __repr__(self) -> str:
        state = "not entered" if self._opened is None else "closed" if self._opened.closed.is_set() else "open"
        return f"{type(self).__name__}(fleet_id={self.fleet_id!r}, size={self._limits.size}, {state})"

    @property
    def fleet_id(self) -> str:
        """What the metadata ``grotte.fleet`` of all its sandboxes says."""
        return self._recipe.fleet_id

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise FleetClosedException("a fleet is good for one block: make another one")
        pool = AsyncPool(self._recipe, self._limits, reuse=self._reuse, patience=self._patience)
        line = None if self._budget is None else self._budget.line()
        self._opened = pool
        self._crew = await self._stack.enter_async_context(_aio.open_crew(CLOSE_SECONDS))
        self._guard = Guard(self._crew.interrupter(), raises=not _aio.INTERRUPTS)
        try:
            self._guard.install()
            self._crew.start_soon(AsyncPacer(pool, self._crew, line).run)
            self._crew.start_soon(keep_alive, pool, self._lifetime)
            if self._progress:
                self._crew.start_soon(show, pool)
            await self._prepare(pool)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _prepare(self, pool: AsyncPool) -> None:
        if self._recipe.needs_preparing:
            lease = await pool.acquire()
            try:
                await self._recipe.copy(lease)
            finally:
                await pool.give_back(lease, clean=True)
        pool.keep_spares(self._spares)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        pool = self._pool
        try:
            with self._guard.closing():
                swallowed = await self._close(pool, kind, error, trace)
        finally:
            ending = self._guard.remove()
        if ending and _aio.INTERRUPTS:
            # SIGTERM came, and other fleets are not closed yet: nothing more is to happen here
            await _aio.sleep(CLOSE_SECONDS)
        left = pool.left_behind()
        if left:
            text = f"{len(left)} sandboxes could not be killed, and end with their time: {', '.join(left)}"
            if error is None:
                raise SandboxesLeftException(text, sandbox_ids=left)
            # what happened in the block counts more
            logger.error("%s", text)
        return swallowed

    async def _close(
        self,
        pool: AsyncPool,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        pool.shut()
        with _aio.shield(CLOSE_SECONDS):
            self._crew.end()
            await pool.end_all(CLOSE_SECONDS)
        # waits for creations that were under way: they kill what they make
        swallowed = await self._stack.__aexit__(kind, error, trace)
        with _aio.shield(CLOSE_SECONDS):
            await pool.end_all(KILL_SECONDS)
            await self._forget_snapshot()
        return bool(swallowed)

    async def _forget_snapshot(self) -> None:
        try:
            await self._recipe.forget()
        except GrotteException as failure:
            logger.warning("the fleet's snapshot could not be deleted: %s", failure)

    @property
    def _pool(self) -> AsyncPool:
        if self._opened is None:
            raise FleetClosedException("use the fleet in its block: `async with AsyncFleet(...) as fleet`")
        return self._opened

    @asynccontextmanager
    async def sandbox(self, max_wait: float | None = None) -> AsyncIterator[AsyncSandbox]:
        """One sandbox for the length of a block; waits in line until there is one.

        Args:
            max_wait: How long to wait at most, in seconds. Default: as long as it takes.

        Raises:
            FleetClosedException: the fleet's block ends.
            TimeoutException: there was none in time.
            GrotteException: none can be created; as for `AsyncSandbox.create`.

        Example:
            ```python
            async with fleet.sandbox() as sandbox:
                await sandbox.commands.run("uname -a")
            ```
        """
        pool, seconds = self._pool, arguments.seconds(max_wait, "max_wait")
        lease = await pool.acquire(None if seconds is None else _aio.clock() + seconds)
        clean = False
        try:
            yield lease.sandbox
            clean = True
        finally:
            await pool.give_back(lease, clean=clean)

    def map(
        self,
        function: Callable[[AsyncSandbox, T], _aio.Eventually[R]],
        items: Iterable[T],
        *,
        ordered: bool = False,
        deadline: float | None = None,
        retries: int = RETRIES,
    ) -> AsyncFleetMap[T, R]:
        """Call a function with a sandbox and an item, for every item, at most `size` at a time.

        An item whose sandbox ends, or cannot be reached, is tried again in a fresh one. What the function itself raises
        is the item's result: it is never tried again. To keep an item from being tried again in any case, let
        the function raise a `DoNotRetryException`, or pass ``retries=0``.

        Args:
            function: Called with a sandbox and an item.
            items: Taken as they are needed, so there may be endlessly many.
            ordered: Give results in the order of the items; otherwise as they are done.
            deadline: How long the function may run for an item, all tries together, in seconds. Its sandbox is killed
                then, which is what ends a function that runs on a thread. Default: for ever.
            retries: How often an item is tried again.

        Returns:
            The results: an iterable of `FleetSuccess` and `FleetFailure`, exactly one for each item.

        Raises:
            InvalidArgumentException: an argument is wrong.

        Example:
            ```python
            async def evaluate(sandbox: AsyncSandbox, program: str) -> str:
                return (await sandbox.commands.run(program)).stdout

            async for result in fleet.map(evaluate, programs, deadline=60):
                print(result.index, result.value if result.ok else result.error)
            ```
        """
        _aio.check_handler(function, "function")
        deadline, retries = checked.effort(deadline, retries)
        return AsyncFleetMap(
            self._pool,
            self._crew,
            function,
            items,
            ordered=ordered,
            deadline=deadline,
            retries=retries,
            workers=self._limits.size,
        )

    async def run(
        self,
        function: Callable[[AsyncSandbox], _aio.Eventually[R]],
        *,
        deadline: float | None = None,
        retries: int = RETRIES,
    ) -> R:
        """Call a function with a sandbox, and with a fresh one if that one fails it; as `map` does for one item.

        Args:
            function: Called with a sandbox.
            deadline: As for `map`.
            retries: As for `map`.

        Returns:
            What the function returned.

        Raises:
            Exception: what the function raised.
            TimeoutException: the deadline passed.
            GrotteException: sandboxes could not be had, or ended, more often than `retries` allows.

        Example:
            ```python
            async def version(sandbox: AsyncSandbox) -> str:
                return (await sandbox.commands.run("python3 --version")).stdout

            print(await fleet.run(version))
            ```
        """
        _aio.check_handler(function, "function")
        effort: AsyncEffort[R] = AsyncEffort(self._pool, self._crew, *checked.effort(deadline, retries))
        outcome = await effort.carry_out(function)
        if outcome.error is not None:
            raise outcome.error
        return outcome.values[-1]

    def stats(self) -> FleetStats:
        """A snapshot: how many are alive, starting, in use, what was done, and how long it took."""
        return self._pool.stats()
