"""How a request finds its sandbox, and what it hears when it does not."""

from __future__ import annotations

import httpx
import pytest

from grotte._proto.signature import sign
from tests.engine.wire import JSON, STREAM, Box, Wire, check_error, pack

LIST = "/process.Process/List"
NOT_FOUND = "The sandbox was not found"
UNKNOWN_ID = "i" + "z" * 20


def gone(answer: httpx.Response, sandbox_id: str) -> None:
    assert answer.status_code == 502, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"sandboxId": sandbox_id, "message": NOT_FOUND, "code": 502}


def call(box: Box, headers: dict[str, str], path: str = LIST) -> httpx.Response:
    return box.wire.post(path, content=b"{}", headers=JSON | headers)


def token(box: Box) -> dict[str, str]:
    assert box.token is not None
    return {"x-access-token": box.token}


@pytest.mark.parametrize("prefix", ["grotte", "e2b", "Grotte", "E2b"])
def test_by_headers(box: Box, prefix: str) -> None:
    headers = {f"{prefix}-Sandbox-Id": box.id, f"{prefix}-Sandbox-Port": "49983"} | token(box)
    if box.wire.get("/health").http_version == "HTTP/2":
        headers = {name.lower(): value for name, value in headers.items()}
    assert call(box, headers).status_code == 200


def test_by_host(box: Box) -> None:
    for host in (f"49983-{box.id}.grotte.dev", f"49983-{box.id}.localhost:3000", f"49983-{box.id}-x1.a.b".upper()):
        assert call(box, token(box) | {"host": host}).status_code == 200


def test_by_token(box: Box) -> None:
    assert call(box, token(box)).status_code == 200
    answer = box.wire.get("/health", headers=token(box))
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")


def test_a_host_that_names_a_sandbox_wins_over_headers_and_these_over_the_token(box: Box) -> None:
    wrong = {"e2b-sandbox-id": UNKNOWN_ID, "e2b-sandbox-port": "49983"}
    assert call(box, token(box) | wrong | {"host": f"49983-{box.id}.grotte.dev"}).status_code == 200
    gone(call(box, box.headers | {"host": f"49983-{UNKNOWN_ID}.grotte.dev"}), UNKNOWN_ID)
    gone(call(box, token(box) | wrong), UNKNOWN_ID)
    for host in ("sandbox.grotte.dev", "localhost:3000", "127.0.0.1", "[::1]:3000", "my-engine.example", "3-engine:80"):
        assert call(box, box.headers | {"host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_internal_does_not_exist_outside_whoever_asks(box: Box, method: str, path: str) -> None:
    address = {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"}
    for headers in (address, box.headers):
        answer = box.wire.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["sandboxId"], answer.json()["code"]) == (404, box.id, 404)


def test_unknown_sandbox(box: Box) -> None:
    headers = {"e2b-sandbox-id": UNKNOWN_ID, "e2b-sandbox-port": "49983"}
    gone(call(box, headers), UNKNOWN_ID)
    gone(box.wire.get("/health", headers=headers), UNKNOWN_ID)
    gone(box.wire.get("/", headers=headers), UNKNOWN_ID)
    gone(box.wire.get("/files", params={"path": "x"}, headers=headers), UNKNOWN_ID)
    gone(call(box, {"host": f"49983-{UNKNOWN_ID}.grotte.dev"}), UNKNOWN_ID)
    gone(box.wire.post("/process.Process/Start", content=pack(b"{}"), headers=STREAM | headers), UNKNOWN_ID)


def test_killed_sandboxes_are_told_from_wrong_tokens(wire: Wire) -> None:
    with wire.box() as box:
        signature = sign("x", "read", "", box.token or "")
    for headers in (box.headers, token(box), {"host": f"49983-{box.id}.grotte.dev"}):
        gone(wire.get("/health", headers=headers), box.id)
        gone(call(box, headers), box.id)
    check_error(wire.get("/health", headers={"x-access-token": "wrong"}), 401)
    check_error(wire.get("/files", params={"path": "x", "signature": signature}), 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"e2b-sandbox-id": "ID"},
        {"e2b-sandbox-port": "49983"},
        {"grotte-sandbox-id": "ID"},
        {"e2b-sandbox-id": "nope", "e2b-sandbox-port": "49983"},
        {"e2b-sandbox-id": "ID", "e2b-sandbox-port": "x"},
        {"e2b-sandbox-id": "ID", "e2b-sandbox-port": "0"},
        {"e2b-sandbox-id": "ID", "e2b-sandbox-port": "65536"},
        {"e2b-sandbox-id": "ID", "e2b-sandbox-port": "-1"},
        {"host": "49983-nope.grotte.dev"},
        {"host": "99999-ID.grotte.dev"},
        {"host": "0-ID.grotte.dev"},
        {"host": "http-ID.grotte.dev"},
        {"host": "-ID.grotte.dev"},
        {"host": "49983-ID"},
        {"host": "49983-ID:3000"},
        {},
    ],
)
def test_malformed_addresses(box: Box, headers: dict[str, str]) -> None:
    sent = {name: value.replace("ID", box.id) for name, value in headers.items()}
    for path in [LIST, "/"] if headers else [LIST]:
        answer = call(box, sent, path)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        if len(headers) == 1 and "host" not in headers:
            assert "missing header" in answer.text


@pytest.mark.parametrize("path", ["/", "/sandboxes", "/health", LIST])
def test_other_ports_are_not_open(box: Box, path: str) -> None:
    expected = {
        "sandboxId": box.id,
        "message": "The sandbox is running but port is not open",
        "code": 502,
        "port": 8000,
    }
    by_headers = box.wire.get(path, headers={"e2b-sandbox-id": box.id, "e2b-sandbox-port": "8000"})
    by_host = box.wire.get(path, headers={"host": f"8000-{box.id}.grotte.dev"})
    for answer in (by_headers, by_host):
        assert (answer.status_code, answer.json()) == (502, expected)


# -- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, "", "wrong", "ü"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", LIST), ("GET", "/envs"), ("GET", "/metrics"), ("POST", "/health")]
)
def test_every_route_needs_the_access_token(box: Box, method: str, path: str, wrong: str | None) -> None:
    headers = {name: value.encode() for name, value in box.headers.items() if name != "x-access-token"}
    if wrong is not None:
        headers["x-access-token"] = wrong.encode()
    check_error(box.wire.request(method, path, headers=headers | {"content-type": b"application/json"}), 401)


def test_a_stream_without_token_is_refused_before_it_begins(box: Box) -> None:
    headers = box.headers | STREAM | {"x-access-token": "wrong"}
    check_error(box.wire.post("/process.Process/Start", content=pack(b"{}"), headers=headers), 401)


def test_health_needs_no_token(box: Box) -> None:
    headers = {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"}
    assert box.wire.get("/health", headers=headers).status_code == 204


def test_the_token_of_another_sandbox_does_not_fit(wire: Wire, box: Box) -> None:
    with wire.box() as other:
        check_error(call(box, box.headers | token(other)), 401)
        assert call(other, token(other)).status_code == 200


def test_an_open_sandbox_needs_no_token(wire: Wire) -> None:
    with wire.box("/sandboxes") as box:
        assert call(box, {"e2b-sandbox-id": box.id, "e2b-sandbox-port": "49983"}).status_code == 200
        assert box.put_file("/tmp/x", b"1").status_code == 200
        assert box.get_file("/tmp/x").content == b"1"


# -- browsers ----------------------------------------------------------------------------------------------------


def test_preflight(box: Box) -> None:
    asked = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-access-token, connect-protocol-version",
    }
    answer = box.wire.options("/process.Process/Start", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
    assert answer.headers["access-control-max-age"] == "7200"
    for method in ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"):
        assert method in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("path", ["/v2/sandboxes", f"/sandboxes/{UNKNOWN_ID}", "/templates/a/b:c", "/uploads/x"])
def test_preflight_of_the_control_plane_needs_no_key(box: Box, path: str) -> None:
    asked = {"origin": "https://example.org", "access-control-request-method": "DELETE"}
    answer = box.wire.options(path, headers=asked | {"access-control-request-headers": "x-api-key", "x-api-key": ""})
    assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (204, "x-api-key")
    assert answer.headers["access-control-allow-origin"] == "*"
    check_error(box.wire.options(path), 405)


def test_answers_and_errors_may_be_read_by_any_page(box: Box) -> None:
    origin = {"origin": "https://example.org"}
    answers = [
        call(box, box.headers | origin),
        call(box, origin),
        box.get_file("/etc/hosts", **origin),
        box.get_file("/nope", **origin),
        box.wire.get("/health", headers=box.headers | origin),
    ]
    answers += [
        box.wire.get("/v2/sandboxes", headers=origin),
        box.wire.get("/v2/sandboxes?limit=0", headers=origin),
        box.wire.delete(f"/sandboxes/{UNKNOWN_ID}", headers=origin | {"x-api-key": "wrong"}),
        box.wire.get("/nothing", headers=origin),
    ]
    assert [answer.headers.get_list("access-control-allow-origin") for answer in answers] == [["*"]] * 9
    assert "access-control-allow-origin" not in call(box, box.headers).headers
