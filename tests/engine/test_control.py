"""The control plane: shapes of answers, every way to be refused, lists, lives."""

from __future__ import annotations

import re
import time
import uuid
from datetime import datetime

import httpx
import pytest

from tests.engine.wire import OTHER_KEY, Box, Wire, check_error
from tests.support.engine import Engine

UNKNOWN_ID = "i" + "0" * 20
ID = re.compile(r"i[a-z0-9]{20}")


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def seconds_left(wire: Wire, sandbox_id: str) -> float:
    detail = wire.get(f"/sandboxes/{sandbox_id}").json()
    return (moment(detail["endAt"]) - moment(detail["startedAt"])).total_seconds()


# -- create ------------------------------------------------------------------------------------------------------


def test_create_v2_answers_a_secured_sandbox(wire: Wire) -> None:
    with wire.box() as box:
        answer = box.answer
        assert ID.fullmatch(answer["sandboxID"])
        assert re.fullmatch(r"[a-z0-9]{20}", answer["templateID"])
        assert answer["alias"] == "base"
        assert answer["clientID"]
        assert "-" not in answer["clientID"]
        assert answer["envdVersion"] == "0.6.4"
        assert answer["envdAccessToken"]
        assert answer["trafficAccessToken"] is None
        assert answer["domain"] is None
        assert abs(seconds_left(wire, box.id) - 300) < 0.01


def test_create_v1_is_open_unless_asked_and_lives_for_15_seconds(wire: Wire) -> None:
    with wire.box("/sandboxes") as box:
        assert box.answer["envdAccessToken"] is None
        assert abs(seconds_left(wire, box.id) - 15) < 0.01
        assert box.sh("echo open").stdout == b"open\n"
    with wire.box("/sandboxes", secure=True, timeout=70) as box:
        assert box.answer["envdAccessToken"]
        assert abs(seconds_left(wire, box.id) - 70) < 0.01


def test_create_takes_the_minimal_body_of_the_grotte_client(wire: Wire) -> None:
    fields = {"allow_internet_access": True, "autoPause": False, "envVars": {}, "metadata": {}, "secure": True}
    with wire.box("/sandboxes", timeout=300, network={"allowPublicTraffic": True}, mcp=None, unknown=[1], **fields):
        pass


def test_create_without_public_traffic_issues_a_traffic_token(wire: Wire) -> None:
    with wire.box(network={"allowPublicTraffic": False}) as box:
        assert box.answer["trafficAccessToken"]
    answer = wire.post("/sandboxes", json={"templateID": "base", "network": {"allowPublicTraffic": False}})
    check_error(answer, 400)


@pytest.mark.parametrize(
    "name", ["base", " BASE ", "base:default", "parallactic/base", "e2bdev/base:default", "grottebase0000000000"]
)
def test_names_of_the_base_template(wire: Wire, name: str) -> None:
    with wire.box(templateID=name):
        pass


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"templateID": "nope"}, 404),
        ({"templateID": "base:v2"}, 404),
        ({"templateID": "else/base"}, 404),
        ({"templateID": ""}, 400),
        ({"templateID": "a/b/c"}, 400),
        ({"templateID": "ba se"}, 400),
        ({"templateID": "base:"}, 400),
        ({"templateID": "base:6a4e9e1c-0b43-4e0c-8a55-b9a1f6b1f7aa"}, 400),
        ({"templateID": "../base"}, 400),
        ({"templateID": 7}, 400),
        ({"templateID": None}, 400),
        ({"timeout": 0}, 400),
        ({"timeout": -1}, 400),
        ({"timeout": 86401}, 400),
        ({"timeout": 10**30}, 400),
        ({"timeout": 1.5}, 400),
        ({"timeout": True}, 400),
        ({"timeout": "60"}, 400),
        ({"metadata": {"a": 1}}, 400),
        ({"metadata": ["a"]}, 400),
        ({"envVars": {"a": None}}, 400),
        ({"envVars": {"": "x"}}, 400),
        ({"envVars": {"A=B": "x"}}, 400),
        ({"envVars": {"A\0": "x"}}, 400),
        ({"envVars": {"A": "\0"}}, 400),
        ({"network": "off"}, 400),
        ({"autoPauseMemory": False}, 400),
        ({"autoPause": True, "autoPauseMemory": False, "autoResume": {"enabled": True}}, 400),
        ({"mcp": {"x": {}}}, 501),
        ({"volumeMounts": [{"name": "v", "path": "/v"}]}, 404),
        ({"network": {"allowOut": ["*.example.com"]}}, 501),
    ],
)
def test_create_refuses(wire: Wire, fields: dict[str, object], status: int) -> None:
    answer = wire.post("/v2/sandboxes", json={"templateID": "base"} | fields)
    check_error(answer, status)
    assert answer.headers["should-retry"] == "false"


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'"base"', b"{", b"[" * 100_000, b'{"templateID": "\\ud800"}', b"\xff\xfe", b"{}"]
)
def test_create_refuses_what_is_no_request(wire: Wire, body: bytes) -> None:
    check_error(wire.post("/v2/sandboxes", content=body), 400)


def test_create_refuses_a_body_without_end(wire: Wire) -> None:
    check_error(wire.post("/v2/sandboxes", content=b" " * 2_000_000), 413)


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sandboxes"),
        ("GET", "/v2/sandboxes"),
        ("POST", "/sandboxes"),
        ("POST", "/v2/sandboxes"),
        ("GET", f"/sandboxes/{UNKNOWN_ID}"),
        ("DELETE", f"/sandboxes/{UNKNOWN_ID}"),
        ("POST", f"/sandboxes/{UNKNOWN_ID}/connect"),
        ("POST", f"/sandboxes/{UNKNOWN_ID}/pause"),
        ("GET", "/templates"),
    ],
)
def test_every_call_needs_a_key(engine: Engine, headers: dict[str, str], method: str, path: str) -> None:
    body = check_error(httpx.request(method, engine.url + path, headers=headers), 401)
    assert "wrong" not in body["message"]


def test_a_key_may_come_as_a_bearer_token(engine: Engine) -> None:
    headers = {"authorization": f"Bearer {engine.api_key}"}
    assert httpx.get(f"{engine.url}/v2/sandboxes", headers=headers).status_code == 200


def test_each_key_sees_its_own_sandboxes_only(engine: Engine, wire: Wire) -> None:
    with wire.box() as box, Wire(engine.url, OTHER_KEY) as other:
        check_error(other.get(f"/sandboxes/{box.id}"), 404)
        check_error(other.delete(f"/sandboxes/{box.id}"), 404)
        check_error(other.post(f"/sandboxes/{box.id}/timeout", json={"timeout": 0}), 404)
        check_error(other.post(f"/v2/sandboxes/{box.id}/connect", json={}), 404)
        assert box.id not in [listed["sandboxID"] for listed in other.get("/v2/sandboxes").json()]
        assert wire.get(f"/sandboxes/{box.id}").status_code == 200


# -- one sandbox -------------------------------------------------------------------------------------------------


def test_detail(wire: Wire) -> None:
    with wire.box(metadata={"a": "1"}, timeout=100, allow_internet_access=False) as box:
        detail = wire.get(f"/sandboxes/{box.id}").json()
        expected = {"sandboxID": box.id, "state": "running", "metadata": {"a": "1"}, "allowInternetAccess": False}
        assert expected.items() <= detail.items()
        assert detail["envdAccessToken"] == box.token
        assert detail["lifecycle"] == {"autoResume": False, "onTimeout": "kill"}
        assert detail["cpuCount"] > 0
        assert detail["memoryMB"] > 0
        assert isinstance(detail["diskSizeMB"], int)
        assert "network" not in detail


def test_composite_ids_are_read(wire: Wire) -> None:
    with wire.box() as box:
        assert wire.get(f"/sandboxes/{box.id}-{box.answer['clientID']}").json()["sandboxID"] == box.id


@pytest.mark.parametrize("name", ["x", "I" + "0" * 20, "i" + "0" * 19, "j" + "0" * 20, "i" + "0" * 20 + "%2Fx", "%00"])
def test_malformed_ids(wire: Wire, name: str) -> None:
    check_error(wire.get(f"/sandboxes/{name}"), 400)
    check_error(wire.delete(f"/sandboxes/{name}"), 400)


def test_kill(wire: Wire) -> None:
    box_id = wire.create()["sandboxID"]
    answer = wire.delete(f"/sandboxes/{box_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    check_error(wire.delete(f"/sandboxes/{box_id}"), 404)
    check_error(wire.get(f"/sandboxes/{box_id}"), 404)


def test_unknown_sandbox(wire: Wire) -> None:
    check_error(wire.get(f"/sandboxes/{UNKNOWN_ID}"), 404)
    check_error(wire.delete(f"/sandboxes/{UNKNOWN_ID}"), 404)
    check_error(wire.post(f"/sandboxes/{UNKNOWN_ID}/connect", json={"timeout": 60}), 404)
    check_error(wire.post(f"/v2/sandboxes/{UNKNOWN_ID}/connect", json={}), 404)
    check_error(wire.post(f"/sandboxes/{UNKNOWN_ID}/timeout", json={"timeout": 60}), 404)
    check_error(wire.post(f"/sandboxes/{UNKNOWN_ID}/refreshes"), 404)


def test_connect_extends_and_never_shortens(wire: Wire) -> None:
    with wire.box(timeout=200) as box:
        answer = wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 50})
        assert (answer.status_code, answer.json()) == (200, box.answer)
        assert abs(seconds_left(wire, box.id) - 200) < 0.01
        assert wire.post(f"/v2/sandboxes/{box.id}/connect", json={}).json() == box.answer
        assert seconds_left(wire, box.id) >= 300
        wire.post(f"/v2/sandboxes/{box.id}/connect", json={"timeout": 500})
        assert seconds_left(wire, box.id) >= 500
        headers = {"grotte-sandbox-id": box.id, "grotte-sandbox-port": "49983"}
        assert wire.post(f"/sandboxes/{box.id}/connect", json={"timeout": 9}, headers=headers).status_code == 200


def test_connect_refuses(wire: Wire) -> None:
    with wire.box() as box:
        for fields in ({}, {"timeout": 0}, {"timeout": -1}, {"timeout": 10**9}, {"timeout": "1"}, {"timeout": True}):
            check_error(wire.post(f"/sandboxes/{box.id}/connect", json=fields), 400)
        assert wire.post(f"/v2/sandboxes/{box.id}/connect").status_code == 200


def test_timeout_sets_the_end_and_zero_ends_at_once(wire: Wire) -> None:
    with wire.box() as box:
        assert wire.post(f"/sandboxes/{box.id}/timeout", json={"timeout": 20}).status_code == 204
        assert seconds_left(wire, box.id) < 100
        for fields in ({}, {"timeout": None}, {"timeout": 1.5}, {"timeout": False}, {"timeout": "1"}):
            check_error(wire.post(f"/sandboxes/{box.id}/timeout", json=fields), 400)
        assert wire.post(f"/sandboxes/{box.id}/timeout", json={"timeout": 10**9}).status_code == 204
        assert seconds_left(wire, box.id) < 86500
        assert wire.post(f"/sandboxes/{box.id}/timeout", json={"timeout": -5}).status_code == 204
        await_gone(wire, box.id)


def test_time_to_live_ends_a_sandbox(wire: Wire) -> None:
    with wire.box(timeout=1) as box:
        await_gone(wire, box.id)
        assert box.id not in [listed["sandboxID"] for listed in wire.get("/v2/sandboxes").json()]


def await_gone(wire: Wire, sandbox_id: str) -> None:
    for _ in range(1000):
        if wire.get(f"/sandboxes/{sandbox_id}").status_code == 404:
            return
        time.sleep(0.05)
    raise AssertionError("the sandbox outlived its time")


def test_refreshes_only_extend(wire: Wire) -> None:
    with wire.box(timeout=60) as box:
        for body in (b"", b"{}", b'{"duration": 0}', b'{"duration": 30}'):
            assert wire.post(f"/sandboxes/{box.id}/refreshes", content=body).status_code == 204
            assert abs(seconds_left(wire, box.id) - 60) < 0.01
        assert wire.post(f"/sandboxes/{box.id}/refreshes", json={"duration": 3600}).status_code == 204
        assert seconds_left(wire, box.id) >= 3600
        for duration in (-1, 3601, "5", 1.5):
            check_error(wire.post(f"/sandboxes/{box.id}/refreshes", json={"duration": duration}), 400)


# -- idempotency -------------------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_one_sandbox(engine: Engine, wire: Wire) -> None:
    key = {"idempotency-key": str(uuid.uuid4())}
    body = {"templateID": "base", "metadata": {"a": "1", "b": "2"}}
    first = wire.post("/v2/sandboxes", json=body, headers=key)
    reordered = {"metadata": {"b": "2", "a": "1"}, "templateID": "base"}
    assert wire.post("/v2/sandboxes", json=reordered, headers=key).json() == first.json()
    check_error(wire.post("/v2/sandboxes", json=body | {"timeout": 99}, headers=key), 422)
    with Wire(engine.url, OTHER_KEY) as other:
        theirs = other.post("/v2/sandboxes", json=body, headers=key).json()["sandboxID"]
        assert theirs != first.json()["sandboxID"]
        other.delete(f"/sandboxes/{theirs}")
    wire.delete(f"/sandboxes/{first.json()['sandboxID']}")
    assert wire.post("/v2/sandboxes", json=body, headers=key).json() == first.json()


@pytest.mark.parametrize("key", ["", "UPPER", "a b", "x" * 256, "ü"])
def test_malformed_idempotency_keys(wire: Wire, key: str) -> None:
    headers = {b"idempotency-key": key.encode()}
    check_error(wire.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers), 400)


def test_a_failed_create_does_not_use_up_the_key(wire: Wire) -> None:
    key = {"idempotency-key": str(uuid.uuid4())}
    check_error(wire.post("/v2/sandboxes", json={"templateID": "nope"}, headers=key), 404)
    made = wire.post("/v2/sandboxes", json={"templateID": "base"}, headers=key)
    assert made.status_code == 201
    wire.delete(f"/sandboxes/{made.json()['sandboxID']}")


def test_what_a_request_without_an_answer_made_is_killed_by_its_key(engine: Engine, wire: Wire) -> None:
    name = "i" + uuid.uuid4().hex[:20]
    key, body = {"idempotency-key": name}, {"templateID": "base"}
    made = wire.post("/v2/sandboxes", json=body, headers=key).json()["sandboxID"]
    check_error(wire.delete(f"/sandboxes/{name}"), 404)
    with Wire(engine.url, OTHER_KEY) as other:
        check_error(other.delete(f"/sandboxes/{name}", headers=key), 404)
    assert wire.get(f"/sandboxes/{made}").status_code == 200
    assert wire.delete(f"/sandboxes/{name}", headers=key).status_code == 204
    check_error(wire.get(f"/sandboxes/{made}"), 404)
    check_error(wire.delete(f"/sandboxes/{name}", headers=key), 404)
    check_error(wire.post("/v2/sandboxes", json=body, headers=key), 409)


def test_copies_are_killed_by_their_key_too(wire: Wire, box: Box) -> None:
    name = "i" + uuid.uuid4().hex[:20]
    key, body = {"idempotency-key": name}, {"count": 2, "timeout": 60}
    copies = wire.post(f"/sandboxes/{box.id}/fork", json=body, headers=key).json()
    assert wire.post(f"/sandboxes/{box.id}/fork", json=body, headers=key).json() == copies
    assert wire.delete(f"/sandboxes/{name}", headers=key).status_code == 204
    for copy in copies:
        check_error(wire.get(f"/sandboxes/{copy['sandbox']['sandboxID']}"), 404)
    assert wire.get(f"/sandboxes/{box.id}").status_code == 200


def test_a_key_that_is_given_up_before_its_request_arrives(wire: Wire) -> None:
    name = "i" + uuid.uuid4().hex[:20]
    key = {"idempotency-key": name}
    check_error(wire.delete(f"/sandboxes/{name}", headers=key), 404)
    check_error(wire.post("/v2/sandboxes", json={"templateID": "base"}, headers=key), 409)


# -- everything else ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nope", "/v2", "/v9/sandboxes", f"/sandboxes/{UNKNOWN_ID}/nope", "/%00"])
def test_unknown_paths(wire: Wire, path: str) -> None:
    check_error(wire.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/sandboxes"), ("DELETE", "/v2/sandboxes"), ("PATCH", f"/sandboxes/{UNKNOWN_ID}"), ("PUT", "/volumes")],
)
def test_wrong_methods(wire: Wire, method: str, path: str) -> None:
    answer = wire.request(method, path)
    check_error(answer, 405)
    assert answer.headers["allow"]
