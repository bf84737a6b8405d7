"""After the last sandbox nothing of it is left, and nothing of an engine that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from grotte.engine.host import Guest, GuestError, HostError, SandboxHost, SandboxSpec, SpawnRequest
from grotte.errors import EngineUnavailableException
from tests.host.support import SECONDS, children, run, shell


def remains(host: SandboxHost) -> dict[str, object]:
    """Count what sandboxes are made of."""
    launcher = host.launcher_pid
    assert launcher is not None
    groups = [entry for home in host.cgroup_homes for entry in os.scandir(home) if entry.is_dir()]
    return {
        "processes": len(children(launcher)),
        "mounts of the engine": len(Path("/proc/self/mounts").read_text().splitlines()),
        "mounts of the launcher": len(Path(f"/proc/{launcher}/mounts").read_text().splitlines()),
        "cgroups": len(groups),
        "descriptors of the engine": len(os.listdir("/proc/self/fd")),
        "descriptors of the launcher": len(os.listdir(f"/proc/{launcher}/fd")),
        "namespaces": len(namespaces({launcher, *children(launcher)})),
        "sandboxes": sorted(path.name for path in (host.data_dir / "host" / "sandboxes").glob("*")),
    }


def namespaces(pids: set[int]) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in ("net", "mnt", "pid", "ipc")}


async def test_thirty_sandboxes_leave_nothing(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data") as host:
        await _use(host, "warm")
        before = remains(host)
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(_use, host, f"n{number}")
        assert remains(host) == before
    assert list((tmp_path / "data" / "host" / "sandboxes").glob("*")) == []
    assert not any(Path(home).exists() for home in host.cgroup_homes)


async def _use(host: SandboxHost, name: str) -> None:
    guest = await host.launch(SandboxSpec(name))
    script = "mkdir -p ~/a/b; echo x > ~/a/b/c; chmod 0 ~/a; sleep 94 >/dev/null 2>&1 &"
    assert (await shell(guest, script)).status.code == 0
    await guest.kill()


async def test_cancelled_launches_leave_nothing(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data") as host:
        await _use(host, "warm")
        before = remains(host)
        for turn in range(15):
            with anyio.move_on_after(turn * 0.004):
                guest = await host.launch(SandboxSpec(f"c{turn}"))
                await guest.kill()
            async with anyio.create_task_group() as group:  # what a cancelled kill() left to its caller
                for guest in host.guests:
                    group.start_soon(guest.kill)
        assert remains(host) == before


async def test_a_sandbox_that_died_is_told_and_removed(host: SandboxHost) -> None:
    guest = await host.launch(SandboxSpec("dies"))
    assert host.launcher_pid is not None
    bubblewrap = [pid for pid in children(host.launcher_pid) if "dies" in _command(pid)]
    for pid in bubblewrap:
        os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(SECONDS):
        await guest.closed.wait()
    with pytest.raises(GuestError):
        await run(guest, "/bin/true")
    await guest.kill()
    assert not (host.data_dir / "host" / "sandboxes" / "dies").exists()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_launch_after_the_launcher_died(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data") as host:
        guest = await host.launch(SandboxSpec("orphan"))
        assert host.launcher_pid is not None
        family = children(host.launcher_pid)
        os.kill(host.launcher_pid, signal.SIGKILL)
        with anyio.fail_after(SECONDS):
            await guest.closed.wait()
            while any(_command(pid) for pid in family):
                await anyio.sleep(0.01)
        with pytest.raises(HostError):
            await host.launch(SandboxSpec("late"))


async def test_one_engine_a_directory(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data"):
        with pytest.raises(EngineUnavailableException, match="another engine"):
            async with SandboxHost(tmp_path / "data"):
                pass


ENGINE = """
import asyncio, sys
from pathlib import Path
from grotte.engine.host import SandboxHost, SandboxSpec, SpawnRequest
async def main():
    async with SandboxHost(Path(sys.argv[1])) as host:
        for name in ("a", "b", "c"):
            guest = await host.launch(SandboxSpec(name))
            await guest.spawn(SpawnRequest("/bin/sleep", ("1000",)))
        print(host.launcher_pid, *host.cgroup_homes, flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


@pytest.mark.parametrize("victims", ["engine", "engine and launcher"])
async def test_killed_engine_leaves_nothing(tmp_path: Path, victims: str) -> None:
    command = [sys.executable, "-c", ENGINE, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        launcher, *homes = engine.stdout.readline().split()
        family = {int(launcher), *children(int(launcher))}
        assert len(family) >= 1 + 3 * 3
        if victims != "engine":
            os.kill(int(launcher), signal.SIGKILL)
        engine.kill()
    with anyio.fail_after(SECONDS):
        while any(_command(pid) for pid in family):
            await anyio.sleep(0.01)
        while victims == "engine" and any(Path(home).exists() for home in homes):
            await anyio.sleep(0.01)
    async with SandboxHost(tmp_path / "data") as host:
        assert not any(Path(home).exists() for home in homes)
        guest = await host.launch(SandboxSpec("a"))
        process = await guest.spawn(SpawnRequest("/bin/true"))
        assert (await process.wait()).code == 0
        os.close(process.stdout)
        os.close(process.stderr)
        await guest.kill()


async def test_hundred_at_once(host: SandboxHost) -> None:
    guests: list[Guest] = []

    async def one(number: int) -> None:
        guest = await host.launch(SandboxSpec(f"h{number}"))
        guests.append(guest)
        assert (await run(guest, "hostname")).out == f"h{number}\n"

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, number)
    async with anyio.create_task_group() as group:
        for guest in guests:
            group.start_soon(guest.kill)
    assert not set(guests) & set(host.guests)
