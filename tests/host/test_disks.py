"""Disks of limited size: what happens when one is full, and all that is done with sandboxes that have one."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from grotte.engine.host import GuestError, Limits, SandboxHost, SandboxSpec
from grotte.engine.host.standalone import disks
from tests.host.support import shell
from tests.support.census import left_since, take_census

MIB = 1 << 20
REASON = disks.why_not(os.getuid() == 0)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


def small(name: str, *layers: Path, kept: bool = False) -> SandboxSpec:
    return SandboxSpec(name, layers=layers, limits=Limits(disk_bytes=64 * MIB, own_disk=True), on_kept_files=kept)


def loops(host: SandboxHost) -> list[str]:
    """The disks of an engine that the kernel holds."""
    files = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [name for name in files if str(host.data_dir) in name]


async def test_a_full_disk_is_nobody_elses_affair(host: SandboxHost) -> None:
    # Door: filling the host's disk, by bytes and by files.
    guest, neighbour = await host.launch(small("full")), await host.launch(SandboxSpec("neighbour"))
    filled = await shell(guest, "cat /dev/zero > ~/zeros; stat -c %s ~/zeros")
    assert "No space left" in filled.err
    assert 32 * MIB < int(filled.out) < 64 * MIB
    assert "No space left" in (await shell(guest, "head -c 8M /dev/zero > ~/more; rm ~/more", "root")).err
    slot = await guest.open_write("/home/user/upload", "user")
    with pytest.raises(OSError, match="No space left"):
        os.write(slot.fd, bytes(MIB))
    os.close(slot.fd)
    await guest.abort(slot)
    assert (await shell(neighbour, "echo fine > ~/f && cat ~/f")).out == "fine\n"
    assert (await shell(guest, "rm ~/zeros; echo fine > ~/f && cat ~/f")).out == "fine\n"
    files = await shell(guest, "mkdir d; cd d; i=0; while echo > $i; do i=$((i+1)); done; echo $i")
    assert "No space left" in files.err
    assert 1000 < int(files.out) < 10_000
    with pytest.raises(GuestError, match="no space left"):
        await guest.make_dir("/home/user/e", "user")
    await guest.kill()
    await neighbour.kill()


async def test_files_go_when_the_sandbox_goes(host: SandboxHost) -> None:
    before = take_census(host.data_dir)
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(_use, host, f"d{number}")
    assert left_since(before, host.data_dir) == {}
    assert loops(host) == []


async def _use(host: SandboxHost, name: str) -> None:
    guest = await host.launch(small(name))
    assert (await shell(guest, "echo x > ~/x; sleep 91 >/dev/null 2>&1 &")).status.code == 0
    await guest.kill()


async def test_kept_files_snapshots_and_restarts(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data") as host:
        guest = await host.launch(small("keeps"))
        await shell(
            guest, "echo kept > ~/f; chmod 600 ~/f; ln -s f ~/link; sudo rm /etc/shells; sudo touch /usr/bin/new"
        )
        await host.copy_layer("keeps", "running")
        await shell(guest, "echo later > ~/f")
        await host.put_away("keeps")
        assert loops(host) == []
        await host.copy_layer("keeps", "resting")
        assert not list((host.data_dir / "host" / "sandboxes" / "keeps" / "disk").iterdir())
    keep = ["keeps", "running", "resting"]
    async with SandboxHost(tmp_path / "data", keep) as host:
        for name, text in {"running": "kept\n", "resting": "later\n"}.items():
            copy = await host.launch(small(f"on-{name}", host.layer(name)))
            seen = await shell(copy, "cat ~/link; stat -c '%a %U' ~/f; ls /etc/shells /usr/bin/new 2>/dev/null")
            assert seen.out == f"{text}600 user\n/usr/bin/new\n"
            await copy.kill()
        guest = await host.launch(small("keeps", kept=True))
        assert (await shell(guest, "cat ~/f; cat /dev/zero > ~/z; stat -c %s ~/z")).out.startswith("later\n")
        await host.put_away("keeps")
        await host.discard("keeps")
        assert not host.has_files("keeps")
        assert loops(host) == []
