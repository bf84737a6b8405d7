"""Volumes: made, mounted, shared, kept, deleted, and whose they are."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.wire import OTHER_KEY, Box, Wire, check_error
from tests.support.engine import running_engine

KEY = "grt_first"


class Volume:
    """A volume and its content, spoken to with its token alone."""

    def __init__(self, wire: Wire, made: dict[str, Any]) -> None:
        self.wire = wire
        self.id: str = made["volumeID"]
        self.name: str = made["name"]
        self.token: str = made["token"]

    def call(self, method: str, what: str, path: str | None = None, token: str | None = None, **more: Any) -> Any:
        """One call of the content API; `more` is its query, but for `content` and `json`."""
        sent = {name: more.pop(name) for name in ("content", "json") if name in more}
        query = more if path is None else {"path": path} | more
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        with Wire(str(self.wire.base_url), None, http2=self.wire.http2) as client:
            return client.request(method, f"/volumecontent/{self.id}/{what}", params=query, headers=headers, **sent)

    def write(self, path: str, data: bytes, **query: Any) -> dict[str, Any]:
        answer = self.call("PUT", "file", path, content=data, **query)
        assert answer.status_code == 201, answer.text
        stat: dict[str, Any] = answer.json()
        return stat

    def read(self, path: str) -> bytes:
        answer = self.call("GET", "file", path)
        assert answer.status_code == 200, answer.text
        data: bytes = answer.content
        return data


@contextmanager
def a_volume(wire: Wire, name: str | None = None) -> Iterator[Volume]:
    answer = wire.post("/volumes", json={"name": name or f"v-{uuid.uuid4().hex}"})
    assert answer.status_code == 201, answer.text
    made = Volume(wire, answer.json())
    yield made
    wire.delete(f"/volumes/{made.id}")


@pytest.fixture
def volume(wire: Wire) -> Iterator[Volume]:
    with a_volume(wire) as made:
        yield made


def mounted(volume: Volume, path: str = "/mnt/shared") -> dict[str, Any]:
    return {"volumeMounts": [{"name": volume.name, "path": path}]}


# -- volumes -------------------------------------------------------------------------------------------------------


def test_life_of_a_volume(wire: Wire) -> None:
    name = f"Data_{uuid.uuid4().hex}"
    made = wire.post("/volumes", json={"name": name}).json()
    assert set(made) == {"volumeID", "name", "token"}
    assert {"volumeID": made["volumeID"], "name": name} in wire.get("/volumes").json()
    assert wire.get(f"/volumes/{made['volumeID']}").json() == made
    check_error(wire.post("/volumes", json={"name": name}), 400)
    assert wire.delete(f"/volumes/{made['volumeID']}").status_code == 204
    check_error(wire.get(f"/volumes/{made['volumeID']}"), 404)
    check_error(wire.delete(f"/volumes/{made['volumeID']}"), 404)
    check_error(Volume(wire, made).call("GET", "path", "/"), 404)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "ü", "x" * 129, "a\n", 5, None])
def test_names_that_cannot_be(wire: Wire, name: object) -> None:
    check_error(wire.post("/volumes", json={"name": name}), 400)


def test_volumes_are_their_owners_alone(wire: Wire, volume: Volume) -> None:
    with Wire(str(wire.base_url), OTHER_KEY) as stranger:
        assert stranger.get("/volumes").json() == []
        check_error(stranger.get(f"/volumes/{volume.id}"), 404)
        check_error(stranger.delete(f"/volumes/{volume.id}"), 404)
        check_error(stranger.post("/v2/sandboxes", json={"templateID": "base"} | mounted(volume)), 404)
        with a_volume(stranger, volume.name) as same_name:
            check_error(volume.call("GET", "path", "/", token=same_name.token), 401)
            same_name.write("/f", b"theirs")
            check_error(volume.call("GET", "file", "/f"), 404)


# -- in sandboxes --------------------------------------------------------------------------------------------------


def test_sandboxes_share_a_volume(wire: Wire, volume: Volume) -> None:
    with wire.box(**mounted(volume)) as one, wire.box(**mounted(volume, "/data/deep/er")) as other:
        assert one.sh("echo from one > /mnt/shared/f; mkdir /mnt/shared/d").end["status"] == "exit status 0"
        assert other.sh("cat /data/deep/er/f; echo and other >> /data/deep/er/f").stdout == b"from one\n"
        assert volume.read("/f") == b"from one\nand other\n"
        volume.write("/d/api", b"from outside")
        assert one.get_file("/mnt/shared/d/api").content == b"from outside"
        assert one.sh("stat -c %U:%a /mnt/shared/d/api").stdout == b"user:644\n"
        assert one.sh("rm /mnt/shared/d/api").end["exited"]
        check_error(volume.call("GET", "path", "/d/api"), 404)
        for box, path in ((one, "/mnt/shared"), (other, "/data/deep/er")):
            shown = wire.get(f"/sandboxes/{box.id}").json()
            assert shown["volumeMounts"] == [{"name": volume.name, "path": path}]
        check_error(wire.delete(f"/volumes/{volume.id}"), 409)
    assert volume.read("/f") == b"from one\nand other\n"


def test_a_volume_outlives_pauses(wire: Wire, volume: Volume) -> None:
    with wire.box(**mounted(volume)) as box:
        box.sh("echo kept > /mnt/shared/f")
        wire.post(f"/sandboxes/{box.id}/pause", json={"memory": False})
        check_error(wire.delete(f"/volumes/{volume.id}"), 409)
        wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60})
        assert box.sh("cat /mnt/shared/f").stdout == b"kept\n"


def test_snapshots_do_not_hold_what_is_in_a_volume(wire: Wire, volume: Volume) -> None:
    with wire.box(**mounted(volume)) as box:
        box.sh("echo shared > /mnt/shared/f")
        snapshot = wire.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
        with wire.box(templateID=snapshot) as copy:
            assert copy.sh("ls /mnt/shared").stdout == b""
        (fork,) = wire.post(f"/sandboxes/{box.id}/fork", json={"timeout": 60}).json()
        assert Box(wire, fork["sandbox"]).sh("cat /mnt/shared/f").stdout == b"shared\n"
        wire.delete(f"/sandboxes/{fork['sandbox']['sandboxID']}")
    wire.delete(f"/templates/{snapshot}")


@pytest.mark.parametrize(
    "path",
    ["", "relative", "/", "/a/../etc", "/proc/x", "/dev", "/run/x", "/sys", "/usr", "/etc", "/a\0b", "/" + "x" * 2000],
)
def test_places_that_cannot_be(wire: Wire, volume: Volume, path: str) -> None:
    check_error(wire.post("/v2/sandboxes", json={"templateID": "base"} | mounted(volume, path)), 400)


def test_mounts_that_make_no_sense(wire: Wire, volume: Volume) -> None:
    def refused(mounts: object, status: int) -> None:
        check_error(wire.post("/v2/sandboxes", json={"templateID": "base", "volumeMounts": mounts}), status)

    def at(path: str) -> dict[str, str]:
        return {"name": volume.name, "path": path}

    refused([{"name": "nope", "path": "/mnt/x"}], 404)
    refused([at("/mnt/x"), at("/mnt/x/")], 400)
    refused([at("/mnt/x"), at("/mnt/x/y")], 400)
    refused([at(f"/mnt/{number}") for number in range(17)], 400)
    refused("x", 400)
    refused([{"name": volume.name}], 400)


def test_a_link_in_the_way_leads_nowhere(wire: Wire, volume: Volume) -> None:
    """A template's own link at the mount point: the volume must not end up where it points."""
    with wire.box() as box:
        box.sh("ln -s /etc /home/user/link")
        snapshot = wire.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
    body = {"templateID": snapshot} | mounted(volume, "/home/user/link/deep")
    check_error(wire.post("/v2/sandboxes", json=body), 500)
    wire.delete(f"/templates/{snapshot}")


def test_volumes_are_kept_across_restarts(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data", "--api-key", KEY) as engine, Wire(engine.url, KEY) as wire:
        made = wire.post("/volumes", json={"name": "kept"}).json()
        Volume(wire, made).write("/f", b"kept")
        gone = wire.post("/volumes", json={"name": "gone"}).json()
        wire.delete(f"/volumes/{gone['volumeID']}")
        box = Box(wire, wire.create(**mounted(Volume(wire, made))))
        box.sh("echo more > /mnt/shared/more")
        engine.process.kill()
        engine.process.wait()
    stray = tmp_path / "data" / "host" / "volumes" / ("x" * 20)
    stray.mkdir()
    owner = stray.parent.stat()
    os.chown(stray, owner.st_uid, owner.st_gid)
    with running_engine(tmp_path / "data", "--api-key", KEY) as engine, Wire(engine.url, KEY) as wire:
        assert not stray.exists()
        volume = Volume(wire, wire.get(f"/volumes/{made['volumeID']}").json())
        assert volume.token == made["token"]
        assert volume.read("/f") == b"kept"
        assert wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 60}).status_code == 201
        box.wire = wire
        assert box.sh("cat /mnt/shared/more").stdout == b"more\n"
        assert [entry["name"] for entry in wire.get("/volumes").json()] == ["kept"]
