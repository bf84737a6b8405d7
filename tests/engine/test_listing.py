"""Lists of sandboxes: filters, order, pages."""

from __future__ import annotations

import uuid
from urllib.parse import quote, urlencode

import pytest

from tests.engine.wire import Wire, check_error


def quoted(pairs: dict[str, str]) -> str:
    """A metadata filter as the clients quote it; the HTTP layer quotes it once more."""
    return urlencode({quote(key): quote(value) for key, value in pairs.items()})


def test_list_filters_by_metadata_quoted_twice(wire: Wire) -> None:
    mark = uuid.uuid4().hex
    metadata = {"mark": mark, "k&": "v 1", "ü=": "+%"}
    with wire.box(metadata=metadata) as box, wire.box(metadata={"mark": mark}) as plain:

        def found(pairs: dict[str, str]) -> set[str]:
            answer = wire.get("/v2/sandboxes", params={"metadata": quoted(pairs)})
            assert answer.status_code == 200, answer.text
            return {listed["sandboxID"] for listed in answer.json()}

        assert found({"mark": mark}) == {box.id, plain.id}
        assert found(metadata) == {box.id}
        assert found({"k&": "v 1", "mark": mark}) == {box.id}
        assert found({"k&": "v", "mark": mark}) == set()
        v1 = wire.get("/sandboxes", params={"metadata": quoted({"k&": "v 1", "mark": mark})}).json()
        assert [listed["sandboxID"] for listed in v1] == [box.id]
    raw = wire.get("/v2/sandboxes?metadata=k%252526%3Dv%2525201")
    assert raw.status_code == 200


def test_list_pages_through_in_either_order(wire: Wire) -> None:
    mark = {"mark": uuid.uuid4().hex}
    made = [wire.create(metadata=mark)["sandboxID"] for _ in range(5)]
    try:
        for order, expected in (("asc", made), ("desc", made[::-1]), (None, made[::-1])):
            params = {"metadata": quoted(mark), "limit": "2", "state": "running,paused"} | (
                {"order": order} if order else {}
            )
            pages, token = [], ""
            while True:
                answer = wire.get("/v2/sandboxes", params=params | ({"nextToken": token} if token else {}))
                assert answer.headers["x-total-running"] == "5"
                pages.append([listed["sandboxID"] for listed in answer.json()])
                if (token := answer.headers.get("x-next-token", "")) == "":
                    break
            assert [len(page) for page in pages] == [2, 2, 1]
            assert [sandbox_id for page in pages for sandbox_id in page] == expected
        third = wire.get(f"/sandboxes/{made[2]}").json()["startedAt"]
        later = wire.get("/v2/sandboxes", params={"metadata": quoted(mark), "startedAfter": third}).json()
        assert {listed["sandboxID"] for listed in later} == set(made[3:])
    finally:
        for sandbox_id in made:
            wire.delete(f"/sandboxes/{sandbox_id}")


def test_list_filters_by_state_and_template(wire: Wire) -> None:
    with wire.box() as box:

        def found(**params: str) -> bool:
            answer = wire.get("/v2/sandboxes", params=params)
            assert ("x-total-running" in answer.headers) == (params.get("state") != "paused")
            return box.id in [listed["sandboxID"] for listed in answer.json()]

        assert found()
        assert found(state="running")
        assert found(state="running,paused", template="base")
        assert found(template=box.answer["templateID"])
        assert not found(state="paused")
        assert not found(template="other")
        for states in (["paused", "running"], ["", "running"], ["", ""]):  # as clients write it who repeat parameters
            answer = wire.get("/v2/sandboxes", params=[("state", state) for state in states])
            assert box.id in [listed["sandboxID"] for listed in answer.json()]


def test_listed_sandboxes_have_every_required_field(wire: Wire) -> None:
    required = [
        "clientID",
        "cpuCount",
        "diskSizeMB",
        "endAt",
        "envdVersion",
        "memoryMB",
        "sandboxID",
        "startedAt",
        "state",
        "templateID",
    ]
    with wire.box():
        for path in ("/sandboxes", "/v2/sandboxes"):
            listed = wire.get(path).json()[0]
            assert all(listed[name] is not None for name in required)
            assert "envdAccessToken" not in listed


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"limit": "-1"},
        {"limit": "1.5"},
        {"state": "sleeping"},
        {"order": "up"},
        {"startedAfter": "yesterday"},
        {"startedAfter": "9999-99-99T00:00:00Z"},
        {"nextToken": "x"},
        {"nextToken": "eHg="},
        {"nextToken": "ü"},
        {"metadata": "a"},
        {"metadata": "a=b=c"},
        {"metadata": "a=b&&"},
        {"template": "a b"},
    ],
)
def test_list_refuses(wire: Wire, params: dict[str, str]) -> None:
    check_error(wire.get("/v2/sandboxes", params=params), 400)
