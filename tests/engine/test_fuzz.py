"""Every parser that faces a client or a guest, fed with broken variants of good input for a minute in all.

Each ends in a refusal that was meant, or in success. The seed is printed; ``GROTTE_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import re
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from grotte._proto.connect import EnvelopeError, EnvelopeReader
from grotte._proto.messages import StartRequest, StreamInputRequest
from grotte.engine.control.creation import read_json
from grotte.engine.control.listing import read_listing, read_metadata
from grotte.engine.data.encodings import BINARY, JSON
from grotte.engine.data.multipart import read_parts
from grotte.engine.data.offsets import parse_offsets
from grotte.engine.data.routing import address_in_headers, address_in_host
from grotte.engine.faults import Fault, RpcFault
from grotte.engine.host.frames import FrameDecoder, FrameError, close_all
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import parse_template, plain_sandbox_id
from tests.engine.test_lifecycle import KEY, wait_until
from tests.engine.wire import Box, Wire, pack
from tests.support.engine import Engine, running_engine
from tests.support.mutation import mutate, pieces

#: Of each offline target, and of the engine over sockets; together a minute.
SECONDS = 5.0
SECONDS_OF_SOCKETS = 30.0
#: How long an answer to a broken request is waited for, in seconds, and how many do so at once.
PATIENCE, ASKERS = 0.5, 8
#: What a parser may keep after all of its input has gone, in bytes: caches of the standard library.
MOST_KEPT = 1_000_000

START = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", "true"], "envs": {"A": "b"}}, "stdin": True}).encode()
#: The same in protobuf, and input: a tag in a selector, bytes in data.
BINARY_START = (
    b"\x0a\x21\x0a\x07/bin/sh\x12\x02-c\x12\x04true\x1a\x06\x0a\x01A\x12\x01b\x22\x04/tmp"
    b"\x12\x06\x0a\x04\x08\x50\x10\x18\x20\x01"
)
BINARY_INPUT = b"\x0a\x05\x0a\x03\x12\x01t\x12\x06\x12\x04\x0a\x02hi"
MULTIPART = (
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a/b \xc3\xa4.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nhello\r\n"
    b"--xx\r\ncontent-disposition: form-data; name=\"file\"; filename*=UTF-8''%e2%82%ac\r\n\r\n\r\n--xx--\r\n"
)
ORDER = {
    "templateID": "base",
    "timeout": 60,
    "metadata": {"a": "b"},
    "envVars": {"A": "1"},
    "network": {"allowOut": ["1.1.1.1/32"], "denyOut": ["0.0.0.0/0"], "allowPublicTraffic": False},
    "autoPause": True,
    "autoResume": {"enabled": True},
    "secure": True,
}
QUERIES = [
    b"state=running,paused&limit=10&order=asc&metadata=a%253Db%26c%3Dd&nextToken=MjAyNi0wMS0wMVQwMDowMDowMFpfX2lhYQ",
    b"path=/home/user/a%20b&username=user&signature=v1_abc&signature_expiration=1999999999",
]
FRAMES = [
    b"\0\0\0\x19" + b'{"id":1,"ok":{"a":[1,2]}} ',
    b"\0\0\0\x2d" + b'{"id":2,"error":{"code":"x","message":"y"}}  ',
    b"\0\0\0\x20" + b'{"event":"exit","pid":1,"fds":0}',
]

#: What reads one text of a client.
TEXTS: list[Callable[[str], object]] = [read_metadata, parse_template, parse_offsets, plain_sandbox_id]


def seed() -> int:
    """Another one each time, but in CI, where a run that fails should be one that fails again."""
    chosen = 1 if "CI" in os.environ else random.SystemRandom().randrange(2**32)
    value = int(os.environ.get("GROTTE_FUZZ_SEED", chosen))
    print(f"GROTTE_FUZZ_SEED={value}")
    return value


def envelopes(rng: random.Random) -> None:
    reader = EnvelopeReader()
    with suppress(EnvelopeError, RpcFault):
        for piece in pieces(rng, mutate(rng, [pack(START), pack(START) + pack(b"{}", 2), pack(b"")])):
            for envelope in reader.feed(piece):
                JSON.parse(StartRequest, envelope.payload)
        reader.finish()


def binary(rng: random.Random) -> None:
    refused_or_read(partial(BINARY.parse, StartRequest, mutate(rng, [BINARY_START, BINARY_START * 2])))
    refused_or_read(partial(BINARY.parse, StreamInputRequest, mutate(rng, [BINARY_INPUT])))


def multipart(rng: random.Random) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces(rng, mutate(rng, [MULTIPART])):
            yield piece

    async def read() -> None:
        kind = (
            mutate(rng, [b"multipart/form-data; boundary=xx"])
            if rng.random() < 0.2
            else b"multipart/form-data; boundary=xx"
        )
        with suppress(Fault):
            async for _ in read_parts(kind.decode("latin-1"), chunks()):
                pass

    coroutine = read()
    with suppress(StopIteration):  # nothing in there waits for anything
        coroutine.send(None)


def requests(rng: random.Random) -> None:
    names = [b"host", b"e2b-sandbox-id", b"grotte-sandbox-port", b"x-access-token"]
    values = [b"49983-iabc0123456789abcdefg.example.com", b"iabc0123456789abcdefg", b"49983", b"127.0.0.1:3000"]
    scope: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "raw_path": mutate(rng, [b"/sandboxes/iabc/metrics", b"/files"]),
        "query_string": mutate(rng, QUERIES),
        "headers": [(rng.choice(names), mutate(rng, values)) for _ in range(3)],
    }

    async def nothing(*_: object) -> Any: ...

    request = Request(scope, nothing, nothing)
    refused_or_read(lambda: request.query)
    refused_or_read(lambda: address_in_host(request))
    refused_or_read(lambda: address_in_headers(request))
    refused_or_read(lambda: read_listing(request.query))
    text = mutate(rng, [b"ns/name:tag", b"stdout=1, stderr=2", b"iabc0123456789abcdefg-client"]).decode("latin-1")
    for read in TEXTS:
        refused_or_read(partial(read, text))


def refused_or_read(read: Callable[[], object]) -> None:
    with suppress(Fault, RpcFault):
        read()


def guest_link(rng: random.Random) -> None:
    decoder = FrameDecoder()
    with suppress(FrameError):
        for piece in pieces(rng, mutate(rng, FRAMES)):
            fds = os.pipe() if rng.random() < 0.1 else ()
            for _, taken in decoder.feed(piece, fds):
                close_all(taken)
    decoder.close()


def orders(rng: random.Random) -> None:
    body = mutate(rng, [json.dumps(ORDER).encode()])
    refused_or_read(lambda: read_json(body))


@pytest.mark.parametrize("target", [envelopes, binary, multipart, requests, guest_link, orders])
def test_a_parser_refuses_or_reads_and_keeps_nothing(
    target: Callable[[random.Random], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed())
    monkeypatch.setattr(logging.getLogger("python_multipart.multipart"), "disabled", True)  # it says what it refuses
    for _ in range(200):  # caches fill
        target(rng)
    gc.collect()
    files = set(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for _ in range(50):
                target(rng)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < MOST_KEPT
    assert set(os.listdir("/proc/self/fd")) == files


def raw_requests(box: Box, host: str) -> list[bytes]:
    """Good requests of each kind, as bytes on a connection."""
    to_box = "".join(f"{name}: {value}\r\n" for name, value in box.headers.items())
    to_plane = f"x-api-key: {KEY}\r\n"

    def request(line: str, headers: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        lengths = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n" if body else ""
        return f"{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}{lengths}\r\n".encode() + body

    path = b'{"path":"/home/user","depth":2}'
    key = "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    upgrade = f"connection: upgrade\r\nupgrade: websocket\r\n{key}"
    return [
        request("GET /v2/sandboxes?" + QUERIES[0].decode(), to_plane),
        request("POST /v2/sandboxes", to_plane, json.dumps(ORDER).encode()),
        request(f"PUT /sandboxes/{box.id}/network", to_plane, json.dumps(ORDER["network"]).encode()),
        request(f"POST /sandboxes/{box.id}/timeout", to_plane, b'{"timeout":3600}'),
        request(f"GET /sandboxes/{box.id}/metrics?start=1&end=2", to_plane),
        request("GET /files?path=/etc/hostname", to_box + "range: bytes=0-3\r\naccept-encoding: gzip\r\n"),
        request("POST /files?path=x", to_box, b"\0" * 50, "application/octet-stream"),
        request("POST /files", to_box, MULTIPART, "multipart/form-data; boundary=xx"),
        request("POST /process.Process/Start", to_box, pack(START), "application/connect+json"),
        request("POST /process.Process/StreamInput", to_box, pack(START) * 2, "application/connect+json"),
        request("POST /process.Process/Start", to_box, pack(BINARY_START), "application/connect+proto"),
        request("POST /process.Process/StreamInput", to_box, pack(BINARY_INPUT), "application/grpc-web+proto"),
        request("POST /filesystem.Filesystem/Stat", to_box, b"\x0a\x05/home", "application/proto"),
        request("POST /filesystem.Filesystem/ListDir", to_box, path),
        request("POST /filesystem.Filesystem/Stat", to_box, path),
        request("GET /ws", to_box.replace("49983", "8000") + upgrade),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a",
    ]


def ask(address: tuple[str, int], data: bytes) -> list[int]:
    """Send bytes, wait a little for what comes, and leave; return the statuses of what was answered."""
    answered = b""
    with suppress(OSError), socket.create_connection(address, timeout=5) as sock:
        sock.sendall(data)
        sock.settimeout(PATIENCE)
        while len(answered) < 100_000 and (chunk := sock.recv(65536)):
            answered += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answered)]


def status_of(address: tuple[str, int], data: bytes) -> int:
    """The status with which a good request is answered, however busy the machine is."""
    with socket.create_connection(address, timeout=60) as sock, sock.makefile("rb") as answer:
        sock.sendall(data)
        return int(answer.readline().split()[1])


def seeded(count: int) -> list[random.Random]:
    first = seed()
    return [random.Random(first + number) for number in range(count)]


def ask_much(address: tuple[str, int], rng: random.Random, samples: list[bytes]) -> int:
    """Ask broken things until the time is over; return how many."""
    asked, until = 0, time.monotonic() + SECONDS_OF_SOCKETS
    while time.monotonic() < until:
        data = mutate(rng, samples)
        assert 500 not in ask(address, data), data
        asked += 1
    return asked


def open_files(running: Engine) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def test_broken_requests_leave_the_engine_whole(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data", "--api-key", KEY, "--spares", "0") as target:
        parts = urlsplit(target.url)
        address = (str(parts.hostname), int(parts.port or 0))
        with Wire(target.url, KEY) as wire:
            wire.get("/health")
            before = open_files(target) + 1  # the link to the process that measures sandboxes comes with the first one
            with wire.box(timeout=3600) as box:
                samples = raw_requests(box, parts.netloc)
                for sample in samples[:-1]:
                    assert status_of(address, sample) < 500 or b"/ws" in sample
                with ThreadPoolExecutor(ASKERS) as askers:
                    asked = list(askers.map(lambda rng: ask_much(address, rng, samples), seeded(ASKERS)))
                assert sum(asked) > 100
                assert box.sh("echo alive").stdout == b"alive\n"
            for entry in wire.get("/v2/sandboxes?state=running,paused").json():
                wire.delete(f"/sandboxes/{entry['sandboxID']}")
            wait_until(lambda: open_files(target) <= before, "connections or files were left open")
    assert "Traceback" not in (tmp_path / "data.log").read_text()
