"""Stopping all that runs in a sandbox: by the freezer where there is one, and by signals where there is none."""

from __future__ import annotations

import os

import anyio
import pytest

from grotte.engine.host import Guest, HostError, SandboxHost, SpawnRequest
from tests.host.support import SECONDS, shell

COUNT = "i=0; while :; do i=$((i+1)); echo $i > ~/count; done"
BREED = "b() { b & b & sleep 0.01; }; while :; do (sleep 0.001 &); done"


async def counted(box: Guest) -> str:
    """What a program has counted to so far; read by the guest, since nothing else may run."""
    opened = await box.open_read("/home/user/count", "user")
    with open(opened.fd, "rb") as file:
        return file.read().decode()


@pytest.mark.parametrize("way", ["the host's", "signals"])
async def test_nothing_runs_until_it_goes_on(box: Guest, host: SandboxHost, way: str) -> None:
    processes = [
        await box.spawn(SpawnRequest("/bin/sh", ("-c", script), {"PATH": "/usr/bin:/bin", "HOME": "/home/user"}))
        for script in (COUNT, BREED)
    ]
    with anyio.fail_after(SECONDS):
        while (await shell(box, "cat ~/count")).out == "":
            pass
    if way == "signals":
        await box.stop_all()
        before = await counted(box)
        await box.stop_all()  # the second time, too
        await anyio.sleep(0.05)
        assert await counted(box) == before
        box.go_on()
    else:
        await host.freeze("box")
        await host.freeze("box")
        host.thaw("box")
        before = await counted(box)
    with anyio.fail_after(SECONDS):
        while await counted(box) in (before, ""):
            await anyio.sleep(0.01)
    for process in processes:
        await box.kill_tree(process.pid)
        os.close(process.stdout)
        os.close(process.stderr or -1)


async def test_what_was_stopped_before_stays_stopped(box: Guest) -> None:
    script = "sleep 93 & echo $!; kill -STOP $!; sleep 93 & wait"
    process = await box.spawn(SpawnRequest("/bin/sh", ("-c", script), {"PATH": "/usr/bin:/bin"}))
    await anyio.wait_readable(process.stdout)
    sleeper = os.read(process.stdout, 100).decode().strip()
    state = f"cut -d' ' -f3 /proc/{sleeper}/stat"
    with anyio.fail_after(SECONDS):
        while (await shell(box, state)).out != "T\n":
            await anyio.sleep(0.01)
    await box.stop_all()
    box.go_on()
    assert (await shell(box, f"{state}; cut -d' ' -f3 /proc/{process.pid}/stat")).out == "T\nS\n"
    await box.kill_tree(process.pid)
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_a_sandbox_that_does_not_run_is_not_stopped(host: SandboxHost) -> None:
    with pytest.raises(HostError, match="does not run"):
        await host.freeze("nowhere")
    host.thaw("nowhere")
