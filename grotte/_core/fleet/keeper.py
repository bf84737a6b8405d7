"""The task of a fleet that keeps its sandboxes alive while they are wanted, and tries again to kill what is not."""

from __future__ import annotations

import logging

from grotte._core import _aio
from grotte._core.fleet.lease import AsyncLease
from grotte._core.fleet.pool import PARALLEL, AsyncPool
from grotte.errors import GrotteException, SandboxNotFoundException

logger = logging.getLogger("grotte.fleet")

#: How soon another attempt is made to kill what could not be killed, in seconds.
AGAIN_SECONDS = 5.0


async def keep_alive(pool: AsyncPool, lifetime: float) -> None:
    """Give every sandbox its lifetime anew whenever a third of it has passed, until the fleet is closed.

    Args:
        pool: Whose sandboxes.
        lifetime: In seconds.
    """
    interval = lifetime / 3
    due = _aio.clock() + interval
    while not await pool.closed.wait(min(due, _aio.clock() + AGAIN_SECONDS)):
        refresh = _aio.clock() >= due
        if refresh:
            due += interval
        left = [lease for lease in pool.living() if refresh or lease.failure is not None]
        if left:
            async with _aio.open_nursery() as nursery:
                for number in range(min(PARALLEL, len(left))):
                    nursery.start_soon(_look_after, pool, left[number::PARALLEL])


async def _look_after(pool: AsyncPool, leases: list[AsyncLease]) -> None:
    for lease in leases:
        if lease.failure is not None:
            await pool.dispose(lease)
        elif not lease.ending and not lease.lost:
            await _refresh(pool, lease)


async def _refresh(pool: AsyncPool, lease: AsyncLease) -> None:
    try:
        await pool.recipe.refresh(lease)
    except SandboxNotFoundException:
        if not lease.ending:
            pool.count_lost(lease)
            if pool.take_back(lease):
                await pool.dispose(lease)
    except GrotteException as error:
        logger.warning("the life of sandbox %s could not be extended: %s", lease.sandbox.sandbox_id, error)
