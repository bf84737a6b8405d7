"""A guest that lies: whatever it sends, the engine neither breaks nor keeps a descriptor."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grotte.engine.host import Egress, Guest, GuestError, SpawnRequest
from grotte.engine.host.frames import MAX_FRAME, FrameDecoder, FrameError
from grotte.engine.host.guest_network import GuestNetwork
from grotte.engine.host.link import GuestLink
from tests.host.support import SECONDS


def frame(message: object) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


def send(sock: socket.socket, data: bytes, fds: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)


def no_network() -> GuestNetwork:
    async def ask(egress: Egress | None) -> None: ...

    return GuestNetwork(ask, "there is no sandbox")


@pytest.fixture(autouse=True)
def no_descriptor_is_kept() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


async def lie(answer: bytes, fds: list[int] | None = None, op: str = "stat") -> GuestError | None:
    """Let a false guest answer one request; return how it failed."""
    ours, theirs = socket.socketpair()

    async def bury() -> None: ...

    guest = Guest("liar", ours, bury, no_network())
    calls = {
        "stat": lambda: guest.stat("/x", "user"),
        "open_read": lambda: guest.open_read("/x", "user"),
        "open_write": lambda: guest.open_write("/x", "user"),
        "list_dir": lambda: guest.list_dir("/x", 1, "user"),
        "spawn": lambda: guest.spawn(SpawnRequest("/bin/true")),
    }
    failed = None

    async def ask() -> None:
        nonlocal failed
        try:
            await calls[op]()
        except GuestError as error:
            failed = error

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_readable(theirs)
            send(theirs, answer, fds)
            theirs.close()
    guest.hang_up()
    assert guest.closed.is_set()
    return failed


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", frame(b"{"), frame(b"\xff\xfe"), frame([]), frame({"id": "1"}),
        frame({"id": 1, "error": "text"}), frame({"id": 1, "error": ["a", "b", "c"]}), frame({"id": 2, "ok": {}}),
        frame({"id": 1, "ok": {}, "fds": 1}), frame({"id": 1, "ok": {}, "fds": -1}), frame({"id": 1, "ok": []}),
        frame({"id": 1, "ok": {"name": "x"}}), frame(b"[" * 100_000), frame({"id": 1, "ok": {}, "fds": 10**30}),
        frame({"id": 1, "ok": None}), frame({"event": "exit"}) * 100, frame({"id": 10**40}), b"GET / HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
async def test_malformed_answers(answer: bytes) -> None:
    # Door: the engine's own reader of what a guest says: lengths, JSON and fields that are not what it expects.
    failed = await lie(answer or frame({}))
    assert failed is not None
    assert failed.code in ("internal", "unavailable")


@pytest.mark.parametrize("op", ["stat", "open_read", "open_write", "list_dir", "spawn"])
@pytest.mark.parametrize("claimed", [0, 1, 4])
async def test_unasked_descriptors(op: str, claimed: int) -> None:
    # Door: descriptors that nobody asked for, which would fill the engine's table and stay open in it.
    null = os.open("/dev/null", os.O_RDWR)
    try:
        ok = {"path": "/x", "token": 1, "pid": "no"}
        failed = await lie(frame({"id": 1, "ok": ok, "fds": claimed}), [null] * 4, op)
    finally:
        os.close(null)
    assert failed is not None


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device", "proc", "path", "wrong mode"])
@pytest.mark.parametrize("op", ["open_read", "open_write"])
async def test_wrong_descriptors(op: str, kind: str) -> None:
    # Door: a descriptor that is no plain file: the engine would wait on it for ever, or write for the guest where the
    # guest itself may not.
    made: list[int] = []
    match kind:
        case "pipe":
            made += os.pipe()
        case "socket":
            made += [end.detach() for end in socket.socketpair()]
        case "directory":
            made += [os.open("/", os.O_RDONLY)]
        case "device":
            made += [os.open("/dev/zero", os.O_RDWR)]
        case "proc":
            made += [os.open("/proc/self/oom_score_adj", os.O_RDWR)]
        case "path":
            made += [os.open("/etc/passwd", os.O_PATH)]
        case _:
            memory = os.memfd_create("x")
            mode = os.O_WRONLY if op == "open_read" else os.O_RDONLY
            made += [memory, os.open(f"/proc/self/fd/{memory}", mode)]
    answer = frame({"id": 1, "ok": {"path": "/x", "token": 1}, "fds": 1})
    try:
        failed = await lie(answer, [made[-1]], op)
    finally:
        for fd in made:
            os.close(fd)
    assert failed is not None
    assert failed.code == "internal"


async def test_answers_in_pieces_and_many_events() -> None:
    # Door: more events than anybody asked for, of processes that never were, which the engine would keep.
    ours, theirs = socket.socketpair()

    async def bury() -> None: ...

    guest = Guest("slow", ours, bury, no_network())
    data = frame({"event": "exit", "pid": 5, "status": 0}) * 10_000 + frame({"event": "ready"})
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as group:

            async def write() -> None:
                theirs.setblocking(False)
                rest = data
                while rest:
                    await anyio.wait_writable(theirs)
                    rest = rest[theirs.send(rest[:7777]) :]

            group.start_soon(write)
            await guest.ready.wait()
    assert not guest.closed.is_set()
    theirs.close()
    await guest.closed.wait()


async def test_the_same_pid_twice() -> None:
    # Door: one process under two names: the end of the one would be told to whoever waits for the other.
    ours, theirs = socket.socketpair()

    async def bury() -> None: ...

    guest = Guest("twins", ours, bury, no_network())
    ended = []

    async def spawn() -> None:
        process = await guest.spawn(SpawnRequest("/bin/true"))
        ended.append(await process.wait())
        os.close(process.stdout)
        os.close(process.stderr)

    with anyio.fail_after(SECONDS), theirs:
        async with anyio.create_task_group() as group:
            group.start_soon(spawn)
            group.start_soon(spawn)
            await anyio.wait_readable(theirs)
            send(
                theirs,
                frame({"id": 1, "ok": {"pid": 5, "user": "user"}}) + frame({"id": 2, "ok": {"pid": 5, "user": "user"}}),
            )
    assert [status.code for status in ended] == [None, None]
    assert guest.closed.is_set()


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40)), st.booleans())
def test_decoder_survives_any_bytes(chunks: list[bytes], framed: bool) -> None:
    # Door: bytes that end the engine's reader by an error which nobody catches.
    decoder = FrameDecoder()
    try:
        for chunk in chunks:
            decoder.feed(frame(chunk) if framed else chunk)
    except FrameError:
        pass
    decoder.close()


messages = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(0, 2**53),
        "ok": st.none() | st.text(),
        "event": st.text(),
        "pid": st.integers(0, 2**31),
    },
)


@settings(max_examples=200)
@given(st.lists(messages, max_size=8), st.integers(1, 50))
def test_decoder_finds_every_message_however_it_is_cut(sent: list[dict[str, object]], step: int) -> None:
    # Door: a message cut so that its rest is read as another one.
    data = b"".join(frame(message) for message in sent)
    decoder = FrameDecoder()
    found = [m for start in range(0, len(data), step) for m, _ in decoder.feed(data[start : start + step])]
    assert [(m.id, m.event, m.pid) for m in found] == [(s.get("id"), s.get("event"), s.get("pid", 0)) for s in sent]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6))
def test_decoder_returns_or_closes_every_descriptor(counts: list[tuple[int, int]]) -> None:
    # Door: more or fewer descriptors than a message says, so that they stay or go to the message after it.
    before = set(os.listdir("/proc/self/fd"))
    decoder = FrameDecoder()
    try:
        for claimed, sent in counts:
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(sent)]
            for _, taken in decoder.feed(frame({"fds": claimed}), fds):
                assert len(taken) == claimed
                for fd in taken:
                    os.close(fd)
    except FrameError:
        pass
    decoder.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_frame_that_is_too_long_is_refused_at_once() -> None:
    # Door: the engine's memory, by a length that it would wait for.
    with pytest.raises(FrameError):
        FrameDecoder().feed(struct.pack(">I", MAX_FRAME + 1))


async def test_an_answer_that_comes_as_its_caller_is_cancelled() -> None:
    """It is dropped like one that comes later: whoever asked cannot, since it never saw it."""
    ours, theirs = socket.socketpair()
    null = os.open("/dev/null", os.O_RDWR)
    abandoned: list[bytes] = []
    link = GuestLink(ours, lambda _: None, lambda _: None)
    request = link.request("spawn", {}, (), lambda answer: abandoned.append(bytes(answer)))
    task = asyncio.ensure_future(request)
    await asyncio.sleep(0)
    send(theirs, frame({"id": 1, "ok": {"pid": 7}, "fds": 1}), [null])
    link._readable()  # the event loop would do so, and then go on with the caller
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert abandoned == [b'{"pid": 7}']
    link.close()
    theirs.close()
    os.close(null)
