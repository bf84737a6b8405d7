"""The count of what sandboxes leave: it finds what is there, and nothing of engines beside."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from grotte.engine.host import Guest, SandboxHost, SandboxSpec, SpawnRequest
from tests.engine.test_lifecycle import command_line, wait_until
from tests.host.support import children
from tests.support.census import left_since, take_census


async def sleeper(guest: Guest) -> int:
    """Start something in a sandbox that stays; return its pid inside."""
    process = await guest.spawn(SpawnRequest("/bin/sleep", ("1000",)))
    assert process.stderr is not None
    os.close(process.stdout)
    os.close(process.stderr)
    return process.pid


async def test_a_sandbox_is_counted_and_one_of_another_engine_is_not(host: SandboxHost, tmp_path: Path) -> None:
    before = take_census(host.data_dir)
    async with SandboxHost(tmp_path / "other") as other:
        foreign = await other.launch(SandboxSpec("foreign"))
        await sleeper(foreign)
        assert take_census(host.data_dir).since(before) == {}
        guest = await host.launch(SandboxSpec("counted"))
        await sleeper(guest)
        left = take_census(host.data_dir).since(before)
        assert {"processes", "network_namespaces", "files"} <= left.keys()
        assert bool(left.get("cgroups")) == bool(host.limited)
        assert len(left["processes"]) >= 3  # bubblewrap, the guest, and what it runs
        await guest.kill()
    assert left_since(before, host.data_dir) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can put a process into a sandbox that will outlive it")
async def test_a_process_that_outlived_its_engine_is_found(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    before = take_census(data_dir)
    async with SandboxHost(data_dir) as host:
        guest = await host.launch(SandboxSpec("leaks"))
        await sleeper(guest)
        assert host.launcher_pid is not None
        (inside,) = (pid for pid in children(host.launcher_pid) if b"sleep" in command_line(pid))
        leaked = subprocess.Popen(["nsenter", f"--mount=/proc/{inside}/ns/mnt", "sleep", "1000"])
        while not command_line(leaked.pid).startswith(b"sleep"):  # before that it is nsenter, and nothing for a moment
            assert leaked.poll() is None
    try:

        def alone() -> bool:  # the others take a moment to go
            left = take_census(data_dir).since(before)
            return [name.split()[0] for name in left["processes"]] == [str(leaked.pid)]

        wait_until(alone, "something else is left")
        assert take_census(data_dir).since(before)["network_namespaces"]
    finally:
        leaked.send_signal(signal.SIGKILL)
        leaked.wait()
    assert left_since(before, data_dir) == {}
