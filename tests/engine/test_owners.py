"""Whose is what: every route of the control plane, asked with no key, a wrong one, and another owner's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from grotte.engine.control.builds import BuildArea
from grotte.engine.control.logs import Logs
from grotte.engine.control.metrics import Metrics
from grotte.engine.control.plane import KNOWN
from grotte.engine.control.sandboxes import Sandboxes
from grotte.engine.control.snapshots import Snapshots
from grotte.engine.control.tags import TagArea
from grotte.engine.control.templates import TemplateArea
from grotte.engine.control.volumes import VolumeArea
from tests.engine.wire import OTHER_KEY, Wire, check_error

AREAS: tuple[Any, ...] = (Sandboxes, Snapshots, Metrics, Logs, VolumeArea, TemplateArea, BuildArea, TagArea)
#: The table is made of methods alone, so that it can be read without an engine.
ROUTES: list[str] = sorted({route for area in AREAS for route in area.routes(object.__new__(area))})
#: What makes something of the caller's own, and may.
MAKES_OWN = {"POST /volumes", "POST /v3/templates", "POST /v2/templates"}
NO_ITEM = {"GET /sandboxes/metrics", "GET /default-templates", "POST /templates/tags", "DELETE /templates/tags"}


@dataclass
class Belongings:
    """What one owner has of each kind, by the names of fields of routes."""

    wire: Wire
    fields: dict[str, str]
    secrets: list[str]

    def path(self, route: str) -> str:
        path = route.split()[1]
        for name, value in self.fields.items():
            path = path.replace(name, value)
        return path

    def state(self) -> list[Any]:
        """What the owner sees of it all, without what changes by itself."""
        paths = ("/sandboxes/{id}", "/volumes/{volume}", "/snapshots", "/v2/templates", "/v2/sandboxes")
        return [self.wire.get(self.path(f"GET {path}")).json() for path in paths]


@pytest.fixture(scope="module")
def first(wire: Wire) -> Iterator[Belongings]:
    with wire.box(metadata={"mark": "metadata-of-the-first"}) as box:
        name = f"first-{uuid.uuid4().hex[:12]}"
        snapshot = wire.post(f"/sandboxes/{box.id}/snapshots", json={"name": name}).json()["snapshotID"]
        volume = wire.post("/volumes", json={"name": name}).json()
        made = wire.post("/v3/templates", json={"name": f"{name}-t"}).json()
        fields = {"{id}": box.id, "{volume}": volume["volumeID"], "{build}": made["buildID"], "*": made["templateID"]}
        fields |= {"{hash}": "0" * 64, "{tag}": "default"}
        secrets = [box.id, volume["volumeID"], volume["token"], made["templateID"], made["buildID"], name]
        secrets += [str(box.token), "metadata-of-the-first", snapshot.partition(":")[0]]
        yield Belongings(wire, fields, secrets)
        wire.delete(f"/volumes/{volume['volumeID']}")
        wire.delete(f"/templates/{made['templateID']}")
    wire.delete(f"/templates/{snapshot}")


def body_of(route: str, fields: dict[str, str]) -> dict[str, Any] | None:
    """Something that the route would take from the owner."""
    if route.startswith("GET"):
        return None
    mount = [{"name": "first", "path": "/mnt"}]
    bodies: dict[str, dict[str, Any]] = {
        "POST /sandboxes": {"templateID": fields["*"], "timeout": 5, "volumeMounts": mount},
        "POST /v2/sandboxes": {"templateID": fields["*"], "timeout": 5},
        "POST /volumes": {"name": uuid.uuid4().hex},
        "POST /v3/templates": {"name": uuid.uuid4().hex},
        "POST /v2/templates": {"name": uuid.uuid4().hex},
        "POST /templates/tags": {"target": f"{fields['*']}:default", "tags": ["stolen"]},
        "DELETE /templates/tags": {"name": fields["*"], "tags": ["v1"]},
        "POST /v2/templates/*/builds/{build}": {"fromTemplate": "base", "steps": []},
        "PATCH /templates/*": {"public": True},
        "PATCH /v2/templates/*": {"public": True},
    }
    return bodies.get(route, {"timeout": 5, "duration": 5, "allow_internet_access": True})


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_of_another_can_be_seen_or_touched(first: Belongings, route: str) -> None:
    before = first.state()
    method, path = route.split()[0], first.path(route)
    query = {"sandbox_ids": first.fields["{id}"], "sandboxID": first.fields["{id}"], "name": "first"}
    with Wire(str(first.wire.base_url), OTHER_KEY) as stranger:
        answer = stranger.request(method, path, json=body_of(route, first.fields), params=query)
        is_item = any(name in route for name in ("{", "*"))
        if is_item or route in ("POST /sandboxes", "POST /v2/sandboxes"):
            assert answer.status_code in (400, 403, 404), answer.text
            check_error(answer, answer.status_code)
        sent = path + str(body_of(route, first.fields)) + str(query)
        leaked = [secret for secret in first.secrets if secret in answer.text and secret not in sent]
        assert not leaked
        if answer.is_success:
            assert route in MAKES_OWN | NO_ITEM or method == "GET", answer.text
            _undo(stranger, route, answer.json() if answer.content else {})
    assert first.state() == before


def _undo(stranger: Wire, route: str, made: Any) -> None:
    if route == "POST /volumes":
        stranger.delete(f"/volumes/{made['volumeID']}")
    elif route in MAKES_OWN:
        stranger.delete(f"/templates/{made['templateID']}")


@pytest.mark.parametrize("key", [None, "grt_wrong", "x" * 10_000])
@pytest.mark.parametrize("route", [*ROUTES, "GET /metrics", "GET /secrets"])
def test_nobody_comes_in_without_a_key(first: Belongings, route: str, key: str | None) -> None:
    with Wire(str(first.wire.base_url), key) as nobody:
        answer = nobody.request(route.split()[0], first.path(route), json=body_of(route, first.fields))
        body = check_error(answer, 401)
        assert key is None or key not in body["message"]


def test_every_known_route_is_among_these() -> None:
    """A route that an area offers is one of the protocol, and is asked for here."""
    known = set()
    for line in KNOWN.strip().split("\n"):
        methods, path = line.split()
        known |= {f"{method} {path}" for method in methods.split(",")}
    offered = {route for route in ROUTES if "/sandboxes" not in route and "/snapshots" not in route}
    assert offered <= known | {"DELETE /templates/*"}
