"""`sandbox.commands` on the real engine."""

from __future__ import annotations

import pytest

from grotte import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    CommandResult,
    GrotteException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)
from grotte._core import _aio

MIB = 1024 * 1024


async def test_a_result_has_both_outputs_and_the_exit_code(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("echo out; echo err >&2")
    assert result == CommandResult(stderr="err\n", stdout="out\n", exit_code=0, error=None)


async def test_another_exit_code_than_0_raises_what_is_also_the_result(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException, match="exited with code 3") as caught:
        await sandbox.commands.run("echo out; echo err >&2; exit 3")
    failure = caught.value
    assert isinstance(failure, CommandResult)
    assert (failure.stdout, failure.stderr, failure.exit_code, failure.error) == ("out\n", "err\n", 3, "exit status 3")
    assert failure.sandbox_id == sandbox.sandbox_id


async def test_check_false_returns_it_instead(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("exit 3", check=False)
    assert (result.exit_code, result.error) == (3, "exit status 3")


async def test_cwd_envs_and_user(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("pwd; echo $GREETING; id -un", envs={"GREETING": "hé lo"}, cwd="/tmp")
    assert result.stdout == "/tmp\nhé lo\nuser\n"
    assert (await sandbox.commands.run("id -un", user="root")).stdout == "root\n"


async def test_the_former_name_of_an_argument(sandbox: AsyncSandbox) -> None:
    run = sandbox.commands.run
    assert (await run(cmd="echo old")).stdout == "old\n"  # type: ignore[call-overload]  # type checkers see the new one
    with pytest.raises(TypeError, match="former name"):
        await run(command="echo new", cmd="echo old")  # type: ignore[call-overload]


async def test_callbacks_see_all_output_in_order(sandbox: AsyncSandbox) -> None:
    out: list[str] = []
    err: list[str] = []

    async def on_stderr(text: str) -> None:
        err.append(text)

    result = await sandbox.commands.run(
        "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done", on_stdout=out.append, on_stderr=on_stderr
    )
    assert "".join(out) == result.stdout == "1\n2\n3\n"
    assert "".join(err) == result.stderr == "e1\ne2\ne3\n"
    assert len(out) > 1


async def test_a_callback_that_fails_fails_the_call(sandbox: AsyncSandbox) -> None:
    def on_stdout(text: str) -> None:
        raise ZeroDivisionError(text)

    with pytest.raises(ZeroDivisionError):
        await sandbox.commands.run("echo x", on_stdout=on_stdout)
    assert (await sandbox.commands.run("echo fine")).stdout == "fine\n"


async def test_output_of_a_command_in_the_background(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.05; done; echo e >&2", background=True)
    chunks = []
    async for text in handle.stdout:
        chunks.append(text)
    assert "".join(chunks) == "1\n2\n3\n"
    assert handle.exit_code == 0
    assert str(handle.stdout) == handle.stdout == "1\n2\n3\n"
    assert isinstance(handle.stderr, str)
    assert [text.upper() async for text in handle.stderr] == ["E\n"]
    assert (await handle.wait()).stderr == "e\n"
    assert (await handle.wait()).stdout == "1\n2\n3\n"


async def test_pieces_of_both_outputs_interleave(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("echo a; read x; echo b >&2; read x; echo c", background=True, stdin=True)
    pieces = []
    async for piece in handle:
        pieces.append(piece)
        if len(pieces) < 3:
            await handle.send_stdin("\n")  # it goes on when this much has been seen
    assert pieces == [("a\n", None, None), (None, "b\n", None), ("c\n", None, None)]


async def test_several_readers_of_one_handle(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("for i in 1 2 3 4; do echo $i; echo e$i >&2; sleep 0.02; done", background=True)
    found: dict[str, str] = {}

    async def collect(name: str) -> None:
        text = ""
        async for chunk in handle.stdout if name == "out" else handle.stderr:
            text += chunk
        found[name] = text

    async def wait() -> None:
        found["exit"] = str((await handle.wait()).exit_code)

    async with _aio.open_nursery() as nursery:
        nursery.start_soon(collect, "out")
        nursery.start_soon(collect, "err")
        nursery.start_soon(wait)
    assert found == {"out": "1\n2\n3\n4\n", "err": "e1\ne2\ne3\ne4\n", "exit": "0"}


async def test_kill_ends_a_command(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 60", background=True)
    assert handle.pid in [process.pid for process in await sandbox.commands.list()]
    assert await handle.kill()
    result = await handle.wait(check=False)
    assert (result.exit_code, result.error) == (-1, "signal: killed")
    assert not await sandbox.commands.kill(handle.pid)


async def test_list_tells_what_was_started(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 60", background=True, envs={"A": "b"}, cwd="/tmp")
    (found,) = [process for process in await sandbox.commands.list() if process.pid == handle.pid]
    assert (found.cmd, found.args, found.envs, found.cwd) == ("/bin/bash", ["-l", "-c", "sleep 60"], {"A": "b"}, "/tmp")
    await handle.kill()
    await handle.disconnect()


async def test_stdin(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("cat; echo end", background=True, stdin=True)
    await handle.send_stdin("text ")
    await sandbox.commands.send_stdin(handle.pid, b"bytes\n")
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "text bytes\nend\n"


async def test_without_stdin_there_is_nothing_to_read(sandbox: AsyncSandbox) -> None:
    assert (await sandbox.commands.run("cat; echo end", timeout=20)).stdout == "end\n"
    handle = await sandbox.commands.run("sleep 60", background=True)
    with pytest.raises(SandboxException):
        await handle.send_stdin("nobody listens")
    await handle.kill()
    await handle.disconnect()


async def test_connect_attaches_to_a_running_command(sandbox: AsyncSandbox) -> None:
    first = await sandbox.commands.run("read line; echo got $line; exit 4", background=True, stdin=True)
    second = await sandbox.commands.connect(first.pid)
    await first.send_stdin("it\n")
    assert second.pid == first.pid
    assert (await second.wait(check=False)).stdout == "got it\n"
    assert (await first.wait(check=False)).exit_code == 4


async def test_a_command_goes_on_after_disconnect(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 0.3; echo done > /tmp/done; sleep 60", background=True)
    await handle.disconnect()
    with pytest.raises(SandboxException, match="disconnected"):
        await handle.wait()
    again = await sandbox.commands.connect(handle.pid)
    while not await sandbox.files.exists("/tmp/done"):
        await _aio.sleep(0.02)
    assert await again.kill()
    assert (await again.wait(check=False)).exit_code == -1


async def test_disconnect_wakes_who_waits(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("sleep 60", background=True)
    outcome: list[str] = []

    async def wait() -> None:
        try:
            await handle.wait()
        except SandboxException as error:
            outcome.append(str(error))

    async with _aio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await _aio.sleep(0.1)
        await handle.disconnect()
    assert len(outcome) == 1
    assert "disconnected" in outcome[0]
    await handle.kill()


async def test_characters_are_never_split(sandbox: AsyncSandbox) -> None:
    command = r"printf 'a\xe2\x82'; read x; printf '\xac\xf0\x9f'; read x; printf '\x99\x82z'"
    handle = await sandbox.commands.run(command, background=True, stdin=True)
    seen: list[str] = []
    async for text in handle.stdout:
        seen.append(text)
        if len(seen) < 3:
            await handle.send_stdin("\n")  # it goes on when this much has been seen
    assert seen == ["a", "€", "🙂z"]
    assert (await handle.wait()).stdout == "a€🙂z"


async def test_invalid_utf8_is_replaced(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run(r"printf 'ok\xff\xfe\n'; printf 'cut\xe2\x82' >&2")
    assert result.stdout == "ok\ufffd\ufffd\n"
    assert result.stderr == "cut\ufffd"


async def test_much_output(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run(f"head -c {32 * MIB} /dev/zero | tr '\\0' x")
    assert len(result.stdout) == 32 * MIB
    assert set(result.stdout) == {"x"}


async def test_a_command_that_takes_too_long_is_ended(sandbox: AsyncSandbox) -> None:
    with pytest.raises(TimeoutException, match=r"'timeout' of the command is 0\.3 s") as caught:
        await sandbox.commands.run("sleep 45", timeout=0.3)
    assert caught.value.sandbox_id == sandbox.sandbox_id
    assert caught.value.request == "POST /process.Process/Start"
    while any("sleep 45" in process.args for process in await sandbox.commands.list()):
        await _aio.sleep(0.02)


async def test_a_short_request_timeout_does_not_end_a_silent_command(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("sleep 2; echo late", request_timeout=1.5)
    assert result.stdout == "late\n"


async def test_output_of_a_command_that_ran_into_its_timeout(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("echo early; sleep 45", background=True, timeout=1.5)
    with pytest.raises(TimeoutException):
        await handle.wait()
    assert handle.stdout == "early\n"
    assert handle.exit_code is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": ""},
        {"command": "echo \0"},
        {"command": 3},
        {"command": "x" * (10 * MIB)},
        {"command": "echo \ud800"},
        {"command": "true", "timeout": -1},
        {"command": "true", "timeout": float("nan")},
        {"command": "true", "timeout": "1"},
        {"command": "true", "timeout": True},
        {"command": "true", "request_timeout": -0.1},
        {"command": "true", "envs": {"A=B": "c"}},
        {"command": "true", "envs": {"": "c"}},
        {"command": "true", "envs": {"A": "\0"}},
        {"command": "true", "envs": {"A": 1}},
        {"command": "true", "envs": ["A"]},
        {"command": "true", "cwd": "/\0"},
        {"command": "true", "cwd": 3},
        {"command": "true", "user": "a:b"},
        {"command": "true", "user": "a\nb"},
        {"command": "true", "stdin": 3},
        {"command": "true", "stdin": "text", "background": True},
        {"command": "true", "max_output": -1},
        {"command": "true", "max_output": 1.5},
    ],
)
async def test_what_cannot_be_right_is_refused(sandbox: AsyncSandbox, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentException):
        await sandbox.commands.run(**arguments)  # type: ignore[call-overload]  # that is the point


@pytest.mark.parametrize("pid", [0, -1, 2**32, "1", True, None])
async def test_what_is_no_process_id_is_refused(sandbox: AsyncSandbox, pid: int) -> None:
    for call in (sandbox.commands.kill, sandbox.commands.connect, sandbox.commands.close_stdin):
        with pytest.raises(InvalidArgumentException):
            await call(pid)


async def test_a_command_that_the_system_finds_too_long(sandbox: AsyncSandbox) -> None:
    with pytest.raises(GrotteException) as caught:
        await sandbox.commands.run(f": {'x' * MIB}")
    assert not isinstance(caught.value, TimeoutException)
    assert str(caught.value)
    assert (await sandbox.commands.run("echo fine")).stdout == "fine\n"


async def test_a_directory_that_does_not_exist(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="/nowhere"):
        await sandbox.commands.run("true", cwd="/nowhere")


async def test_a_user_who_does_not_exist(sandbox: AsyncSandbox) -> None:
    with pytest.raises(AuthenticationException, match="nobody-here"):
        await sandbox.commands.run("true", user="nobody-here")


async def test_processes_that_do_not_exist(sandbox: AsyncSandbox) -> None:
    with pytest.raises(NotFoundException):
        await sandbox.commands.connect(4_000_000)
    with pytest.raises(NotFoundException):
        await sandbox.commands.send_stdin(4_000_000, "x")
    assert not await sandbox.commands.kill(4_000_000)


async def test_a_command_that_does_not_exist(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("no-such-command")
    assert caught.value.exit_code == 127


async def test_fifty_commands_at_once(sandbox: AsyncSandbox) -> None:
    found: list[str] = []

    async def work(number: int) -> None:
        found.append((await sandbox.commands.run(f"sleep 0.1; echo {number}")).stdout)

    async with _aio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(work, number)
    assert sorted(found, key=int) == [f"{number}\n" for number in range(50)]
