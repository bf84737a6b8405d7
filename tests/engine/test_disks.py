"""An engine whose sandboxes have disks of limited size: the services see nothing of it until one is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from grotte.engine.host.standalone import disks
from tests.engine.conftest import KEY
from tests.engine.test_snapshots import delete, snapshot
from tests.engine.wire import Wire, check_error
from tests.support.engine import running_engine

REASON = disks.why_not(os.getuid() == 0)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    place: Path = tmp_path_factory.mktemp("limited") / "data"
    with (
        running_engine(place, "--api-key", KEY, "--disk-mib", "64", "--own-disks") as engine,
        Wire(engine.url, KEY) as wire,
    ):
        yield wire


def test_an_upload_that_does_not_fit(limited: Wire) -> None:
    with limited.box() as box:
        assert box.put_file("/home/user/f", b"before").status_code == 200
        check_error(box.put_file("/home/user/f", bytes(80 << 20)), 507)
        assert box.get_file("/home/user/f").content == b"before"
        assert b"No space left" in box.sh("cat /dev/zero > ~/zeros").stderr
        check_error(box.put_file("/home/user/g", bytes(1 << 20)), 507)
        assert box.sh("rm ~/zeros; ls ~").stdout == b"f\n"


def test_copies_and_pauses(limited: Wire) -> None:
    with limited.box() as box:
        box.sh("echo one > ~/f")
        reference = snapshot(box)
        for body in ({}, {"memory": False}):
            assert limited.post(f"/sandboxes/{box.id}/pause", json=body).status_code == 204
            assert limited.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60}).status_code in (200, 201)
            assert box.sh("cat ~/f").stdout == b"one\n"
    with limited.box(templateID=reference) as copy:
        assert copy.sh("cat ~/f; df --output=size -m /home | tail -1 | xargs").stdout.startswith(b"one\n")
        assert b"No space left" in copy.sh("cat /dev/zero > ~/zeros").stderr
    delete(limited, reference)
