"""Memory that the engine is done with, given back to the system."""

from __future__ import annotations

import ctypes

import anyio

#: Seconds between two times.
INTERVAL = 10.0


async def give_back() -> None:
    """Give back, again and again, what the C library keeps for later; to be run as a task.

    Output and files pass through in large pieces. Between those that are still in use it would keep all that they ever
    took together, which is tens of MiB after some thousands of commands.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:  # other C libraries than glibc keep less
        await anyio.sleep(INTERVAL)
        trim(0)  # milliseconds after much was let go of, else less than one: not worth a thread
