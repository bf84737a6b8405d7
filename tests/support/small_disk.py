"""A small file system of a test's own, so that nothing else gets full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE, FILES = 192 * MIB, 16_384
SECONDS = 60
#: Where an ordinary user, who cannot mount one, finds a tmpfs of that size.
VARIABLE = "GROTTE_TEST_SMALL_DISK"


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system with little room, mounted at `place` or found in the environment, for the length of a block."""
    if found := os.environ.get(VARIABLE):
        own = Path(tempfile.mkdtemp(dir=found))
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
        return
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    place.mkdir()
    image = place.with_name(f"{place.name}.img")
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(FILES), str(image))
    run("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        run("umount", "--lazy", str(place))


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=SECONDS, capture_output=True)
