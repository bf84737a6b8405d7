"""A sandbox for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from grotte import AsyncSandbox
from tests.support.engine import Engine
from tests.support.stub_service import StubService, running_stub


@pytest.fixture
async def sandbox(engine: Engine) -> AsyncIterator[AsyncSandbox]:
    async with await AsyncSandbox.create("base", **engine.options) as made:
        yield made


@pytest.fixture
def stub() -> Iterator[StubService]:
    with running_stub() as service:
        yield service
