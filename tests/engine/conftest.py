"""One engine for the whole folder, spoken to in the words of its wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.wire import OTHER_KEY, Box, Wire
from tests.support.engine import Engine, running_engine

KEY = "grt_first"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    data_dir: Path = tmp_path_factory.mktemp("engine") / "data"
    with running_engine(data_dir, "--api-key", KEY, "--api-key", OTHER_KEY) as running:
        yield running


@pytest.fixture(scope="session", params=["http1", "http2"])
def wire(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Wire]:
    """A client of the control plane, over either version of HTTP."""
    with Wire(engine.url, KEY, http2=request.param == "http2") as client:
        yield client


@pytest.fixture(scope="session")
def box(wire: Wire) -> Iterator[Box]:
    """A sandbox that many tests share: none ends it."""
    with wire.box() as made:
        yield made
