"""The same sandboxes for all tests: those of the session's engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine import Engine
from tests.support.moody_proxy import MoodyProxy, running_moody


@pytest.fixture
def proxy(engine: Engine) -> Iterator[MoodyProxy]:
    """A control plane before the engine, without moods until a test gives it some."""
    with running_moody(engine) as running:
        yield running
