"""A limit for async tests, inside the event loop they ask for: whoever hangs is cancelled, and says where it waited.

pytest-timeout alone would end such a test by an exception out of a signal handler, in the middle of an event loop that
other tests go on to use. It stays behind this limit, for what cannot be cancelled, for fixtures and for sync tests.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable, Generator

import anyio
import pytest

#: How much of a test's limit it has until it is cancelled.
SHARE = 0.8


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Bound an async test, before the plugin that runs it sees it."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = at_home(pyfuncitem.obj, str(pyfuncitem.funcargs["anyio_backend"]))
        if seconds := limit_of(pyfuncitem):
            pyfuncitem.obj = bounded(pyfuncitem.obj, SHARE * seconds)
    return (yield)


def limit_of(item: pytest.Function) -> float:
    """The seconds that pytest-timeout gives to a test; 0 is no limit."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0])
    option = item.config.getoption("timeout")
    return float(item.config.getini("timeout") or 0) if option is None else float(option)


def at_home(test: Callable[..., Awaitable[None]], backend: str) -> Callable[..., Awaitable[None]]:
    """The same test, failing on another event loop than its own.

    anyio's plugin has one at a time: an async fixture of wide scope keeps it, and whoever comes next gets that one.
    """

    @functools.wraps(test)
    async def run(**arguments: object) -> None:
        assert current_backend() == backend, f"an async fixture of wide scope keeps {current_backend()} running"
        await test(**arguments)

    return run


def current_backend() -> str:
    """What runs this coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


def bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    """The same test, failing with the place where it waits if it is not over in time."""

    @functools.wraps(test)
    async def run(**arguments: object) -> None:
        place = ""
        with anyio.move_on_after(seconds) as scope:
            try:
                await test(**arguments)
            except anyio.get_cancelled_exc_class():
                place = traceback.format_exc()
                raise
        if scope.cancelled_caught:
            pytest.fail(f"not over after {seconds:g} s; this is where it waited:\n{place}", pytrace=False)

    return run
