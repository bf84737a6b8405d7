"""What listens in a sandbox, seen from outside: HTTP both ways, streams, refusals."""

from __future__ import annotations

import http.client
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.engine.servers import WEB, certify, start, wait_for
from tests.engine.wire import TIMEOUT, Box, Wire, check_error
from tests.support.engine import Engine

PORT, V6_PORT, CLOSED, TLS_PORT = "8000", "8006", "8999", "8443"
NOT_OPEN = "The sandbox is running but port is not open"


@pytest.fixture(scope="module")
def served(wire: Wire) -> Iterator[Box]:
    """A sandbox with a web server on each version of IP."""
    with wire.box() as box:
        start(box, WEB, "127.0.0.1", PORT)
        start(box, WEB, "::1", V6_PORT)
        yield box


def by_host(box: Box, port: str = PORT, **more: str) -> dict[str, str]:
    return {"host": f"{port}-{box.id}.localhost", **more}


def by_headers(box: Box, port: str = PORT) -> dict[str, str]:
    return {"e2b-sandbox-id": box.id, "e2b-sandbox-port": port}


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "HEAD"])
def test_a_request_arrives_as_it_was_sent(served: Box, method: str) -> None:
    answer = served.wire.request(method, "/a%20b/%C3%BC?x=1&y=%2F", headers=by_host(served, **{"x-own": "o"}))
    assert answer.status_code == 200
    if method == "HEAD":
        assert (answer.content, int(answer.headers["content-length"]) > 0) == (b"", True)
        return
    first, *lines = answer.text.splitlines()
    seen = dict(line.split(": ", 1) for line in lines)
    assert first == f"{method} /a%20b/%C3%BC?x=1&y=%2F"
    assert seen["host"] == by_host(served)["host"]
    assert seen["connection"] == "close"
    assert "x-own" in seen
    assert seen["x-forwarded-host"] == seen["host"]


def test_by_headers_and_by_host(served: Box) -> None:
    for headers in (by_host(served), by_headers(served), by_host(served, V6_PORT), by_headers(served, V6_PORT)):
        assert served.wire.get("/health", headers=headers).text.startswith("GET /health")
        assert served.wire.post("/process.Process/List", content=b"{}", headers=headers).text == "2 length"


def test_what_is_said_to_the_engine_stays_with_it(served: Box) -> None:
    headers = by_headers(served) | {"connection": "x-hop", "x-hop": "1", "te": "trailers", "keep-alive": "1"}
    if served.wire.get("/", headers=by_host(served)).http_version == "HTTP/2":
        headers = by_headers(served)  # which has no such headers at all
    headers["x-access-token"] = served.token or ""
    seen = served.wire.get("/", headers=headers).text
    for name in ("e2b-sandbox-id", "e2b-sandbox-port", "x-hop", "te:", "keep-alive", "x-access-token"):
        assert name not in seen
    assert "x-access-token: its own" in served.wire.get("/", headers=headers | {"x-access-token": "its own"}).text


def test_answers_keep_their_headers(served: Box) -> None:
    answer = served.wire.get("/", headers=by_host(served))
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["x-stays"] == "1"
    assert "x-hop" not in answer.headers


def test_cookies_are_one_header(served: Box) -> None:
    sent = [*by_host(served).items(), ("cookie", "a=1"), ("cookie", "b=2")]
    assert "cookie: a=1; b=2" in served.wire.get("/", headers=sent).text


def test_bodies(served: Box) -> None:
    whole = served.wire.post("/p", content=b"x" * 100_000, headers=by_host(served))
    assert whole.text == "100000 length"
    pieces = served.wire.put("/p", content=iter([b"y" * 1000] * 50), headers=by_host(served))
    assert pieces.text == "50000 chunked"
    assert served.wire.patch("/p", content=b"", headers=by_host(served)).text == "0 length"


def test_an_answer_before_the_request_is_over(served: Box) -> None:
    # a client of its own: over HTTP/1.1 its connection ends, and may do so while the next request is on its way
    with Wire(str(served.wire.base_url), None) as other:
        answer = other.post("/early", content=iter([b"z" * 1000] * 20), headers=by_host(served))
    assert (answer.status_code, answer.text) == (200, "enough")


def test_an_answer_before_the_request_is_over_ends_the_connection(served: Box, engine: Engine) -> None:
    """No request can follow on it: a client that keeps connections must be told."""
    address = urlsplit(engine.url)
    head = f"POST /early HTTP/1.1\r\nhost: {by_host(served)['host']}\r\ncontent-length: 1000\r\n\r\nthe first part"
    with socket.create_connection((address.hostname, address.port), TIMEOUT) as sock:
        sock.sendall(head.encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert (answer.status, answer.getheader("connection"), answer.read()) == (200, "close", b"enough")
        sock.sendall(bytes(1000 - len("the first part")))
        assert sock.recv(1) == b""


def test_chunks(served: Box) -> None:
    assert served.wire.get("/chunks", headers=by_host(served)).text == "one two three"


def test_events_come_as_they_are_written(served: Box) -> None:
    served.sh("rm -f /tmp/go?")
    with served.wire.stream("GET", "/events", headers=by_host(served)) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        chunks = answer.iter_raw()
        for number in range(3):
            assert next(chunks) == b"data: %d\n\n" % number
            served.sh(f"touch /tmp/go{number}")
        assert list(chunks) == []


def test_a_client_that_leaves_is_noticed(served: Box) -> None:
    served.sh("rm -f /tmp/left")
    with Wire(str(served.wire.base_url), None) as other:
        with other.stream("GET", "/endless", headers=by_host(served)) as answer:
            assert next(answer.iter_raw())
    wait_for(served, "/tmp/left")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(served: Box) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        served.wire.get("/broken", headers=by_host(served))


def test_a_long_answer_takes_no_memory(served: Box, engine: Engine) -> None:
    before = _resident(engine)
    size = 0
    with served.wire.stream("GET", "/big", headers=by_host(served)) as answer:
        for chunk in answer.iter_raw():
            size += len(chunk)
    assert size == 256 << 20
    assert _resident(engine) - before < 64 << 20


def _resident(engine: Engine) -> int:
    fields = Path(f"/proc/{engine.process.pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


# -- refusals ------------------------------------------------------------------------------------------------------


def test_nothing_listens(served: Box) -> None:
    expected = {"sandboxId": served.id, "message": NOT_OPEN, "code": 502, "port": int(CLOSED)}
    for headers in (by_host(served, CLOSED), by_headers(served, CLOSED)):
        answer = served.wire.get("/", headers=headers)
        assert (answer.status_code, answer.json()) == (502, expected)


def test_a_browser_gets_a_page(served: Box) -> None:
    answer = served.wire.get("/", headers=by_host(served, CLOSED, accept="text/html,*/*"))
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("text/html")
    assert NOT_OPEN in answer.text
    assert served.id in answer.text
    gone = served.wire.get("/", headers={"host": f"80-i{'z' * 20}.localhost", "accept": "text/html"})
    assert (gone.status_code, "The sandbox was not found" in gone.text) == (502, True)


def test_no_http_there(served: Box) -> None:
    answer = served.wire.get("/nonsense", headers=by_host(served))
    assert answer.status_code == 502
    assert answer.json()["port"] == int(PORT)


def test_no_http_there_many_times_at_once(served: Box) -> None:
    """However sending the request and its refusal meet, the refusal arrives."""
    statuses: list[int] = []

    def ask() -> None:
        with served.apart() as box:
            statuses.extend(box.wire.get("/nonsense", headers=by_host(served)).status_code for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [502] * 400


def test_a_sandbox_that_is_gone(wire: Wire) -> None:
    with wire.box() as box:
        pass
    answer = wire.get("/", headers=by_host(box))
    assert (answer.status_code, answer.json()["message"]) == (502, "The sandbox was not found")


def test_ports_of_others(served: Box, wire: Wire) -> None:
    with wire.box() as other:
        assert other.wire.get("/", headers=by_host(other)).status_code == 502


# -- who may come in -----------------------------------------------------------------------------------------------


def test_the_traffic_token(wire: Wire) -> None:
    with wire.box(network={"allowPublicTraffic": False}) as box:
        token = box.answer["trafficAccessToken"]
        start(box, WEB, "127.0.0.1", PORT)
        for headers in ({}, {"e2b-traffic-access-token": "wrong"}, {"x-access-token": str(box.token)}):
            answer = wire.get("/", headers=by_host(box) | headers)
            assert answer.status_code == 403, headers
            body = answer.json()
            assert (body["sandboxId"], body["code"]) == (box.id, 403)
            assert token not in answer.text
        for name in ("e2b-traffic-access-token", "grotte-traffic-access-token"):
            answer = wire.get("/", headers=by_host(box) | {name: token})
            assert answer.status_code == 200
            assert token not in answer.text
        assert box.sh("echo in").stdout == b"in\n"  # the daemon's own port is exempt
        assert wire.get(f"/sandboxes/{box.id}").json()["network"]["allowPublicTraffic"] is False


def test_open_sandboxes_have_no_traffic_token(served: Box) -> None:
    assert served.answer["trafficAccessToken"] is None


def test_the_host_that_servers_see(wire: Wire) -> None:
    with wire.box(network={"maskRequestHost": "localhost:${PORT}"}) as box:
        start(box, WEB, "127.0.0.1", PORT)
        seen = wire.get("/", headers=by_host(box)).text
        assert f"host: localhost:{PORT}" in seen
        assert f"x-forwarded-host: {by_host(box)['host']}" in seen
        assert wire.get(f"/sandboxes/{box.id}").json()["network"]["maskRequestHost"] == "localhost:${PORT}"


# -- servers that speak HTTPS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A sandbox with a server that speaks HTTPS, and one of which its owner says so in error."""
    with wire.box(network={"httpsPorts": [int(TLS_PORT), int(PORT), int(CLOSED)]}) as box:
        certify(box, tmp_path_factory.mktemp("certificate"), TLS_PORT)
        start(box, WEB, "127.0.0.1", TLS_PORT)
        start(box, WEB, "127.0.0.1", PORT)
        yield box


def test_a_server_that_speaks_https(secured: Box) -> None:
    headers = by_host(secured, TLS_PORT)
    assert f"host: {headers['host']}" in secured.wire.get("/echo", headers=headers).text
    assert secured.wire.get("/chunks", headers=headers).text == "one two three"
    assert secured.wire.post("/p", content=bytes(3_000_000), headers=headers).text == "3000000 length"
    assert len(secured.wire.get("/big", headers=headers).content) == 256 << 20
    secured.sh("touch /tmp/go0 /tmp/go1 /tmp/go2")
    assert secured.wire.get("/events", headers=headers).text.count("data") == 3  # it ends with the connection
    assert secured.wire.get(f"/sandboxes/{secured.id}").json()["network"]["httpsPorts"] == [8443, 8000, 8999]


def test_a_port_that_does_not_speak_https(secured: Box) -> None:
    not_https = "The sandbox is running but its port does not answer in HTTPS"
    for port, message in ((PORT, not_https), (CLOSED, NOT_OPEN)):
        answer = secured.wire.get("/", headers=by_host(secured, port))
        expected = {"sandboxId": secured.id, "message": message, "code": 502, "port": int(port)}
        assert (answer.status_code, answer.json()) == (502, expected)


@pytest.mark.parametrize("ports", [[0], [65536], [49983], ["8443"], [8443.5], 8443, list(range(1, 66))])
def test_ports_of_https_that_make_no_sense(wire: Wire, ports: object) -> None:
    check_error(wire.post("/v2/sandboxes", json={"templateID": "base", "network": {"httpsPorts": ports}}), 400)
