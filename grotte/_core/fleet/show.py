"""The live view of a fleet: one line on a terminal, a log record now and then where there is none."""

from __future__ import annotations

import logging
import shutil
import sys

from grotte._core import _aio
from grotte._core.fleet.pool import AsyncPool
from grotte._proto.fleet.tally import progress_line

logger = logging.getLogger("grotte.fleet")

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 10.0
CLEAR_LINE = "\r\x1b[K"


async def show(pool: AsyncPool) -> None:
    """Show how things are until the fleet is closed."""
    terminal = sys.stderr.isatty()
    interval = TERMINAL_SECONDS if terminal else LOG_SECONDS
    try:
        while not await pool.closed.wait(_aio.clock() + interval):
            if terminal:
                _write(CLEAR_LINE + progress_line(pool.stats(), shutil.get_terminal_size().columns))
            else:
                logger.info("%s", progress_line(pool.stats()))
    finally:
        if terminal:
            _write(f"{CLEAR_LINE}{progress_line(pool.stats(), shutil.get_terminal_size().columns)}\n")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
