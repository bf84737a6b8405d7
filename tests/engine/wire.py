"""A client that says on the wire exactly what a test wants to say."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

OTHER_KEY = "grt_second"
TIMEOUT = 20.0
JSON = {"content-type": "application/json", "connect-protocol-version": "1"}
STREAM = {"content-type": "application/connect+json", "connect-protocol-version": "1"}
ENVD = "49983"


class Wire(httpx.Client):
    """The control plane, with a key."""

    def __init__(self, url: str, key: str | None, *, http2: bool = False) -> None:
        self.http2 = http2
        headers = {"x-api-key": key} if key else {}
        super().__init__(base_url=url, headers=headers, http1=not http2, http2=http2, timeout=TIMEOUT)

    def create(self, path: str = "/v2/sandboxes", **fields: object) -> dict[str, Any]:
        answer = self.post(path, json={"templateID": "base"} | fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    @contextmanager
    def box(self, path: str = "/v2/sandboxes", **fields: object) -> Iterator[Box]:
        """A sandbox for the length of a block."""
        made = Box(self, self.create(path, **fields))
        try:
            yield made
        finally:
            self.delete(f"/sandboxes/{made.id}")


class Box:
    """One sandbox's data plane."""

    def __init__(self, wire: Wire, answer: dict[str, Any]) -> None:
        self.wire = wire
        self.answer = answer
        self.id: str = answer["sandboxID"]
        self.token: str | None = answer["envdAccessToken"]
        self.headers = {"e2b-sandbox-id": self.id, "e2b-sandbox-port": ENVD}
        if self.token:
            self.headers["x-access-token"] = self.token

    def rpc(self, method: str, message: object = None, **headers: str) -> httpx.Response:
        """A unary call; `headers` by names with underscores."""
        body = json.dumps({} if message is None else message)
        return self.wire.post(f"/{method}", content=body, headers=self.headers | JSON | named(headers))

    def fs(self, method: str, **message: object) -> httpx.Response:
        return self.rpc(f"filesystem.Filesystem/{method}", message)

    def open(self, method: str, message: object, **headers: str) -> Any:
        """A server stream, as a context manager of the answer."""
        content = pack(json.dumps(message).encode())
        sent = self.headers | STREAM | named(headers)
        return self.wire.stream("POST", f"/process.Process/{method}", content=content, headers=sent)

    def events(self, method: str, message: object, **headers: str) -> list[dict[str, Any]]:
        """All messages of a server stream: events, then the end of stream."""
        with self.open(method, message, **headers) as answer:
            answer.read()
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/connect+json"
        assert "content-encoding" not in answer.headers
        return list(unpack(answer.content))

    @contextmanager
    def apart(self) -> Iterator[Box]:
        """The same sandbox over a connection of its own, which may be left in the middle of an answer."""
        with Wire(str(self.wire.base_url), None, http2=self.wire.http2) as client:
            yield Box(client, self.answer)

    def start(
        self, *command: str, stdin: bool | None = False, headers: dict[str, str] | None = None, **more: object
    ) -> Result:
        """Run a command to its end."""
        process: dict[str, object] = {"cmd": command[0], "args": list(command[1:])}
        process |= {name: more.pop(name) for name in ("envs", "cwd") if name in more}
        message = {"process": process} | more | ({} if stdin is None else {"stdin": stdin})
        return Result(self.events("Start", message, **(headers or {})))

    def sh(self, script: str, **more: Any) -> Result:
        return self.start("/bin/sh", "-c", script, **more)

    def get_file(self, path: str, **headers: str) -> httpx.Response:
        return self.wire.get("/files", params={"path": path}, headers=self.headers | named(headers))

    def put_file(self, path: str, data: bytes, **headers: str) -> httpx.Response:
        sent = self.headers | {"content-type": "application/octet-stream"} | named(headers)
        return self.wire.post("/files", params={"path": path}, content=data, headers=sent)


class Result:
    """What the events of a process say."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        *self.events, self.end_of_stream = messages

    @property
    def kinds(self) -> list[str]:
        return [next(iter(message["event"])) for message in self.events]

    def output(self, name: str) -> bytes:
        pieces = [m["event"]["data"].get(name, "") for m in self.events if "data" in m["event"]]
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)

    @property
    def stdout(self) -> bytes:
        return self.output("stdout")

    @property
    def stderr(self) -> bytes:
        return self.output("stderr")

    @property
    def end(self) -> dict[str, Any]:
        end: dict[str, Any] = self.events[-1]["event"]["end"]
        return end

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.end_of_stream["error"]
        return error


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def pack(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


def unpack(body: bytes) -> Iterator[dict[str, Any]]:
    """The messages of a whole stream; the last one, and it alone, is flagged as the end."""
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        payload, body = body[5 : 5 + length], body[5 + length :]
        assert len(payload) == length
        assert flags == (0 if body else 2)
        yield json.loads(payload)


def first_message(answer: httpx.Response) -> tuple[dict[str, Any], Iterator[bytes]]:
    """The first message of an open stream, and the chunks that follow it."""
    chunks = answer.iter_raw()
    data = b""
    while len(data) < 5 or len(data) < 5 + struct.unpack(">I", data[1:5])[0]:
        data += next(chunks)
    message: dict[str, Any] = json.loads(data[5 : 5 + struct.unpack(">I", data[1:5])[0]])
    return message, chunks


def check_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """An error of the control plane or of a plain route: JSON with both fields that clients read."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == status
    assert isinstance(body["message"], str)
    return body


def check_rpc_error(answer: httpx.Response, status: int, code: str) -> str:
    """A Connect error of a unary call."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["code"] == code, body
    return str(body["message"])
