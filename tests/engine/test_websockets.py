"""WebSockets to what listens in a sandbox."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from tests.engine.servers import WEBSOCKETS, certify, start, wait_for
from tests.engine.wire import TIMEOUT, Box, Wire
from tests.support.engine import Engine

PORT = "8100"


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[Box]:
    with Wire(engine.url, engine.api_key) as wire, wire.box() as box:
        start(box, WEBSOCKETS, PORT)
        yield box


class Client:
    """A WebSocket client, event by event."""

    def __init__(self, box: Box, target: str = "/", port: str = PORT, **opening: object) -> None:
        address = urlsplit(str(box.wire.base_url))
        self._sock = socket.create_connection((address.hostname, address.port), TIMEOUT)
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.host = f"{port}-{box.id}.localhost"
        self.send(Request(host=self.host, target=target, **opening))  # type: ignore[arg-type]  # what the test says

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, event: Event) -> None:
        self._sock.sendall(self._ws.send(event))

    def next(self) -> Event:
        while not self._events:
            data = self._sock.recv(65536)
            self._ws.receive_data(data or None)
            self._events += self._ws.events()
        return self._events.pop(0)

    def message(self) -> str | bytes:
        """The next whole message."""
        text, data = "", b""
        while True:
            event = self.next()
            if isinstance(event, TextMessage):
                text += event.data
            elif isinstance(event, BytesMessage):
                data += bytes(event.data)
            else:
                assert isinstance(event, Ping), event
                continue
            if event.message_finished:
                return text if isinstance(event, TextMessage) else data


def test_messages_go_both_ways(served: Box) -> None:
    served.sh("rm -f /tmp/ponged")
    with Client(served, "/chat?x=1", extra_headers=[(b"cookie", b"c=1")]) as client:
        assert isinstance(client.next(), AcceptConnection)
        assert client.message() == f"/chat?x=1 {client.host} c=1"
        for text in ("hello", "ü" * 1000, ""):
            client.send(TextMessage(data=text))
            assert client.message() == text
        for data in (b"\x00\xff", bytes(70_000), bytes(1 << 20)):
            client.send(BytesMessage(data=data))
            assert client.message() == data
        client.send(TextMessage(data="parts"))
        assert client.message() == "abcdef"
    assert wait_for(served, "/tmp/ponged") == b"ping"


def test_a_server_that_speaks_tls(engine: Engine, tmp_path: Path) -> None:
    with Wire(engine.url, engine.api_key) as wire, wire.box(network={"httpsPorts": [int(PORT)]}) as box:
        certify(box, tmp_path, PORT)
        start(box, WEBSOCKETS, PORT)
        with Client(box) as client:
            assert isinstance(client.next(), AcceptConnection)
            client.message()
            client.send(BytesMessage(data=bytes(1 << 20)))
            assert client.message() == bytes(1 << 20)


def test_the_server_closes(served: Box) -> None:
    with Client(served) as client:
        assert isinstance(client.next(), AcceptConnection)
        client.message()
        client.send(TextMessage(data="bye"))
        closing = client.next()
        while isinstance(closing, Ping):
            closing = client.next()
        assert isinstance(closing, CloseConnection)
        assert (closing.code, closing.reason) == (4321, "enough")


@pytest.mark.parametrize(("code", "seen"), [(4000, b"4000"), (1000, b"1000")])
def test_the_client_closes(served: Box, code: int, seen: bytes) -> None:
    served.sh("rm -f /tmp/closed")
    with Client(served) as client:
        client.next()
        client.message()
        client.send(CloseConnection(code=code))
        assert wait_for(served, "/tmp/closed") == seen


def test_the_client_vanishes(served: Box) -> None:
    served.sh("rm -f /tmp/closed")
    with Client(served) as client:
        client.next()
        client.message()
    wait_for(served, "/tmp/closed")


def test_subprotocols(served: Box) -> None:
    with Client(served, subprotocols=["one", "two"]) as client:
        accepted = client.next()
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "two"


def refusal(box: Box, target: str = "/", port: str = PORT, **more: object) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to an opening that is refused."""
    with Client(box, target, port, **more) as client:
        head = client.next()
        assert isinstance(head, RejectConnection)
        body = b""
        while isinstance(event := client.next(), RejectData):
            body += event.data
            if event.body_finished:
                break
    headers = {name.decode().lower(): value.decode() for name, value in head.headers}
    assert int(headers["content-length"]) == len(body)
    return head.status_code, headers, body


def test_refusals(served: Box) -> None:
    status, headers, body = refusal(served, port="8999")
    message = "The sandbox is running but port is not open"
    assert (status, headers["content-type"]) == (502, "application/json")
    assert json.loads(body) == {"sandboxId": served.id, "message": message, "code": 502, "port": 8999}
    status, headers, body = refusal(served, port="8999", extra_headers=[(b"accept", b"text/html")])
    assert (status, headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert message.encode() in body
    assert refusal(served, port="49983")[0] == 404
    status, _, body = refusal(served, "/nonsense")
    assert (status, json.loads(body)["port"]) == (502, int(PORT))


def test_a_refusal_of_the_server_itself(served: Box) -> None:
    status, headers, body = refusal(served, "/refuse")
    assert (status, headers["x-why"], body) == (403, "asked for", b"not you")


def test_a_sandbox_that_is_gone(wire: Wire) -> None:
    with wire.box() as box:
        pass
    status, _, body = refusal(box)
    assert (status, json.loads(body)["message"]) == (502, "The sandbox was not found")


def test_the_traffic_token(served: Box) -> None:
    with served.wire.box(network={"allowPublicTraffic": False}) as box:
        start(box, WEBSOCKETS, PORT)
        assert refusal(box)[0] == 403
        token = box.answer["trafficAccessToken"].encode()
        with Client(box, extra_headers=[(b"e2b-traffic-access-token", token)]) as client:
            assert isinstance(client.next(), AcceptConnection)
