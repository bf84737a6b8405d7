"""Everything that the protocol knows is answered: as it should be, or honestly as not offered, and never as unknown."""

from __future__ import annotations

import pytest

from tests.engine.wire import Box, Wire, check_error, check_rpc_error

UNKNOWN_ID = "i" + "0" * 20
HASH = "0" * 64
BUILD = "00000000-0000-4000-8000-000000000000"

#: All calls that any client makes of the control plane.
CALLS = f"""
POST /sandboxes
POST /v2/sandboxes
GET /v2/sandboxes
GET /sandboxes
GET /sandboxes/{UNKNOWN_ID}
DELETE /sandboxes/{UNKNOWN_ID}
POST /sandboxes/{UNKNOWN_ID}/connect
POST /v2/sandboxes/{UNKNOWN_ID}/connect
POST /sandboxes/{UNKNOWN_ID}/pause
POST /sandboxes/{UNKNOWN_ID}/resume
POST /sandboxes/{UNKNOWN_ID}/timeout
POST /sandboxes/{UNKNOWN_ID}/refreshes
PUT /sandboxes/{UNKNOWN_ID}/network
POST /sandboxes/{UNKNOWN_ID}/snapshots
POST /sandboxes/{UNKNOWN_ID}/fork
GET /sandboxes/{UNKNOWN_ID}/metrics
GET /sandboxes/metrics
GET /sandboxes/{UNKNOWN_ID}/logs
GET /v2/sandboxes/{UNKNOWN_ID}/logs
GET /snapshots
DELETE /templates/nope
DELETE /templates/team/nope:tag
DELETE /templates/team%2Fnope%3Atag
POST /v3/templates
GET /templates/nope/files/{HASH}
POST /v2/templates/nope/builds/{BUILD}
GET /templates/nope/builds/{BUILD}/status
GET /templates/nope/builds/{BUILD}/logs
GET /templates/aliases/nope
GET /templates/aliases/team/nope
GET /templates/aliases/team%2Fnope
POST /templates/tags
DELETE /templates/tags
GET /templates/nope/tags
GET /templates/team/nope/tags
GET /templates/nope/tags/count
GET /templates/nope/tags/exists
GET /templates/nope/tags/groups
GET /templates/nope/tags/default/assignments
GET /templates
GET /templates/nope
PATCH /templates/nope
PATCH /v2/templates/nope
GET /v2/templates
GET /default-templates
POST /templates
POST /templates/nope
POST /templates/nope/builds/{BUILD}
POST /v2/templates
GET /volumes
POST /volumes
GET /volumes/nope
DELETE /volumes/nope
GET /volumecontent/nope/path
PATCH /volumecontent/nope/path
DELETE /volumecontent/nope/path
GET /volumecontent/nope/dir
POST /volumecontent/nope/dir
GET /volumecontent/nope/file
PUT /volumecontent/nope/file
GET /secrets
POST /secrets
GET /secrets/nope
POST /secrets/nope
DELETE /secrets/nope
"""

NOT_OFFERED: list[tuple[str, str, dict[str, object] | None]] = [
    ("POST", "/templates", {}),
    ("POST", "/templates/nope", {}),
    ("POST", f"/templates/nope/builds/{BUILD}", {}),
    ("GET", "/secrets", None),
    ("POST", "/secrets", {"name": "a", "value": "b"}),
    ("GET", "/secrets/nope", None),
    ("DELETE", "/secrets/nope", None),
]
#: Fields of a new sandbox that ask for what this engine cannot do.
WISHES: list[dict[str, object]] = [
    {"mcp": {"browserbase": {}}},
    {"mcp": {"browserbase": {}}, "templateID": "mcp-gateway"},
    {"iam": {"tokens": {"t": {"audience": "a", "tokenType": "id"}}}},
    {"network": {"egressProxy": {"address": "10.0.0.1:1080"}}},
    {"network": {"rules": {"example.org": [{"transform": {"headers": {}}}]}}},
]
NOT_OFFERED += [
    ("POST", path, {"templateID": "base"} | fields) for path in ("/sandboxes", "/v2/sandboxes") for fields in WISHES
]


@pytest.mark.parametrize("call", CALLS.split("\n")[1:-1])
def test_every_call_is_known(wire: Wire, call: str) -> None:
    method, path = call.split()
    answer = wire.request(method, path, json=None if method == "GET" else {})
    assert answer.status_code not in (405, 500), answer.text
    if not answer.is_success:
        body = check_error(answer, answer.status_code)
        assert body["message"] != "not found"


@pytest.mark.parametrize(("method", "path", "body"), NOT_OFFERED)
def test_what_is_not_offered_says_so(wire: Wire, method: str, path: str, body: object) -> None:
    answer = wire.request(method, path, json=body)
    check_error(answer, 501)
    assert answer.headers["should-retry"] == "false"


RPCS = {
    "process.Process": ["List", "Update", "SendInput", "SendSignal", "CloseStdin"],
    "filesystem.Filesystem": [
        *("Stat", "ListDir", "MakeDir", "Move", "Remove", "CreateWatcher", "GetWatcherEvents", "RemoveWatcher"),
    ],
}


@pytest.mark.parametrize("method", [f"{service}/{name}" for service, names in RPCS.items() for name in names])
def test_every_unary_rpc_is_known(box: Box, method: str) -> None:
    answer = box.rpc(method, {"path": "nope", "source": "nope", "destination": "nope2"})  # no path is the home
    if not answer.is_success:
        check_rpc_error(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("method", ["Start", "Connect", "StreamInput"])
def test_every_streaming_rpc_is_known(box: Box, method: str) -> None:
    (*_, end) = box.events(method, {"process": {}})
    assert end["error"]["code"] in ("invalid_argument", "unimplemented")


@pytest.mark.parametrize("service", ["process.Process", "filesystem.Filesystem"])
def test_unknown_rpcs(box: Box, service: str) -> None:
    check_error(box.rpc(f"{service}/Nope", {}), 404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 204),
        ("GET", "/metrics", 200),
        ("GET", "/envs", 200),
        ("POST", "/files/compose", 400),
        ("GET", "/files/compose", 405),
        ("DELETE", "/health", 405),
        ("POST", "/envs", 405),
    ],
)
def test_every_plain_route_of_the_daemon(box: Box, method: str, path: str, status: int) -> None:
    answer = box.wire.request(method, path, headers=box.headers, json=None if method == "GET" else {})
    assert answer.status_code == status
    if status >= 400:
        check_error(answer, status)
    assert ("allow" in answer.headers) == (status == 405)
