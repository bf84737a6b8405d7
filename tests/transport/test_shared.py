"""The parts of the transport that do no I/O: the retry table, URLs, headers, certificates' names, errors."""

from __future__ import annotations

import copy
import pickle
import ssl
from pathlib import Path
from typing import Any

import pytest

from grotte._proto.http import Headers, Origin, split_url
from grotte._proto.options import TransportOptions, earliest
from grotte._proto.retry import plan_retry
from grotte._proto.tls import TlsPump, covers
from grotte._proto.transport_errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolTimeout,
    ProtocolViolation,
    StreamResetError,
    TransportError,
)
from grotte.errors import GrotteException, InvalidArgumentException
from tests.servers.certificates import make_certificate


def reset(code: int, *, processed: bool) -> StreamResetError:
    return StreamResetError("reset", error_code=code, processed=processed)


@pytest.mark.parametrize(
    ("error", "any_method", "repeatable"),
    [
        (ConnectFailed("no"), True, True),
        (ConnectionLost("GOAWAY, above the last id", processed=False), True, True),
        (ConnectionLost("in the middle", processed=True), False, True),
        (reset(7, processed=False), True, True),
        (reset(8, processed=True), False, True),
        (reset(2, processed=True), False, True),
        (reset(11, processed=True), False, False),
        (reset(11, processed=False), False, False),
        (ProtocolViolation("what?", processed=True), False, False),
        (DeadlineExceeded("late", kind="total", processed=False), False, False),
        (PoolTimeout("full"), False, False),
    ],
)
def test_what_may_be_sent_again(error: TransportError, any_method: bool, repeatable: bool) -> None:
    assert (plan_retry(error, attempt=0, repeatable=False) is not None) is any_method
    assert (plan_retry(error, attempt=0, repeatable=True) is not None) is repeatable


def test_retries_end_and_refusals_are_not_hammered() -> None:
    refused = reset(7, processed=False)
    delays = []
    for attempt in range(30):
        plan = plan_retry(refused, attempt=attempt, repeatable=True)
        delays.append(None if plan is None else plan.delay)
    assert delays[-1] is None
    assert all(delay is None or 0.001 <= delay <= 0.075 for delay in delays)
    assert plan_retry(ConnectFailed("no"), attempt=2, repeatable=True) is None
    assert plan_retry(ConnectionLost("gone", processed=True), attempt=2, repeatable=True) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectFailed("no"),
        reset(7, processed=False),
        DeadlineExceeded("late", kind="idle", processed=True),
        PoolTimeout("full"),
    ],
)
def test_errors_survive_copy_and_pickle(error: TransportError) -> None:
    assert isinstance(error, GrotteException)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize(
    ("url", "origin", "target", "authority"),
    [
        ("http://localhost:3000", Origin("http", "localhost", 3000), "/", "localhost:3000"),
        ("https://A.example/x?y=1#z", Origin("https", "a.example", 443), "/x?y=1", "a.example"),
        ("http://[::1]:80/", Origin("http", "::1", 80), "/", "[::1]"),
        ("https://h:80/", Origin("https", "h", 80), "/", "h:80"),
    ],
)
def test_urls(url: str, origin: Origin, target: str, authority: str) -> None:
    assert split_url(url) == (origin, target)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://x/", "http://", "http://x:y/", "http://[::1/", "http://x:99999/"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidArgumentException):
        split_url(url)


def test_headers() -> None:
    headers = Headers([(b":status", b"200"), (b"X-A", b"1"), (b"x-a", b"2"), (b"x-key", b"secret")])
    assert headers["X-a"] == "1, 2"
    assert headers.get("missing") is None
    assert "x-KEY" in headers
    assert dict(headers) == {"x-a": "1, 2", "x-key": "secret"}
    assert "secret" not in repr(headers)


def test_the_names_of_a_certificate() -> None:
    names = {"*.e2b.dev", "api.example"}
    assert covers(names, "49983-x.e2b.dev")
    assert covers(names, "api.example")
    assert not covers(names, "e2b.dev")
    assert not covers(names, "a.b.e2b.dev")
    assert not covers(names, "b.example")
    assert not covers(set(), "localhost")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_connections": 0}, {"max_connections_total": -1}, {"max_connections": True}, {"reserve": 1.5}),
        *({"connect_timeout": 0}, {"pool_timeout": float("inf")}, {"ping_after": float("nan")}, {"idle_timeout": None}),
        *({"stream_window": 2**31}, {"connection_window": 0}, {"codec": "fast"}, {"write_timeout": "1"}),
    ],
)
def test_options_that_could_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentException, match=next(iter(wrong))):
        TransportOptions(**wrong)


def test_earliest() -> None:
    assert earliest(None, None) is None
    assert earliest(None, 2.0, 1.0) == 1.0


def test_tls_in_pieces(tmp_path: Path) -> None:
    """Records split anywhere, a close, and bytes after it."""
    certificate = make_certificate(tmp_path, "localhost")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = certificate.server_context("h2").wrap_bio(incoming, outgoing, server_side=True)
    pump = TlsPump(certificate.client_context(), "localhost")
    ready = peer_ready = False
    while not ready or not peer_ready:
        ready = ready or pump.handshake()
        incoming.write(bytes(pump.unsent))
        pump.unsent.clear()
        try:
            peer.do_handshake()
            peer_ready = True
        except ssl.SSLWantReadError:
            pass
        for byte in outgoing.read():
            pump.receive(bytes([byte]))
    wire = bytearray(b"x" * 400_000)
    received = b""
    while wire or pump.unsent:
        pump.write(wire)
        incoming.write(bytes(pump.unsent))
        pump.unsent.clear()
        while incoming.pending:
            try:
                received += peer.read(65_536)
            except ssl.SSLWantReadError:
                break
    assert received == b"x" * 400_000
    peer.write(b"answer")
    plain = b""
    for byte in outgoing.read():
        pump.receive(bytes([byte]))
        plain += pump.read()
    assert plain == b"answer"
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()
    pump.receive(outgoing.read())
    assert not pump.read()
    assert pump.ended
    assert pump.covers("localhost")
    assert not pump.covers("elsewhere")
