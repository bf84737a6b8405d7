"""What a fleet needs of the async world besides `_aio`: tasks that belong to a block, and are ended with it.

`grotte/_sync/_sio_crew.py` has the same names for threads. A part of `_aio`, which is where to import them from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.abc

from grotte._core._aio_waits import on_trio

T = TypeVar("T")
#: What a user's function returns that is to be awaited here, and is there at once in the sync tree.
Eventually: TypeAlias = Awaitable[T]
#: Whether a function that is under way can be interrupted at its next await. Threads cannot.
INTERRUPTS = True


class Crew:
    """Runs functions until the block around it ends."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        self._group.start_soon(function, *args)

    def end(self) -> None:
        """Cancel all that runs, and the block itself where it is not shielded."""
        self._group.cancel_scope.cancel()

    def interrupter(self) -> Callable[[], None]:
        """A function that ends the crew, and may be called from a signal handler."""
        if on_trio():
            import trio  # only where it is installed

            return partial(trio.lowlevel.current_trio_token().run_sync_soon, self.end)
        loop = asyncio.get_running_loop()

        def end_soon() -> None:
            loop.call_soon_threadsafe(self.end)

        return end_soon


@asynccontextmanager
async def open_crew(grace: float) -> AsyncIterator[Crew]:
    """Functions beside a block, which are cancelled when it ends.

    What the block raises is raised as it is; a failure of one of the functions cancels the block.

    Args:
        grace: In sync, how long to wait for threads that do not end, in seconds; here tasks are cancelled.
    """
    raised: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            try:
                yield Crew(group)
            except Exception as error:  # noqa: BLE001 - raised below, not as a part of a group
                raised = error
            finally:
                group.cancel_scope.cancel()
    except BaseExceptionGroup as several:
        failure: BaseException = several
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        raise failure from None
    if raised is not None:
        raise raised
