"""How long a server that was silent is taken for one that speaks HTTP/1.1 only, on a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from grotte._core.exchange import Request
from grotte._core.http1 import FIRST_GUESS, AsyncHttp1
from grotte._proto.http import Origin
from grotte._proto.options import TransportOptions

PLACE = ("http", "127.0.0.1", 80)
REQUEST = Request("GET", Origin(*PLACE), "/")


async def guessed_for(http1: AsyncHttp1) -> float:
    start = trio.current_time()
    http1.remember(PLACE, forever=False)
    while http1.serves(PLACE, REQUEST, None):
        await trio.sleep(0.25)
    return trio.current_time() - start


def in_virtual_time(scenario: Callable[[], Awaitable[None]]) -> None:
    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_guess_is_looked_at_again_soon_and_then_more_rarely() -> None:
    async def scenario() -> None:
        http1 = AsyncHttp1(TransportOptions())
        found = [await guessed_for(http1) for _ in range(9)]
        assert found == [FIRST_GUESS * factor for factor in (1, 2, 4, 8, 16, 32, 64)] + [600, 600]

    in_virtual_time(scenario)


def test_what_was_said_is_not_forgotten() -> None:
    async def scenario() -> None:
        http1 = AsyncHttp1(TransportOptions())
        http1.remember(PLACE, forever=True)
        await trio.sleep(100_000)
        assert http1.serves(PLACE, REQUEST, None)

    in_virtual_time(scenario)
