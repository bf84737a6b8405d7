"""Processes in a sandbox: how they start, what they see, how they end."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from grotte.engine.host import (
    ExitStatus,
    Guest,
    GuestError,
    HostError,
    SandboxHost,
    SandboxSpec,
    SpawnedProcess,
    SpawnRequest,
)
from tests.host.support import SECONDS, run, shell


async def test_exit_codes(box: Guest) -> None:
    assert (await run(box, "/bin/true")).status == ExitStatus(0, None)
    assert (await shell(box, "exit 42")).status == ExitStatus(42, None)


async def test_output_is_kept_apart(box: Guest) -> None:
    result = await shell(box, "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


async def test_stdin(box: Guest) -> None:
    assert (await run(box, "cat", stdin=b"hello")).out == "hello"
    assert (await run(box, "cat")).out == ""  # /dev/null


@pytest.mark.parametrize("user", ["user", "root"])
async def test_streams_can_be_opened_by_name(box: Guest, user: str) -> None:
    script = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr"
    result = await run(box, "/bin/sh", "-c", script, user=user, stdin=b"in\n")
    assert (result.out, result.err) == ("in\nout\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_signals(box: Guest, number: signal.Signals) -> None:
    process = await box.spawn(SpawnRequest("/bin/sleep", ("100",)))
    assert await box.signal(process.pid, number)
    with anyio.fail_after(SECONDS):
        assert await process.wait() == ExitStatus(None, number)
    assert not await box.signal(process.pid, number)
    os.close(process.stdout)
    os.close(process.stderr)


async def test_signal_reaches_only_what_was_spawned(box: Guest) -> None:
    assert not await box.signal(1, signal.SIGKILL)
    assert (await run(box, "/bin/true")).status.code == 0


DAEMON = "(setsid sh -c 'sleep 98 & sleep 98' >/dev/null 2>&1 &)"  # nobody's descendant a moment later


async def sleepers(box: Guest, wanted: int) -> None:
    """Wait until so many processes sleep; orphans are reaped by the first process, in its own time."""
    with anyio.fail_after(SECONDS):
        while int((await shell(box, "grep -l sleep /proc/[0-9]*/comm | wc -l")).out) != wanted:
            await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "count"), [("sh -c 'sleep 98 & sleep 98' & sleep 98", 3), (f"{DAEMON}; sleep 98", 3)]
)
async def test_kill_tree_reaches_all_that_came_of_a_command(box: Guest, script: str, count: int) -> None:
    for user in ("user", "root"):
        process = await box.spawn(SpawnRequest("/bin/sh", ("-c", script), user=user))
        await sleepers(box, count)
        await box.kill_tree(process.pid)
        with anyio.fail_after(SECONDS):
            assert (await process.wait()).signal == signal.SIGKILL
        await sleepers(box, 0)
        os.close(process.stdout)
        os.close(process.stderr or -1)


async def test_a_command_that_ended_by_itself_leaves_its_daemons_alone(box: Guest) -> None:
    assert (await shell(box, DAEMON)).status.code == 0
    process = await box.spawn(SpawnRequest("/bin/sleep", ("97",)))
    await sleepers(box, 3)
    await box.kill_tree(process.pid)
    with anyio.fail_after(SECONDS):
        assert (await process.wait()).signal == signal.SIGKILL
    await sleepers(box, 2)
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_environment_is_exactly_what_was_asked(box: Guest) -> None:
    process = await run(box, "/usr/bin/env", HOME="/home/user", PATH="/usr/bin", GREETING="grüße")
    assert sorted(process.out.split()) == ["GREETING=grüße", "HOME=/home/user", "PATH=/usr/bin"]


async def test_identity(box: Guest) -> None:
    assert (await run(box, "id", "-un")).out == "user\n"
    assert (await run(box, "id", "-u", user="root")).out == "0\n"
    with pytest.raises(GuestError, match="invalid username") as refused:
        await box.spawn(SpawnRequest("/bin/true", user="nobody-knows"))
    assert refused.value.code == "unauthenticated"


@pytest.mark.parametrize(
    ("cwd", "shown"), [(None, "/home/user"), ("/tmp", "/tmp"), ("~", "/home/user"), ("", "/home/user")]
)
async def test_cwd(box: Guest, cwd: str | None, shown: str) -> None:
    assert (await run(box, "pwd", cwd=cwd)).out.strip() == shown


@pytest.mark.parametrize(("user", "number", "groups"), [("user", 1000, {1000, 27}), ("root", 0, {0})])
async def test_all_ids_are_those_of_the_user(box: Guest, user: str, number: int, groups: set[int]) -> None:
    """The saved ones, too: they would lead back to root."""
    status = (await run(box, "cat", "/proc/self/status", user=user)).out
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == fields["Gid"].split() == [str(number)] * 4
    assert {int(group) for group in fields["Groups"].split()} == groups
    with anyio.fail_after(SECONDS):
        while True:  # what asks may be faster than the guest that has just started it
            _, real, *others = (await shell(box, "grep ^Uid: /proc/1/status", user="root")).out.split()
            if others == ["0"] * 3 and int(real) not in (0, number):
                break  # the guest is itself again, and its real id is nobody's inside


async def test_a_directory_that_only_root_may_enter(box: Guest) -> None:
    assert (await run(box, "readlink", "/proc/self/cwd", cwd="/root")).out == "/root\n"


@pytest.mark.parametrize("cwd", ["/no/such", "relative", "~bob", "/etc/passwd", "a\0b", "/" + "x" * 300])
async def test_bad_cwd(box: Guest, cwd: str) -> None:
    with pytest.raises(GuestError) as refused:
        await box.spawn(SpawnRequest("/bin/true", cwd=cwd))
    assert refused.value.code == "invalid_argument"


async def test_missing_cwd_text(box: Guest) -> None:
    with pytest.raises(GuestError, match=r"^cwd '/no/such' does not exist$"):
        await box.spawn(SpawnRequest("/bin/true", cwd="/no/such"))


async def test_unknown_command_is_an_exit_code(box: Guest) -> None:
    for command in ("no-such-command", "/no/such/command"):
        result = await run(box, command)
        assert result.status.code == 127
        assert "not found" in result.err or "No such file" in result.err


async def test_not_executable(box: Guest) -> None:
    assert (await run(box, "/etc/passwd")).status.code == 126


async def test_script_without_interpreter_line(box: Guest) -> None:
    await shell(box, "echo 'echo \"ran $1\"' > /tmp/s; chmod +x /tmp/s")
    assert (await run(box, "/tmp/s", "it")).out == "ran it\n"


@pytest.mark.parametrize("size", [200_000, 10 << 20, 20 << 20])
async def test_command_line_too_long(box: Guest, size: int) -> None:
    with pytest.raises(GuestError) as refused:
        await box.spawn(SpawnRequest("/bin/echo", ("x" * size,)))
    assert refused.value.code == "invalid_argument"
    assert (await run(box, "/bin/true")).status.code == 0


async def test_nul_and_broken_text_in_arguments(box: Guest) -> None:
    for text in ("a\0b", "\ud800"):
        with pytest.raises(GuestError) as refused:
            await box.spawn(SpawnRequest("/bin/echo", (text,)))
        assert refused.value.code == "invalid_argument"


async def test_many_at_once(box: Guest) -> None:
    results: list[int | None] = []

    async def one(number: int) -> None:
        results.append((await shell(box, f"exit {number}")).status.code)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, number)
    assert sorted(number for number in results if number is not None) == list(range(100))


async def test_cancelled_spawn_leaves_no_process(box: Guest) -> None:
    before = set(os.listdir("/proc/self/fd"))
    in_time: list[SpawnedProcess] = []  # on a busy machine the answer can be there before anything is cancelled

    async def spawn() -> None:
        in_time.append(await box.spawn(SpawnRequest("/bin/sleep", ("97",))))

    for turn in range(20):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(spawn)
                for _ in range(turn % 4):
                    await anyio.sleep(0)
                scope.cancel()
    for process in in_time:
        await box.kill_tree(process.pid)
        for fd in (process.stdout, process.stderr):
            os.close(fd or -1)
    for _ in range(100):
        if (await shell(box, "grep -l sleep /proc/[0-9]*/comm | wc -l")).out.strip() == "0":
            break
    else:
        pytest.fail("a process of a cancelled call lives")
    assert set(os.listdir("/proc/self/fd")) == before


async def test_end_of_the_sandbox_ends_every_wait(host: SandboxHost) -> None:
    guest = await host.launch(SandboxSpec("short"))
    process = await guest.spawn(SpawnRequest("/bin/sleep", ("100",)))
    async with anyio.create_task_group() as group:
        group.start_soon(guest.kill)
        with anyio.fail_after(SECONDS):
            assert await process.wait() == ExitStatus(None, None)
            await guest.closed.wait()
    with pytest.raises(GuestError) as refused:
        await guest.stat("/", "user")
    assert refused.value.code == "unavailable"
    await guest.kill()
    os.close(process.stdout)
    os.close(process.stderr)


async def test_hostname(host: SandboxHost) -> None:
    guest = await host.launch(SandboxSpec("named", hostname="my-box"))
    assert (await shell(guest, "hostname; cat /etc/hostname")).out == "my-box\nmy-box\n"
    await guest.kill()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "x" * 64, "a b", "-a"])
async def test_bad_ids(host: SandboxHost, name: str) -> None:
    with pytest.raises(HostError):
        await host.launch(SandboxSpec(name))


async def test_same_id_twice(host: SandboxHost, box: Guest) -> None:
    with pytest.raises(HostError, match="exists"):
        await host.launch(SandboxSpec(box.sandbox_id))
    assert (await run(box, "/bin/true")).status.code == 0
