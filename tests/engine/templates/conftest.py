"""An engine of this folder's own, and templates built over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import KEY
from tests.engine.templates.building import Templates
from tests.engine.wire import OTHER_KEY
from tests.support.engine import Engine, running_engine
from tests.support.images import missing_programs, tar_of


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine of these tests keeps its data."""
    return tmp_path_factory.mktemp("templates") / "data"


@pytest.fixture(scope="session")
def builder(data_dir: Path, image_map: list[str]) -> Iterator[Engine]:
    """An engine that knows the images of these tests."""
    arguments = [word for entry in image_map for word in ("--image-map", entry)]
    with running_engine(data_dir, "--api-key", KEY, "--api-key", OTHER_KEY, *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def templates(builder: Engine) -> Iterator[Templates]:
    """Builds with the first key."""
    with Templates(builder.url, KEY) as client:
        yield client


@pytest.fixture(scope="session")
def image_map(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What names of images mean to the engine of these tests."""
    if missing_programs():
        return []
    root: Path = request.getfixturevalue("musl_root")
    packed = tmp_path_factory.mktemp("packed") / "musl.tar"
    packed.write_bytes(tar_of(root))
    return [f"musl-dir={root}", f"musl-tar={packed}"]
