"""Random schedules of starts, failures, cancellations and limits, in virtual time, against what must always hold."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from grotte import ApiUnreachableException, GrotteException, RateLimitException, ServiceBusyException
from grotte._budget import Slot
from grotte._core import _aio
from grotte._core.fleet.keeper import keep_alive
from grotte._core.fleet.lease import AsyncLease
from grotte._core.fleet.pacer import AsyncPacer
from grotte._core.fleet.pool import AsyncPool
from grotte._core.fleet.recipe import AsyncRecipe
from grotte._core.sandbox import AsyncSandbox
from grotte._proto.fleet.admission import Limits
from grotte.errors import SandboxNotFoundException

LIFETIME = 30.0
#: In virtual seconds: whoever is not cancelled has been served by then, whatever went wrong meanwhile.
PATIENCE = 5_000.0


class InMemorySandbox:
    """A sandbox as far as a pool sees one."""

    def __init__(self, number: int) -> None:
        self.sandbox_id = f"s{number}"
        self.runs = True
        self.until = 0.0

    async def is_running(self, request_timeout: float | None = None) -> bool:
        await trio.sleep(0.001)
        return self.runs


class BrokenPromise(BaseException):
    """What must always hold does not; no failure of a creation, so nothing may treat it as one."""


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise BrokenPromise(what)


@dataclass
class World:
    """The server, and what must always hold of what is asked of it."""

    limits: Limits
    rng: random.Random
    trouble: float
    alive: set[InMemorySandbox] = field(default_factory=set)
    starting: int = 0
    made: int = 0
    begun: list[float] = field(default_factory=list)
    quiet_since: float = -math.inf
    quiet_until: float = -math.inf

    def begin(self) -> None:
        now = trio.current_time()
        self.starting += 1
        promise(self.starting <= self.limits.max_starting, "too many are being created")
        promise(self.starting + len(self.alive) <= self.limits.size, "too many are alive")
        # what begins at the very moment of a refusal was decided before it
        promise(not self.quiet_since < now < self.quiet_until, "the server wanted to be left alone")
        if self.limits.creates_per_second is not None and self.begun:
            gap = 1 / self.limits.creates_per_second - 1e-9
            promise(now - self.begun[-1] >= gap, "creations follow each other too fast")
        self.begun.append(now)

    def fail(self) -> None:
        """Raise something, or do not."""
        if self.rng.random() >= self.trouble:
            return
        kind = self.rng.choice([RateLimitException, ServiceBusyException, ApiUnreachableException])
        failure = kind("no")
        if kind is RateLimitException and self.rng.random() < 0.5:
            failure.retry_after = self.rng.uniform(0, 20)
            self.quiet_since = trio.current_time()
            self.quiet_until = max(self.quiet_until, self.quiet_since + failure.retry_after)
        raise failure


class InMemoryRecipe(AsyncRecipe):
    """Makes sandboxes out of nothing, in virtual time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fleet_id = "f"
        self.api_url = ""

    async def create(self, slot: Slot | None) -> AsyncSandbox:
        world = self._world
        world.begin()
        sandbox = InMemorySandbox(world.made)
        try:
            await trio.sleep(world.rng.choice([0.0, 0.1, 5.0]))
            world.fail()
            world.made += 1
            sandbox.until = trio.current_time() + LIFETIME
            world.alive.add(sandbox)
        finally:
            world.starting -= 1
        return cast("AsyncSandbox", sandbox)

    async def kill(self, sandbox: AsyncSandbox) -> Exception | None:
        await trio.sleep(0)  # may be cancelled: it is tried again
        with trio.CancelScope(shield=True):
            await trio.sleep(self._world.rng.choice([0.0, 0.2, 2.0]))
            if self._world.rng.random() < self._world.trouble / 4:
                return GrotteException("not now")
            self._world.alive.discard(cast("InMemorySandbox", sandbox))
        return None

    async def refresh(self, lease: AsyncLease) -> None:
        await trio.sleep(0.01)
        sandbox = cast("InMemorySandbox", lease.sandbox)
        promise(trio.current_time() < sandbox.until, "nobody extended its life in time")
        sandbox.until = trio.current_time() + LIFETIME
        if not sandbox.runs:
            raise SandboxNotFoundException("gone", sandbox_id=sandbox.sandbox_id)


@dataclass
class User:
    """Someone who wants a sandbox for a while.

    Attributes:
        at: When.
        holds: For how long.
        patience: When to give up waiting.
        breaks: The sandbox ends under the user's hands.
    """

    at: float
    holds: float
    patience: float
    breaks: bool
    served_at: float | None = None
    error: Exception | None = None

    async def live(self, pool: AsyncPool) -> None:
        await trio.sleep_until(self.at)
        with trio.move_on_after(self.patience):
            try:
                lease = await pool.acquire()
            except GrotteException as error:
                self.error = error
                return
            self.served_at = trio.current_time()
            sandbox = cast("InMemorySandbox", lease.sandbox)
            try:
                await trio.sleep(self.holds)
                promise(trio.current_time() < sandbox.until, "it ended while it was in use")
                sandbox.runs = not self.breaks
            finally:
                await pool.give_back(lease, clean=not self.breaks)


@dataclass(frozen=True)
class Plan:
    limits: Limits
    spares: int
    reuse: bool
    trouble: float
    seed: int
    users: list[tuple[float, float, float, bool]]
    leave_at: float | None


times = st.floats(0, 60, allow_nan=False)
users = st.tuples(times, times, st.sampled_from([0.05, 3.0, math.inf, math.inf]), st.booleans())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 8))
    rate = draw(st.sampled_from([None, 0.5, 3.0]))
    limits = Limits(size, draw(st.integers(1, size)), rate)
    return Plan(
        limits,
        draw(st.integers(0, size)),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.2, 0.6])),
        draw(st.integers(0, 1000)),
        draw(st.lists(users, max_size=25)),
        draw(st.none() | st.floats(0, 100, allow_nan=False)),
    )


async def follow(plan: Plan, world: World, people: list[User]) -> None:
    """Run the real pool, pacer and keeper; everything must be gone at the end."""
    pool = AsyncPool(InMemoryRecipe(world), plan.limits, reuse=plan.reuse, patience=PATIENCE)
    with trio.move_on_after(plan.leave_at if plan.leave_at is not None else PATIENCE * 2):
        async with _aio.open_crew(10) as crew:
            crew.start_soon(AsyncPacer(pool, crew, None).run)
            crew.start_soon(keep_alive, pool, LIFETIME)
            pool.keep_spares(plan.spares)
            try:
                async with trio.open_nursery() as nursery:
                    for person in people:
                        nursery.start_soon(person.live, pool)
            finally:
                pool.shut()
                with trio.CancelScope(shield=True):
                    crew.end()
                    await pool.end_all(1000)
    world.trouble = 0
    await pool.end_all(1000)
    stats = pool.stats()
    assert (stats.alive, stats.starting, stats.ready, stats.waiting) == (0, 0, 0, 0)


def in_virtual_time(function: Callable[..., Awaitable[None]], *args: object) -> None:
    trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=150)
@given(plans())
def test_limits_hold_nobody_starves_and_nothing_leaks(plan: Plan) -> None:
    world = World(plan.limits, random.Random(plan.seed), plan.trouble)
    people = [User(*person) for person in plan.users]
    in_virtual_time(follow, plan, world, people)
    assert world.alive == set()
    assert world.starting == 0
    if plan.leave_at is not None:
        return
    patient = [person for person in people if math.isinf(person.patience)]
    assert all(person.served_at is not None or person.error is not None for person in patient)
    if plan.trouble == 0:
        assert all(person.error is None for person in patient)
        served = sorted((person.at, person.served_at) for person in patient if person.served_at is not None)
        for (earlier, first), (later, second) in itertools.pairwise(served):
            assert first <= second or earlier == later, "somebody was served before one who had come earlier"


def test_the_simulation_takes_no_time() -> None:
    limits = Limits(2, 1, 0.5)
    plan = Plan(limits, 0, False, 0.2, 1, [(0.0, 50.0, math.inf, False)] * 20, None)
    before = time.monotonic()
    in_virtual_time(follow, plan, World(limits, random.Random(1), 0.2), [User(*person) for person in plan.users])
    assert time.monotonic() - before < 10
