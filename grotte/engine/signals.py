"""What tells the engine to stop: signals, and the impatience of those who send them."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial

#: A second signal means that somebody will not wait, if it comes so many seconds after the first. Whoever tells a whole
#: group of processes, as ``timeout`` and init systems do, may tell this one twice.
IMPATIENCE = 1.0
#: A stop that takes longer than this many seconds ends the process the hard way.
STOP_GRACE = 30.0


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM, SIGINT and a terminal that closes set; a second signal ends the process.

    What is left behind by a process that ends so is removed at the next start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    first = float("inf")

    def on_signal() -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
            loop.call_later(STOP_GRACE, partial(os._exit, 1))
        elif loop.time() - first >= IMPATIENCE:
            os._exit(1)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signum, on_signal)
    return stop
