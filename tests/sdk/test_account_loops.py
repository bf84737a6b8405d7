"""One client object in several event loops, threads and processes, one after the other and at once."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings

import pytest
import trio

from grotte import AsyncGrotte, ClientClosedException, Grotte
from tests.support.engine import Engine


async def requests_of(client: AsyncGrotte) -> int:
    await client.Sandbox.list().next_items()
    return client.counters.streams_opened


def test_each_event_loop_has_connections_of_its_own(engine: Engine) -> None:
    client = AsyncGrotte(**engine.options)
    first, second = asyncio.run(requests_of(client)), trio.run(requests_of, client)
    assert (first, second, asyncio.run(requests_of(client))) == (1, 1, 1)

    async def close() -> None:
        await requests_of(client)
        await client.aclose()

    asyncio.run(close())
    with pytest.raises(ClientClosedException):
        asyncio.run(requests_of(client))


def test_threads_share_the_connections_of_a_sync_client(engine: Engine) -> None:
    with Grotte(**engine.options) as client:
        threads = [threading.Thread(target=lambda: client.Sandbox.list().next_items()) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counters = client.counters
    assert counters.streams_opened == 20
    assert counters.connections_opened < 20


def test_a_forked_child_has_connections_of_its_own(engine: Engine) -> None:
    with Grotte(**engine.options) as client:
        client.Sandbox.list().next_items()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads, in later Pythons
            child = os.fork()
        if child == 0:
            client.Sandbox.list().next_items()
            os._exit(client.counters.streams_opened)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        client.Sandbox.list().next_items()
        assert client.counters.streams_opened == 2


def test_a_client_that_is_forgotten_says_so(engine: Engine) -> None:
    clients = [Grotte(**engine.options)]
    clients[0].Sandbox.list().next_items()

    def forget() -> None:
        clients.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="was not closed"):
        forget()
