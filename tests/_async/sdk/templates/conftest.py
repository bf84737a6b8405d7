"""A name for each test's template."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from grotte import AsyncTemplate
from tests.support.engine import Engine


@pytest.fixture
async def name(engine: Engine) -> AsyncIterator[str]:
    """A name for a template, which is deleted."""
    chosen = f"t-{secrets.token_hex(4)}"
    yield chosen
    await AsyncTemplate.delete(chosen, **engine.options)
