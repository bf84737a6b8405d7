"""Sandboxes that take all they can get; the engine goes on serving."""

from __future__ import annotations

import contextlib
import os
import textwrap
from pathlib import Path

import anyio
import pytest

from grotte._proto.messages import ProcessConfig, ProcessSelector, StartRequest
from grotte.engine.faults import RpcFault
from grotte.engine.host import (
    Guest,
    GuestError,
    HostError,
    Limits,
    SandboxHost,
    SandboxSpec,
    SpawnRequest,
    freezer,
    link,
)
from grotte.engine.host import host as host_module
from grotte.engine.host.cgroups import OWN_PIDS
from grotte.engine.host.standalone.sandbox import MAX_TERMINALS
from grotte.engine.processes import table
from tests.host.support import SECONDS, python, run, shell

MIB = 1 << 20


async def test_fork_bomb(host: SandboxHost) -> None:
    # Door: more processes than the machine can hold.
    guest = await host.launch(SandboxSpec("bomb", limits=Limits(pids=64)))
    neighbour = await host.launch(SandboxSpec("neighbour"))
    bombs = []
    for user in ("user", "root"):
        script = "b() { b | b & }; b; sleep 60"
        with contextlib.suppress(GuestError):  # the first one left no room for the second
            request = SpawnRequest("/bin/sh", ("-c", script), {"PATH": "/usr/bin:/bin"}, user=user)
            bombs.append(await guest.spawn(request))
    await anyio.sleep(0.5)
    assert (await run(neighbour, "/bin/true")).status.code == 0
    numbers = [entry.name for entry in await guest.list_dir("/proc", 1, "root") if entry.name.isdigit()]
    assert len(numbers) <= 64 + OWN_PIDS
    with anyio.fail_after(SECONDS):
        await guest.kill()
        await neighbour.kill()
    for bomb in bombs:
        os.close(bomb.stdout)
        os.close(bomb.stderr)


async def test_memory_hog(host: SandboxHost) -> None:
    # Door: more memory than there is.
    guest = await host.launch(SandboxSpec("hog", limits=Limits(memory_bytes=128 * MIB)))
    result = await run(guest, "python3", "-c", "x = bytearray(512 << 20); print(len(x))")
    assert result.out == ""
    assert result.status.signal == 9 or result.status.code == 1
    assert (await run(guest, "/bin/true")).status.code == 0
    await guest.kill()


async def test_shared_memory_is_bounded(host: SandboxHost) -> None:
    # Door: memory by way of files: /dev/shm, /run and the other tmpfs.
    guest = await host.launch(SandboxSpec("shm", limits=Limits(memory_bytes=128 * MIB)))
    result = await shell(guest, "dd if=/dev/zero of=/dev/shm/f bs=1M count=100", user="root")
    assert result.status.code != 0
    assert int((await shell(guest, "stat -c %s /dev/shm/f; rm -f /dev/shm/f", user="root")).out) <= 64 * MIB
    assert (await shell(guest, "dd if=/dev/zero of=/run/f bs=1M count=100", user="root")).status.code != 0
    assert (await run(guest, "/bin/true")).status.code == 0
    await guest.kill()


async def test_many_open_files(host: SandboxHost) -> None:
    # Door: the machine's table of open files.
    guest = await host.launch(SandboxSpec("files"))
    script = """
        import os
        try:
            while True: fd = os.open("/etc/passwd", os.O_RDONLY)
        except OSError as error: print(error.errno)
    """
    assert await python(guest, script) == "24"
    assert (await run(guest, "/bin/true")).status.code == 0
    await guest.kill()


async def test_many_terminals(host: SandboxHost) -> None:
    # Door: all pseudo-terminals that sandboxes may have together.
    guest, neighbour = await host.launch(SandboxSpec("ptys")), await host.launch(SandboxSpec("neighbour"))
    script = """
        import os
        ends = []
        try:
            while True: ends.append(os.openpty())
        except OSError as error: print(len(ends), error.errno == 28, flush=True)
        input()
    """
    request = SpawnRequest("python3", ("-c", textwrap.dedent(script)), {"PATH": "/usr/bin:/bin"}, stdin=True)
    process = await guest.spawn(request)
    await anyio.wait_readable(process.stdout)
    assert os.read(process.stdout, 100) == b"%d True\n" % MAX_TERMINALS
    assert (await run(neighbour, "python3", "-c", "import os; os.openpty()")).status.code == 0
    await guest.kill()
    await neighbour.kill()
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd or -1)


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user's sandboxes share what the kernel gives that user")
async def test_many_watches(host: SandboxHost) -> None:
    # Door: the watches and inotify instances of the engine's user; a sandbox's users are counted apart.
    guest, neighbour = await host.launch(SandboxSpec("watches")), await host.launch(SandboxSpec("neighbour"))
    script = """
        import ctypes, time
        libc = ctypes.CDLL(None)
        print(sum(libc.inotify_init() >= 0 for _ in range(20_000)), flush=True)
        time.sleep(100)
    """
    process = await guest.spawn(SpawnRequest("python3", ("-c", textwrap.dedent(script)), {"PATH": "/usr/bin:/bin"}))
    await anyio.wait_readable(process.stdout)
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    assert int(os.read(process.stdout, 100)) <= most
    (await neighbour.watch("/home/user", "user")).close()
    await guest.kill()
    await neighbour.kill()
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_a_guest_that_was_stopped_cannot_hold_up_the_end(host: SandboxHost) -> None:
    guest = await host.launch(SandboxSpec("stopped"))
    await shell(guest, "for i in 1 2 3; do sleep 95 >/dev/null 2>&1 & done; sleep 0.2; kill -STOP -1")
    with anyio.fail_after(SECONDS):
        await guest.kill()


async def test_output_that_is_held_open(box: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Door: the engine's descriptors, by commands that end and leave their output to one process that collects it.
    monkeypatch.setattr(table, "MAX_RUNNING", 3)
    held = StartRequest(process=ProcessConfig(cmd="/bin/sh", args=["-c", "sleep 93 &"]))
    async with anyio.create_task_group() as tasks:
        processes = table.ProcessTable(box, tasks)
        for _ in range(3):
            await processes.start(held, {"PATH": "/usr/bin:/bin"}, "user", None)
        with pytest.raises(GuestError, match="at most 3 processes") as caught:
            await processes.start(held, {}, "user", None)
        assert caught.value.code == "resource_exhausted"
        await box.kill_all()
        with anyio.fail_after(SECONDS):
            while processes.running():
                await anyio.sleep(0.01)
        processes.lose_all()


async def test_what_has_ended_costs_little(box: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Door: the engine's memory, by commands with megabytes of arguments that end at once, and are kept for a while.
    monkeypatch.setattr(table, "MAX_ENDED", 3)
    async with anyio.create_task_group() as tasks:
        processes = table.ProcessTable(box, tasks)
        pids = []
        for _ in range(5):
            config = ProcessConfig(cmd="/bin/true", args=["x" * 100_000])
            process, _ = await processes.start(StartRequest(process=config), {}, "user", None)
            with anyio.fail_after(SECONDS):
                while process.running:
                    await anyio.sleep(0.001)
            pids.append(process.pid)
        for pid in pids[2:]:
            assert processes.find(ProcessSelector(pid=pid), ended=True).config.args == []
        for pid in pids[:2]:
            with pytest.raises(RpcFault, match="not found"):
                processes.find(ProcessSelector(pid=pid), ended=True)
        processes.lose_all()


STOP_WHAT_COMES = """
import os, signal
print("ready")
while True:
    for pid in range(os.getpid() + 1, os.getpid() + 40):
        try: os.kill(pid, signal.SIGSTOP)
        except OSError: pass
"""


async def test_a_guest_that_is_kept_from_answering(
    box: Guest, host: SandboxHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Door: the engine's memory and descriptors, by questions that wait for ever: a program that is about to start
    # belongs to its user already, and the guest waits until it runs.
    monkeypatch.setattr(link, "MAX_WAITING", 6)
    neighbour = await host.launch(SandboxSpec("neighbour"))
    request = SpawnRequest("python3", ("-uc", STOP_WHAT_COMES), {"PATH": "/usr/bin:/bin"})
    stopper = await box.spawn(request)
    with anyio.fail_after(SECONDS):
        await anyio.wait_readable(stopper.stdout)
    before = len(os.listdir("/proc/self/fd"))
    with anyio.fail_after(SECONDS), pytest.raises(GuestError, match="too much waits"):
        while True:
            with anyio.move_on_after(0.1):  # the first ones may be faster than they are stopped
                process = await box.spawn(SpawnRequest("/bin/true"))
                for fd in (process.stdout, process.stderr):
                    os.close(fd or -1)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # one of them may be on its way still
    monkeypatch.setattr(host_module, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(freezer, "group_of", lambda _: None)  # as on machines that have none
    monkeypatch.setattr(link, "MAX_WAITING", 100)
    with anyio.fail_after(SECONDS), pytest.raises(HostError, match="could not be stopped in time"):
        await host.freeze("box")
    assert (await run(neighbour, "/bin/true")).status.code == 0
    await box.kill()
    await neighbour.kill()
    os.close(stopper.stdout)
    os.close(stopper.stderr or -1)


async def test_questions_that_wait_are_not_held_without_end(box: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_QUEUED", 1 << 20)
    long = "/" + "x" * (1 << 20)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(_stat_quietly, box, long)
    assert (await run(box, "/bin/true")).status.code == 0


async def _stat_quietly(guest: Guest, path: str) -> None:
    with contextlib.suppress(GuestError):
        await guest.stat(path, "user")
