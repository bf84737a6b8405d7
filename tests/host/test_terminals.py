"""Processes on terminals: the session they get, what passes between them and the engine, and how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from grotte.engine.host import ExitStatus, Guest, GuestError, SpawnedProcess, SpawnRequest, TerminalSize
from tests.host.support import PATH, SECONDS, shell

SIZE = TerminalSize(80, 24)
ENVS = {"PATH": PATH, "HOME": "/home/user", "TERM": "dumb", "PS1": "> "}


@asynccontextmanager
async def terminal(box: Guest, *command: str, user: str = "user") -> AsyncIterator[SpawnedProcess]:
    request = SpawnRequest(command[0], command[1:], ENVS, user=user, terminal=SIZE)
    process = await box.spawn(request)
    assert process.stdin is not None
    assert process.stderr is None
    try:
        with anyio.fail_after(SECONDS):
            yield process
    finally:
        await box.kill_tree(process.pid)
        os.close(process.stdin)
        os.close(process.stdout)


async def read(process: SpawnedProcess) -> bytes:
    await anyio.wait_readable(process.stdout)
    return os.read(process.stdout, 65536)


async def read_until(process: SpawnedProcess, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        piece = await read(process)
        assert piece, seen
        seen += piece
    return seen


async def read_all(process: SpawnedProcess) -> bytes:
    pieces = []
    while piece := await read(process):
        pieces.append(piece)
    return b"".join(pieces)


def write(process: SpawnedProcess, data: bytes) -> None:
    assert process.stdin is not None
    assert os.write(process.stdin, data) == len(data)


async def test_a_session_with_a_controlling_terminal_of_the_user(box: Guest) -> None:
    script = "tty; stat -c '%U %a' $(tty); ps -o sid= -p $$ | tr -d ' '; echo $$; echo here > /dev/tty"
    async with terminal(box, "/bin/sh", "-c", script) as process:
        name, owner, session, pid, tty = (await read_all(process)).decode().split("\r\n")[:5]
        assert await process.wait() == ExitStatus(0, None)
    assert name.startswith("/dev/pts/")
    assert (owner, session, tty) == ("user 600", pid, "here")


async def test_size_and_resize(box: Guest) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    async with terminal(box, "/bin/bash", "-c", script) as process:
        assert await read_until(process, b"ready\r\n") == b"24 80\r\nready\r\n"
        assert await box.resize(process.pid, TerminalSize(132, 50))
        assert b"50 132" in await read_all(process)
        await process.wait()
        assert not await box.resize(process.pid, SIZE)


async def test_what_has_no_terminal_is_not_resized(box: Guest) -> None:
    process = await box.spawn(SpawnRequest("/bin/sleep", ("100",), ENVS))
    with pytest.raises(GuestError, match="no terminal") as refused:
        await box.resize(process.pid, SIZE)
    assert refused.value.code == "internal"
    await box.kill_tree(process.pid)
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_an_interrupt_reaches_the_foreground_only(box: Guest) -> None:
    async with terminal(box, "/bin/bash", "--norc", "-i") as process:
        await read_until(process, b"> ")
        write(process, b"sleep 100\n")
        await read_until(process, b"sleep 100\r\n")
        while (await shell(box, "pgrep -x sleep")).status.code != 0:
            await anyio.sleep(0.02)
        write(process, b"\x03")
        await read_until(process, b"> ")
        write(process, b"echo $?\n")
        await read_until(process, b"130")
        write(process, b"exit 7\n")
        await read_all(process)
        assert await process.wait() == ExitStatus(7, None)


async def test_the_last_words_arrive(box: Guest) -> None:
    for number in range(30):
        async with terminal(box, "/bin/sh", "-c", f"head -c 3000 /dev/zero | tr '\\0' x; echo last{number}") as process:
            assert await read_all(process) == b"x" * 3000 + b"last%d\r\n" % number


async def test_much_output_waits_for_its_reader_and_is_whole(box: Guest) -> None:
    size = 10 << 20
    async with terminal(box, "/bin/sh", "-c", f"stty raw; yes | head -c {size}; echo done > /tmp/done") as process:
        await anyio.sleep(0.3)
        assert (await shell(box, "cat /tmp/done")).status.code != 0  # nobody reads: it waits
        received = await read_all(process)
        assert received == b"y\n" * (size // 2)


async def test_much_input_waits_for_its_reader_and_is_whole(box: Guest) -> None:
    size = 1 << 20
    script = f"stty raw -echo; echo ready; sleep 0.3; head -c {size} | sha256sum"
    async with terminal(box, "/bin/sh", "-c", script) as process:
        await read_until(process, b"ready")
        assert process.stdin is not None
        rest = bytes(range(256)) * (size // 256)
        expected = await shell(box, f"python3 -c \"import hashlib;print(hashlib.sha256(bytes(range(256))*{size // 256})"
                               ".hexdigest())\"")  # fmt: skip
        blocked = False
        while rest:
            try:
                rest = rest[os.write(process.stdin, rest) :]
            except BlockingIOError:
                blocked = True
                await anyio.wait_writable(process.stdin)
        assert blocked
        assert expected.out.split()[0].encode() in await read_all(process)


async def test_the_end_of_the_leader_is_the_end_of_the_terminal(box: Guest) -> None:
    # a child that ignores the hang-up holds the other side open
    async with terminal(box, "/bin/sh", "-c", "trap '' HUP; sleep 96 & echo $!") as process:
        child = (await read_all(process)).decode().strip()
        assert await process.wait() == ExitStatus(0, None)
        assert (await shell(box, f"kill {child}")).status.code == 0


async def test_a_program_that_closes_its_terminal_runs_on(box: Guest) -> None:
    async with terminal(box, "/bin/sh", "-c", "exec sleep 95 <&- >&- 2>&-") as process:
        assert await read_all(process) == b""
        write(process, b"nobody reads this")
        assert await box.signal(process.pid, signal.SIGTERM)
        assert await process.wait() == ExitStatus(None, signal.SIGTERM)


async def test_killed_in_the_middle_of_output(box: Guest) -> None:
    async with terminal(box, "/usr/bin/yes") as process:
        await read(process)
        assert await box.signal(process.pid, signal.SIGKILL)
        await read_all(process)
        assert await process.wait() == ExitStatus(None, signal.SIGKILL)


async def test_what_cannot_be_started(box: Guest) -> None:
    async with terminal(box, "/no/such/command") as process:
        assert b"not found" in await read_all(process)
        assert (await process.wait()).code == 127
    with pytest.raises(GuestError, match="does not exist"):
        await box.spawn(SpawnRequest("/bin/sh", (), ENVS, cwd="/no/such", terminal=SIZE))
    await shell(box, "echo 'tty' > /tmp/script; chmod +x /tmp/script")  # fails once, then goes through the shell
    async with terminal(box, "/tmp/script") as process:
        assert (await read_all(process)).startswith(b"/dev/pts/")


async def test_flags_that_programs_change_are_not_those_of_the_engine(box: Guest) -> None:
    script = "import os, time; [os.set_blocking(fd, True) for fd in (0, 1, os.open('/dev/tty', 2))]; print('set')"
    async with terminal(box, "/bin/sh", "-c", f'python3 -c "{script}" || echo set; read line; echo $line') as process:
        await read_until(process, b"set\r\n")
        assert process.stdin is not None
        assert not os.get_blocking(process.stdin)
        assert not os.get_blocking(process.stdout)
        write(process, b"on\n")
        assert b"on\r\n" in await read_all(process)


async def test_a_terminal_opened_by_name_does_not_outlive_its_leader(box: Guest) -> None:
    # the shell of another process writes to the terminal for ever
    async with terminal(box, "/bin/sh", "-c", "stty raw; tty > /tmp/name; sleep 0.5") as process:
        writer = await box.spawn(
            SpawnRequest(
                "/bin/sh",
                ("-c", "until test -s /tmp/name; do :; done; t=$(cat /tmp/name); while :; do echo x > $t; done"),
                ENVS,
            )
        )
        assert await process.wait() == ExitStatus(0, None)
        await read_all(process)
        await box.kill_tree(writer.pid)
        os.close(writer.stdout)
        os.close(writer.stderr or -1)


async def test_terminals_leave_no_descriptors_behind(box: Guest) -> None:
    before = set(os.listdir("/proc/self/fd"))
    inside = "ls /dev/pts | wc -l"
    for _ in range(20):
        async with terminal(box, "/bin/true") as process:
            await read_all(process)
            await process.wait()
    assert set(os.listdir("/proc/self/fd")) == before
    assert (await shell(box, inside)).out.strip() == "1"  # ptmx


async def test_the_size_of_many_terminals_at_once(box: Guest) -> None:
    async def one(number: int) -> None:
        async with terminal(box, "/bin/sh", "-c", f"seq {number} 1000") as process:
            assert await read_all(process) == b"".join(b"%d\r\n" % n for n in range(number, 1001))

    async with anyio.create_task_group() as group:
        for number in range(1, 41):
            group.start_soon(one, number)
