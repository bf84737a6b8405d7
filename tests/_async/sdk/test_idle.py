"""What handles cost that nobody uses at the moment."""

from __future__ import annotations

import gc
import tracemalloc

from grotte import AsyncSandbox
from grotte._core.transport import default_transport
from tests.support.engine import Engine

HANDLES = 1000
LIMIT = 5 * 1024 * 1024


def allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_a_thousand_idle_handles_are_small_and_hold_no_stream(engine: Engine, sandbox: AsyncSandbox) -> None:
    handles = [await AsyncSandbox.connect(sandbox.sandbox_id, **engine.options)]
    tracemalloc.start()
    try:
        before = allocated()
        for _ in range(HANDLES):
            handle = await AsyncSandbox.connect(sandbox.sandbox_id, **engine.options)
            handles.append(handle)
        assert allocated() - before < LIMIT
    finally:
        tracemalloc.stop()
    assert await handles[-1].is_running()
    assert default_transport().counters.streams_open == 0
