"""Connect as strangers speak it, and as attackers do."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from tests.engine.wire import JSON, STREAM, Box, Result, Wire, check_error, check_rpc_error, first_message, pack, unpack

START = "/process.Process/Start"
STAT = "/filesystem.Filesystem/Stat"


def stream_error(box: Box, content: bytes | Iterator[bytes]) -> str:
    answer = box.wire.post(START, content=content, headers=box.headers | STREAM)
    assert answer.status_code == 200
    (end,) = unpack(answer.content)
    return str(end["error"]["code"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_only_post(box: Box, method: str) -> None:
    answer = box.wire.request(method, STAT, headers=box.headers)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", [START, STAT])
@pytest.mark.parametrize("kind", ["application/xml", "application/grpc", "application/grpc-web-text", "text/plain", ""])
def test_other_content_types(box: Box, path: str, kind: str) -> None:
    check_error(box.wire.post(path, content=b"{}", headers=box.headers | {"content-type": kind}), 415)


def test_streams_and_calls_have_different_content_types(box: Box) -> None:
    check_error(box.wire.post(START, content=b"{}", headers=box.headers | JSON), 415)
    check_error(box.wire.post(STAT, content=b"{}", headers=box.headers | STREAM), 415)


def test_parameters_of_the_content_type_are_ignored(box: Box) -> None:
    headers = box.headers | {"content-type": "Application/JSON; charset=utf-8"}
    assert box.wire.post(STAT, content=b'{"path":"/"}', headers=headers).status_code == 200


def test_unknown_methods(box: Box) -> None:
    check_error(box.wire.post("/process.Process/GetResultOf", content=b"{}", headers=box.headers | JSON), 404)
    check_error(box.wire.post("/filesystem.Filesystem/", content=b"{}", headers=box.headers | JSON), 404)


def test_requests_may_come_in_pieces(box: Box) -> None:
    content = pack(b'{"process":{"cmd":"/bin/echo","args":["x"]},"stdin":false}')
    answer = box.wire.post(START, content=(bytes([byte]) for byte in content), headers=box.headers | STREAM)
    assert Result(list(unpack(answer.content))).stdout == b"x\n"
    answer = box.wire.post(STAT, content=iter([b'{"pa', b'th":"/"}']), headers=box.headers | JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        '{"process": {"cmd": "/bin/echo", "args": ["ok"], "envs": null, "cwd": null}, "pty": null, "tag": null}',
        '{\n  "process": {\n    "cmd": "/bin/echo",\n    "args": [\n      "ok"\n    ]\n  },\n  "stdin": false\n}',
        '{"process":{"cmd":"/bin/echo","args":["ok"],"unknown":{"deep":[1]}},"more":1,"stdin":true}',
        '{"process":{"cmd":"/bin/echo","args":["\\u006fk"]}}',
    ],
)
def test_json_as_any_writer_writes_it(box: Box, message: str) -> None:
    answer = box.wire.post(START, content=pack(message.encode()), headers=box.headers | STREAM)
    assert Result(list(unpack(answer.content))).stdout == b"ok\n"


def test_an_empty_body_is_the_empty_message(box: Box) -> None:
    answer = box.wire.post("/process.Process/List", content=b"", headers=box.headers | JSON)
    assert answer.status_code == 200


def test_numbers_may_be_strings(box: Box) -> None:
    assert box.rpc("filesystem.Filesystem/ListDir", {"path": "/", "depth": "1"}).status_code == 200
    check_rpc_error(box.rpc("process.Process/Update", {"process": {"pid": "99999999"}}), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'"x"',
        b"{",
        b'{"path": 5}',
        b'{"path": {}}',
        b"\xff",
        b'{"path":' + b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_malformed_messages(box: Box, body: bytes) -> None:
    check_rpc_error(box.wire.post(STAT, content=body, headers=box.headers | JSON), 400, "invalid_argument")
    assert stream_error(box, pack(body.replace(b"path", b"process"))) == "invalid_argument"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("process.Process/Update", {"process": {"pid": -1}}),
        ("process.Process/Update", {"process": {"pid": 2**32}}),
        ("process.Process/Update", {"process": {"pid": 1.5}}),
        ("process.Process/Update", {"process": {"pid": True}}),
        ("process.Process/Update", {"process": {"pid": 1, "tag": "x"}}),
        ("process.Process/Update", {"process": {"pid": 1}, "pty": {"size": {"cols": 2**32}}}),
        ("process.Process/SendInput", {"process": {"pid": 1}, "input": {"stdin": "eA==", "pty": "eA=="}}),
        ("filesystem.Filesystem/ListDir", {"path": "/", "depth": 2**32}),
        ("filesystem.Filesystem/ListDir", {"path": "/", "depth": "one"}),
        ("filesystem.Filesystem/CreateWatcher", {"path": "/", "recursive": "true"}),
        ("filesystem.Filesystem/CreateWatcher", {"path": "/", "include_entry": 1}),
        ("filesystem.Filesystem/GetWatcherEvents", {"watcherId": 5}),
    ],
)
def test_values_of_the_wrong_kind(box: Box, method: str, message: dict[str, object]) -> None:
    check_rpc_error(box.rpc(method, message), 400, "invalid_argument")


@pytest.mark.parametrize("message", [{"stdin": "true"}, {"stdin": 1}, {"tag": 1}, {"pty": True}, {"process": []}])
def test_values_of_the_wrong_kind_in_a_stream(box: Box, message: dict[str, object]) -> None:
    content = json.dumps({"process": {"cmd": "/bin/true"}} | message).encode()
    assert stream_error(box, pack(content)) == "invalid_argument"


def test_garbage_envelopes(box: Box) -> None:
    good = b'{"process":{"cmd":"/bin/true"}}'
    assert stream_error(box, b"") == "unimplemented"
    assert stream_error(box, b"\0\0") == "invalid_argument"
    assert stream_error(box, pack(good)[:-1]) == "invalid_argument"
    assert stream_error(box, b"\0\xff\xff\xff\xff" + good) == "invalid_argument"
    assert stream_error(box, b"GET / HTTP/1.1\r\n\r\n") == "invalid_argument"
    assert stream_error(box, pack(good, flags=1)) == "internal"
    assert stream_error(box, pack(b"{}", flags=2)) == "unimplemented"


def test_other_compression_than_gzip_is_refused(box: Box) -> None:
    answer = box.rpc("process.Process/List", content_encoding="br")
    assert "gzip" in check_rpc_error(answer, 501, "unimplemented")
    (end,) = box.events("Start", {"process": {"cmd": "/bin/true"}}, connect_content_encoding="zstd")
    assert end["error"]["code"] == "unimplemented"
    assert box.events("Start", {"process": {"cmd": "/bin/true"}}, connect_content_encoding="identity")[-1] == {}


GZIP = {"content-encoding": "gzip", "connect-content-encoding": "gzip"}


def test_messages_may_be_compressed(box: Box) -> None:
    headers = box.headers | JSON | GZIP
    for body in (gzip.compress(b'{"path":"/"}'), b""):
        answer = box.wire.post(STAT, content=body, headers=headers)
        assert (answer.status_code, "content-encoding" in answer.headers) == (200, False)
    command = pack(gzip.compress(b'{"process":{"cmd":"/bin/cat"},"stdin":true,"tag":"zip"}'), flags=1)
    with box.wire.stream("POST", START, content=command, headers=box.headers | STREAM | GZIP) as answer:
        message, _ = first_message(answer)
        assert message["event"]["start"]["pid"] > 1
        pieces = [b'{"start":{"process":{"tag":"zip"}}}', b'{"data":{"input":{"stdin":"eA=="}}}']
        body = pack(pieces[0]) + pack(gzip.compress(pieces[1]), flags=1)  # each as the client likes
        answer = box.wire.post("/process.Process/StreamInput", content=body, headers=box.headers | STREAM | GZIP)
        assert list(unpack(answer.content)) == [{}, {}]
        box.rpc("process.Process/CloseStdin", {"process": {"tag": "zip"}})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"nonsense", "invalid_argument"),
        (gzip.compress(b'{"path":"/"}')[:-3], "invalid_argument"),
        (gzip.compress(b"\xff"), "invalid_argument"),
        (gzip.compress(bytes(65 << 20)), "resource_exhausted"),
    ],
)
def test_compressed_noise(box: Box, body: bytes, code: str) -> None:
    status = 400 if code == "invalid_argument" else 429
    check_rpc_error(box.wire.post(STAT, content=body, headers=box.headers | JSON | GZIP), status, code)
    answer = box.wire.post(START, content=pack(body, flags=1), headers=box.headers | STREAM | GZIP)
    (end,) = unpack(answer.content)
    assert end["error"]["code"] == code


def test_answers_are_never_compressed(box: Box) -> None:
    answer = box.rpc("filesystem.Filesystem/ListDir", {"path": "/usr/bin"}, accept_encoding="zstd,gzip,br")
    assert "content-encoding" not in answer.headers
    assert len(answer.json()["entries"]) > 50


def test_the_protocol_version_is_checked(box: Box) -> None:
    check_rpc_error(box.rpc("process.Process/List", connect_protocol_version="2"), 400, "invalid_argument")


def test_a_client_that_leaves_in_the_middle_of_its_request(box: Box) -> None:
    url = box.wire.base_url
    for cut in (30, 200):
        with socket.create_connection((url.host, url.port)) as sock:
            head = f"POST {START} HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in box.headers.items())
            sock.sendall((head + "content-length: 1000\r\n\r\n{}").encode()[:cut])
    assert box.sh("echo still here").stdout == b"still here\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\xff\x13\x37" * 20,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/sandboxes HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 3_000_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET /files?path=%ff%fe&signature=%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_noise_on_the_port(wire: Wire, raw: bytes) -> None:
    with socket.create_connection((wire.base_url.host, wire.base_url.port)) as sock:
        sock.settimeout(10)
        try:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1000)
        except OSError:
            pass
    assert wire.get("/v2/sandboxes").status_code == 200


def test_many_calls_at_once_on_one_connection(box: Box) -> None:
    content = pack(json.dumps({"process": {"cmd": "/bin/sleep", "args": ["50"]}, "tag": "many"}).encode())
    streams = [box.wire.stream("POST", START, content=content, headers=box.headers | STREAM) for _ in range(50)]
    answers = [stream.__enter__() for stream in streams]
    assert {answer.status_code for answer in answers} == {200}
    box.sh("pkill -KILL sleep")
    for stream in streams:
        stream.__exit__(None, None, None)


def test_a_stream_that_is_reset_lets_its_process_run_on(box: Box) -> None:
    """Over HTTP/2 a client leaves by RST_STREAM; what it does not read must not hold the process."""
    url = box.wire.base_url
    script = "head -c 20000000 /dev/zero; echo done > /tmp/reset-done"
    content = pack(json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": False}).encode())
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    box.sh("rm -f /tmp/reset-done")
    with socket.create_connection((url.host, url.port)) as sock:
        connection.initiate_connection()
        head = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": START}
        connection.send_headers(1, [*(head | STREAM | box.headers).items()])
        connection.send_data(1, content, end_stream=True)
        sock.sendall(connection.data_to_send())
        while not any(isinstance(event, DataReceived) for event in connection.receive_data(sock.recv(65536))):
            sock.sendall(connection.data_to_send())
        assert box.fs("Stat", path="/tmp/reset-done").status_code == 404
        connection.reset_stream(1, 8)
        sock.sendall(connection.data_to_send())
        for _ in range(200):
            if box.fs("Stat", path="/tmp/reset-done").status_code == 200:
                return
            time.sleep(0.05)
    raise AssertionError("the process is held by a stream that was reset")


@pytest.mark.parametrize("asks_first", [b"", b"expect: 100-continue\r\n"])
def test_a_refusal_neither_waits_for_a_body_nor_asks_for_it(wire: Wire, asks_first: bytes) -> None:
    url = wire.base_url
    with socket.create_connection((url.host, url.port)) as sock:
        sock.settimeout(10)
        sock.sendall(b"POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\n" + asks_first + b"content-length: 1000\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 401")


def told(wire: Wire, request: bytes) -> bytes:
    """What the engine says on a connection that goes silent after a request."""
    with socket.create_connection((wire.base_url.host, wire.base_url.port)) as sock:
        sock.settimeout(10)
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize("rest", [b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"content-length: 9\r\n\r\n{}"])
def test_requests_that_break_off_are_refused(wire: Wire, rest: bytes) -> None:
    key = f"x-api-key: {wire.headers['x-api-key']}\r\n".encode()
    head = b"POST /v2/sandboxes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    answer = told(wire, head + key + rest)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"code":400,' in answer


def test_queries_without_end(wire: Wire) -> None:
    check_error(wire.get("/v2/sandboxes?" + "&".join(f"a{n}=1" for n in range(5000))), 400)
