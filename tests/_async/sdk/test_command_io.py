"""What goes into a command as data, and how much of what comes out is kept."""

from __future__ import annotations

import pytest

from grotte import AsyncSandbox, CommandExitException, SandboxException, TimeoutException
from grotte._core import _aio
from tests.support.stub_service import StubService, as_json

MIB = 1024 * 1024


@pytest.mark.parametrize("data", ["text ä\n", b"bytes \xff\n", "", b""])
async def test_stdin_is_written_and_closed(sandbox: AsyncSandbox, data: str | bytes) -> None:
    result = await sandbox.commands.run("od -An -tx1 -v | tr -d ' \\n'; echo; echo end", stdin=data)
    assert result.stdout == (data.encode() if isinstance(data, str) else data).hex() + "\nend\n"


async def test_more_than_any_buffer_goes_through(sandbox: AsyncSandbox) -> None:
    data = bytes(range(256)).hex().encode() * (4 * MIB // 512)
    result = await sandbox.commands.run("cat", stdin=data)
    assert result.stdout == data.decode()


@pytest.mark.parametrize("command", ["true", "exec 0<&-; echo done", "head -c 5"])
async def test_a_command_need_not_read_it(sandbox: AsyncSandbox, command: str) -> None:
    result = await sandbox.commands.run(command, stdin=b"x" * MIB)
    assert result.exit_code == 0


async def test_how_a_command_with_stdin_ends_counts(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("cat; exit 4", stdin="data")
    assert (caught.value.exit_code, caught.value.stdout) == (4, "data")


async def test_a_command_that_never_reads_runs_into_its_timeout(sandbox: AsyncSandbox) -> None:
    with pytest.raises(TimeoutException):
        await sandbox.commands.run("sleep 44", stdin=b"x" * MIB, timeout=0.5)
    while any("sleep 44" in process.args for process in await sandbox.commands.list()):
        await _aio.sleep(0.02)


async def test_a_callback_that_fails_ends_the_writing(sandbox: AsyncSandbox) -> None:
    def on_stdout(text: str) -> None:
        raise ZeroDivisionError(text)

    with pytest.raises(ZeroDivisionError):
        await sandbox.commands.run("echo x; sleep 43", stdin=b"x" * MIB, on_stdout=on_stdout)
    while any("sleep 43" in str(process.args) for process in await sandbox.commands.list()):
        await _aio.sleep(0.02)


async def test_an_agent_that_cannot_close_stdin(stub: StubService) -> None:
    created = {"templateID": "base", "sandboxID": "i1", "clientID": "c", "envdVersion": "0.5.1"}
    stub.answers["POST /sandboxes/i1/connect"] = as_json(created)
    sandbox = await AsyncSandbox.connect("i1", api_url=stub.url, sandbox_url=stub.url, api_key="k")
    with pytest.raises(SandboxException, match="too old"):
        await sandbox.commands.run("cat", stdin="x")
    assert not stub.calls("POST /process.Process/Start")


async def test_the_end_of_much_output(sandbox: AsyncSandbox) -> None:
    seen: list[int] = []

    def on_stdout(text: str) -> None:
        seen.append(len(text))

    command = f"head -c {8 * MIB} /dev/zero | tr '\\0' x; echo end; echo short >&2"
    result = await sandbox.commands.run(command, max_output=1000, on_stdout=on_stdout)
    assert result.stdout == "x" * 996 + "end\n"
    assert result.stdout_dropped == 8 * MIB - 996
    assert (result.stderr, result.stderr_dropped) == ("short\n", 0)
    assert sum(seen) == 8 * MIB + 4


async def test_an_exception_says_what_was_dropped_too(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("echo 123456789; exit 3", max_output=4)
    assert (caught.value.stdout, caught.value.stdout_dropped) == ("789\n", 6)


async def test_an_iteration_that_keeps_up_sees_all(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("seq 1 20000", background=True, max_output=100)
    whole = ""
    async for text in handle.stdout:
        whole += text
    assert whole.split() == [str(number) for number in range(1, 20001)]
    assert len(handle.stdout) == 100
    assert len(handle._output.pieces) < 20
    result = await handle.wait()
    assert result.stdout == whole[-100:]
    assert result.stdout_dropped == len(whole) - 100


async def test_output_of_an_attached_command_can_be_bounded(sandbox: AsyncSandbox) -> None:
    first = await sandbox.commands.run("read line; seq 1 1000", background=True, stdin=True)
    second = await sandbox.commands.connect(first.pid, max_output=5)
    await first.send_stdin("\n")
    assert (await second.wait()).stdout == "1000\n"
    assert len((await first.wait()).stdout) > 1000
