"""`process.Process`: what goes into a process."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.engine.background import Background, b64, by_pid
from tests.engine.wire import STREAM, Box, Wire, check_rpc_error, first_message, pack, unpack


def test_input_and_its_end(box: Box) -> None:
    with box.open("Start", {"process": {"cmd": "/bin/cat"}}) as answer:
        message, chunks = first_message(answer)
        pid = message["event"]["start"]["pid"]
        data = bytes(range(256)) * 100
        with Wire(str(box.wire.base_url), None) as client:
            other = Box(client, box.answer)
            assert other.rpc("process.Process/SendInput", by_pid(pid, input={"stdin": b64(data)})).json() == {}
            url_safe = base64.urlsafe_b64encode(b"\xfb\xff").decode().rstrip("=")
            assert other.rpc("process.Process/SendInput", by_pid(pid, input={"stdin": url_safe})).json() == {}
            assert other.rpc("process.Process/SendInput", by_pid(pid, input={"stdin": ""})).json() == {}
            for _ in range(2):
                assert other.rpc("process.Process/CloseStdin", by_pid(pid)).json() == {}
        messages = list(unpack(b"".join(chunks)))
    output = b"".join(base64.b64decode(m["event"]["data"]["stdout"]) for m in messages if "data" in m.get("event", {}))
    assert output == data + b"\xfb\xff"
    assert messages[-2]["event"]["end"]["exited"] is True


def test_input_that_cannot_be(box: Box) -> None:
    without = Background(box, "sleep 50", stdin=False)
    given = {"stdin": b64(b"x")}
    check_rpc_error(box.rpc("process.Process/SendInput", by_pid(without.pid, input=given)), 500, "internal")
    check_rpc_error(
        box.rpc("process.Process/SendInput", by_pid(without.pid, input={"pty": b64(b"x")})), 500, "internal"
    )
    check_rpc_error(box.rpc("process.Process/SendInput", by_pid(without.pid)), 501, "unimplemented")
    check_rpc_error(box.rpc("process.Process/SendInput", {"input": given}), 501, "unimplemented")
    check_rpc_error(box.rpc("process.Process/SendInput", by_pid(99_999_999, input=given)), 404, "not_found")
    bad = box.rpc("process.Process/SendInput", by_pid(without.pid, input={"stdin": "!"}))
    check_rpc_error(bad, 400, "invalid_argument")
    without.signal()
    closed = Background(box, "sleep 50", stdin=True)
    box.rpc("process.Process/CloseStdin", by_pid(closed.pid))
    check_rpc_error(box.rpc("process.Process/SendInput", by_pid(closed.pid, input=given)), 500, "internal")
    closed.signal()


def test_input_that_nobody_reads_waits_no_longer_than_its_deadline(box: Box) -> None:
    process = Background(box, "sleep 50", stdin=True)
    given = {"stdin": b64(bytes(1_000_000))}
    answer = box.rpc("process.Process/SendInput", by_pid(process.pid, input=given), connect_timeout_ms="500")
    check_rpc_error(answer, 504, "deadline_exceeded")
    process.signal()


def test_stream_input(box: Box) -> None:
    with box.open("Start", {"process": {"cmd": "/bin/cat"}, "stdin": True}) as answer:
        message, chunks = first_message(answer)
        pid = message["event"]["start"]["pid"]

        def parts() -> Any:
            yield pack(json.dumps({"start": by_pid(pid)}).encode())
            for piece in (b"one ", b"two"):
                envelope = pack(('{"data":{"input":{"stdin":"' + b64(piece) + '"}}}').encode())
                yield envelope[:7]
                yield envelope[7:]
            yield pack(b'{"keepalive":{}}')

        with Wire(str(box.wire.base_url), None) as client:
            other = Box(client, box.answer)
            done = client.post("/process.Process/StreamInput", content=parts(), headers=box.headers | STREAM)
            assert list(unpack(done.content)) == [{}, {}]
            other.rpc("process.Process/CloseStdin", by_pid(pid))
        messages = list(unpack(b"".join(chunks)))
    output = b"".join(base64.b64decode(m["event"]["data"]["stdout"]) for m in messages if "data" in m.get("event", {}))
    assert output == b"one two"


def test_stream_input_must_name_its_process_first(box: Box) -> None:
    content = pack(b'{"data":{"input":{"stdin":"eA=="}}}')
    answer = box.wire.post("/process.Process/StreamInput", content=content, headers=box.headers | STREAM)
    (end,) = unpack(answer.content)
    assert end["error"]["code"] == "invalid_argument"


def test_update(box: Box) -> None:
    process = Background(box, "sleep 50")
    assert box.rpc("process.Process/Update", by_pid(process.pid)).json() == {}
    sized = by_pid(process.pid, pty={"size": {"cols": 1, "rows": 1}})
    check_rpc_error(box.rpc("process.Process/Update", sized), 500, "internal")
    check_rpc_error(box.rpc("process.Process/Update", by_pid(99_999_999)), 404, "not_found")
    process.signal()
