"""One engine for all tests that only use it, and what is made once: images, and a registry to have them in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.engine import Engine, running_engine
from tests.support.images import (
    Layer,
    Registry,
    layer,
    make_debian,
    make_musl_root,
    make_packages,
    running_registry,
    skip_without_programs,
    tar_of,
)
from tests.support.limits import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]

# How long examples take, and how long they take to be thought up, says more about the machine than about the code.
settings.register_profile("grotte", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("grotte")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def musl_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system without glibc."""
    skip_without_programs()
    root = tmp_path_factory.mktemp("images") / "musl"
    make_musl_root(root)
    return root


@pytest.fixture(scope="session")
def musl(musl_root: Path) -> Layer:
    """The same as a layer."""
    return layer(tar_of(musl_root))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without passwords."""
    skip_without_programs()
    with running_registry(tmp_path_factory.mktemp("registry") / "room") as running:
        yield running


@pytest.fixture(scope="session")
def debian_image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Debian in the registry, which can install a package ``tiny``."""
    room = tmp_path_factory.mktemp("debian")
    make_debian(room / "debian.tar")
    make_packages(room / "packages")
    layers = [layer((room / "debian.tar").read_bytes()), layer(tar_of(room / "packages"))]
    (room / "debian.tar").unlink()
    return registry.push("debian:1", *layers, envs=["FROM_IMAGE=yes", "DEBIAN_FRONTEND=noninteractive"])
