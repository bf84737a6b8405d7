"""How the engine wants to be sent large bodies: each frame costs two changes of threads before Python sees it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from grotte._proto.http2.codec import Header
from tests.proto.http2.peer import DATA, inside, new_codec, take
from tests.support.engine import Engine

MIB = 1024 * 1024
UPLOAD: list[Header] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"localhost"),
    (b":path", b"/files"),
]


def test_a_mebibyte_of_an_upload_is_one_frame(engine: Engine) -> None:
    codec = new_codec("native")
    url = urlsplit(engine.url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as sock:
        sock.sendall(codec.wire)
        while inside(codec)._send_window < 8 * MIB:
            codec.receive(sock.recv(4096))
    stream = codec.open_stream(UPLOAD, end_stream=False)
    take(codec)
    assert codec.send_data(stream, memoryview(bytes(8 * MIB)), end_stream=True) == 8 * MIB
    assert [len(payload) for kind, _, _, payload in take(codec) if kind == DATA] == 8 * [MIB]
