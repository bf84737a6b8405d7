"""`sandbox.pty` on the real engine."""

from __future__ import annotations

import pytest

from grotte import (
    AsyncCommandHandle,
    AsyncPtyHandle,
    AsyncSandbox,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    SandboxException,
    SandboxNotRunningException,
    TimeoutException,
)
from grotte._core import _aio

QUIET = {"TERM": "dumb"}


class AsyncScreen:
    """What a terminal shows, read mark by mark."""

    def __init__(self, pty: AsyncPtyHandle) -> None:
        self.pty = pty
        self.seen = b""

    async def until(self, text: bytes) -> bytes:
        """All up to and including a text."""
        while text not in self.seen:
            piece = await self.pty.read(timeout=20)
            assert piece, self.seen
            self.seen += piece
        found, mark, self.seen = self.seen.partition(text)
        return found + mark


async def read_all(pty: AsyncPtyHandle) -> bytes:
    pieces = []
    while piece := await pty.read(timeout=20):
        pieces.append(piece)
    return b"".join(pieces)


async def test_the_example_of_the_product_page(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(rows=24, cols=80)
    await pty.send_stdin(b"python3\n")
    output = await pty.read()
    assert isinstance(output, bytes)
    assert output
    assert await pty.kill()


async def test_a_python_prompt(sandbox: AsyncSandbox) -> None:
    async def answer(question: bytes) -> bytes:
        await pty.send_stdin(question + b"\n")
        await screen.until(question + b"\r\n")
        return await screen.until(b">>> ")

    if (await sandbox.commands.run("command -v python3", check=False)).exit_code != 0:
        pytest.skip("the sandbox has no python3")
    pty = await sandbox.pty.create(rows=24, cols=80, envs={"PYTHON_BASIC_REPL": "1", **QUIET})
    screen = AsyncScreen(pty)
    await pty.send_stdin("python3 -q\n")
    await screen.until(b">>> ")
    assert b"42" in await answer(b"6 * 7")
    assert b"True" in await answer(b"import sys; sys.stdin.isatty()")
    assert "é".encode() in await answer(b"print(chr(233))")
    await pty.send_stdin(b"import time; print(1 + 1); time.sleep(100)\n")
    await screen.until(b"\n2\r\n")
    await pty.send_stdin(b"\x03")
    assert b"KeyboardInterrupt" in await screen.until(b">>> ")
    await pty.send_stdin(b"\x04")
    await pty.send_stdin(b"exit 5\n")
    await read_all(pty)
    with pytest.raises(CommandExitException) as caught:
        await pty.wait()
    assert caught.value.exit_code == 5
    assert pty.exit_code == 5


async def test_size_and_resize(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(PtySize(rows=30, cols=100), envs=QUIET)
    screen = AsyncScreen(pty)
    await pty.send_stdin(b"stty size\n")
    await screen.until(b"\n30 100\r\n")
    await pty.resize(rows=50, cols=132)
    await pty.send_stdin(b"stty size\n")
    await screen.until(b"\n50 132\r\n")
    await sandbox.pty.resize(pty.pid, PtySize(rows=10, cols=20))
    await sandbox.pty.send_stdin(pty.pid, b"stty size\n")
    await screen.until(b"\n10 20\r\n")
    assert await sandbox.pty.kill(pty.pid)
    await read_all(pty)
    assert not await sandbox.pty.kill(pty.pid)


async def test_the_environment_the_user_and_the_directory(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(user="root", cwd="/tmp", envs={"GREETING": "hé"})
    await pty.send_stdin(b"stty -echo; echo $TERM $LANG $GREETING $(id -un) $PWD\n")
    await AsyncScreen(pty).until("xterm-256color C.UTF-8 hé root /tmp".encode())
    assert await pty.kill()
    assert not await pty.kill()


async def test_a_read_that_finds_nothing_in_time_leaves_the_terminal_as_it_was(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(envs=QUIET)
    await pty.send_stdin(b"stty -echo; echo ready; read line; echo got $line; exit\n")
    await AsyncScreen(pty).until(b"\nready\r\n")
    for _ in range(3):
        with pytest.raises(TimeoutException, match="showed nothing"):
            await pty.read(timeout=0.05)
    await pty.send_stdin(b"it\n")
    assert b"got it\r\n" in await read_all(pty)
    assert await pty.read() == b""
    assert await pty.read(timeout=0.05) == b""


async def test_iteration_and_the_callback_see_everything_once(sandbox: AsyncSandbox) -> None:
    heard: list[bytes] = []
    pty = await sandbox.pty.create(PtySize(24, 80), heard.append, envs=QUIET)
    assert isinstance(pty, AsyncCommandHandle)
    await pty.send_stdin(b"seq 1 1000; exit\n")
    seen = []
    async for stdout, stderr, data in pty:
        assert stdout is None
        assert stderr is None
        seen.append(data)
    assert b"".join(heard) == b"".join(data for data in seen if data is not None)
    assert b"\r\n999\r\n1000\r\n" in b"".join(heard)
    assert (await pty.wait()).exit_code == 0


async def test_waiting_calls_back(sandbox: AsyncSandbox) -> None:
    heard: list[bytes] = []

    async def on_data(data: bytes) -> None:
        heard.append(data)

    pty = await sandbox.pty.create(on_data=on_data, envs=QUIET)
    await pty.send_stdin(b"echo o''ne; exit\n")
    result = await pty.wait()
    assert b"one\r\n" in b"".join(heard)
    assert (result.exit_code, result.stdout) == (0, "")


async def test_a_callback_that_fails_loses_nothing(sandbox: AsyncSandbox) -> None:
    def on_data(data: bytes) -> None:
        raise ZeroDivisionError(data)

    pty = await sandbox.pty.create(on_data=on_data, envs=QUIET)
    await pty.send_stdin(b"echo o''ne; exit\n")
    seen = b""
    while b"one" not in seen:
        try:
            seen += await pty.read()
        except ZeroDivisionError:
            continue
    await pty.disconnect()


async def test_ten_mebibytes_wait_for_their_reader_and_all_arrive(sandbox: AsyncSandbox) -> None:
    size = 10 * 1024 * 1024
    pty = await sandbox.pty.create(envs=QUIET)
    await pty.send_stdin(f"stty raw -echo; echo '<'; yes | head -c {size}; echo x > /tmp/done; exit\n".encode())
    screen = AsyncScreen(pty)
    await screen.until(b"\n<\n")
    await _aio.sleep(0.5)
    assert not await sandbox.files.exists("/tmp/done")
    output = screen.seen + await read_all(pty)
    assert output.startswith(b"y\n" * (size // 2))
    assert await sandbox.files.exists("/tmp/done")


async def test_disconnect_and_connect(sandbox: AsyncSandbox) -> None:
    first = await sandbox.pty.create(envs=QUIET)
    await first.send_stdin(b"stty -echo; name=kept; echo ready\n")
    await AsyncScreen(first).until(b"\nready\r\n")
    await first.disconnect()
    with pytest.raises(SandboxException, match="disconnected"):
        await first.wait()
    second = await sandbox.pty.connect(first.pid)
    third = await sandbox.pty.connect(first.pid, timeout=30)
    assert second.pid == first.pid
    await second.send_stdin(b"echo $name; exit\n")
    assert b"kept\r\n" in await read_all(second)
    assert b"kept\r\n" in await read_all(third)


@pytest.mark.parametrize("wrong", [0, -1, 65536, 10**9, 1.5, "80", True])
async def test_sizes_that_cannot_be(sandbox: AsyncSandbox, wrong: int) -> None:
    for size in ({"rows": wrong, "cols": 80}, {"rows": 24, "cols": wrong}, {"size": PtySize(wrong, 80)}):
        with pytest.raises(InvalidArgumentException):
            await sandbox.pty.create(**size)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentException):
            await sandbox.pty.resize(1, **size)  # type: ignore[arg-type]


async def test_other_mistakes(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="either"):
        await sandbox.pty.create(PtySize(24, 80), rows=24)
    with pytest.raises(InvalidArgumentException, match="rows and cols"):
        await sandbox.pty.resize(1, rows=24)
    with pytest.raises(InvalidArgumentException, match="does not exist"):
        await sandbox.pty.create(cwd="/no/such")
    with pytest.raises(InvalidArgumentException, match="on_data"):
        await sandbox.pty.create(PtySize(24, 80), "root")  # type: ignore[arg-type]
    with pytest.raises(NotFoundException):
        await sandbox.pty.resize(99_999_999, PtySize(24, 80))
    with pytest.raises(NotFoundException):
        await sandbox.pty.send_stdin(99_999_999, b"x")
    command = await sandbox.commands.run("sleep 20", background=True, stdin=True)
    with pytest.raises(SandboxException, match="no terminal"):
        await sandbox.pty.send_stdin(command.pid, b"x")
    with pytest.raises(SandboxException, match="no terminal"):
        await sandbox.pty.resize(command.pid, rows=1, cols=1)
    await command.kill()
    pty = await sandbox.pty.create()
    with pytest.raises(SandboxException, match=r"Ctrl\+D"):
        await pty.close_stdin()
    await pty.kill()


async def test_the_time_of_a_terminal(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create(timeout=1.5)
    with pytest.raises(TimeoutException, match="'timeout' of the terminal"):
        await read_all(pty)
    while await pty.kill():  # the news and the signal were on their way at the same time
        await _aio.sleep(0.02)


async def test_the_end_of_the_sandbox(sandbox: AsyncSandbox) -> None:
    pty = await sandbox.pty.create()
    await sandbox.kill()
    with pytest.raises(SandboxNotRunningException):
        await read_all(pty)
