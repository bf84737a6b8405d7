"""Volumes, as root and as an ordinary user: whose files they hold, who shares them, and doors that lead out of them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import anyio
import pytest

from grotte.engine.host import Guest, GuestError, Mount, SandboxHost, SandboxSpec, VolumeEntry
from tests.host.support import children, read_all, shell

VOLUME, OTHER = "a" * 20, "b" * 20


@pytest.fixture
async def volume(host: SandboxHost) -> AsyncIterator[str]:
    await host.volumes.make(VOLUME)
    yield VOLUME
    await host.volumes.drop(VOLUME)


@pytest.fixture
async def box(host: SandboxHost, volume: str) -> AsyncIterator[Guest]:
    guest = await host.launch(SandboxSpec("box", mounts=(Mount(volume, "/mnt/v"),)))
    yield guest
    await guest.kill()


async def write(host: SandboxHost, path: str, data: bytes, uid: int = 1000, mode: int = 0o644) -> VolumeEntry:
    upload = await host.volumes.open_write(VOLUME, path, uid, uid, mode, force=True)
    with open(upload.fd, "wb") as file:
        file.write(data)
    return await host.volumes.commit(upload)


async def read(host: SandboxHost, path: str) -> bytes:
    return read_all((await host.volumes.open_read(VOLUME, path)).fd)


async def test_owners_are_the_same_on_both_sides(host: SandboxHost, box: Guest) -> None:
    made = await write(host, "f", b"from outside", mode=0o600)
    assert (made.uid, made.gid, made.mode) == (1000, 1000, 0o600)
    assert (await shell(box, "cat /mnt/v/f; stat -c ' %U %a' /mnt/v/f")).out == "from outside user 600\n"
    assert (await shell(box, "umask 077; echo mine > /mnt/v/root", user="root")).status.code == 0
    assert (await shell(box, "umask 077; echo mine > /mnt/v/user")).status.code == 0
    for name, uid in (("root", 0), ("user", 1000)):
        assert (await host.volumes.stat(VOLUME, name)).uid == uid
        assert await read(host, name) == b"mine\n"
    assert (await shell(box, "cat /mnt/v/root")).status.code != 0


async def test_files_of_a_volume_can_be_opened_from_a_sandbox(host: SandboxHost, box: Guest) -> None:
    await write(host, "f", b"data")
    assert read_all((await box.open_read("/mnt/v/f", "user")).fd) == b"data"


async def test_a_volume_gives_no_rights(host: SandboxHost, box: Guest) -> None:
    """The doors of devices and setuid programs."""
    await write(host, "su", b"", uid=0, mode=0o4755)
    script = "cp /bin/id /mnt/v/su; chmod 4755 /mnt/v/su; mknod /mnt/v/null c 1 3 && echo made"
    assert "made" not in (await shell(box, script, user="root")).out
    assert "euid" not in (await shell(box, "/mnt/v/su")).out


async def test_no_volume_reaches_into_another(host: SandboxHost, box: Guest) -> None:
    """The door of links and renames between volumes that one process serves."""
    await host.volumes.make(OTHER)
    try:
        upload = await host.volumes.open_write(OTHER, "secret", 0, 0, 0o600, force=False)
        os.close(upload.fd)
        await host.volumes.commit(upload)
        await shell(box, f"ln -s ../{OTHER}/secret /mnt/v/a; ln -s .. /mnt/v/b; ln -s /{OTHER}/secret /mnt/v/c")
        for path in ("a", f"b/{OTHER}/secret", "c", f"../{OTHER}/secret", "b/.uploads"):
            with pytest.raises(GuestError):
                await host.volumes.open_read(VOLUME, path)
        for name in ("..", ".uploads", ".trash", f"{VOLUME}/../{OTHER}", ""):
            with pytest.raises(GuestError):
                await host.volumes.stat(name, "/")
    finally:
        await host.volumes.drop(OTHER)


async def test_hostile_trees_are_removed(host: SandboxHost, box: Guest) -> None:
    script = "cd /mnt/v; i=0; while [ $i -lt 2000 ]; do mkdir d && cd d; i=$((i+1)); done; chmod 0 /mnt/v/d"
    assert (await shell(box, script)).status.code == 0
    await host.volumes.remove(VOLUME, "d")
    assert await host.volumes.list_dir(VOLUME, "", 1) == []


async def test_what_is_dropped_goes(host: SandboxHost, volume: str) -> None:
    await write(host, "f", b"x" * 1000)
    await host.volumes.drop(volume)
    home = host.data_dir / "host" / "volumes"
    with anyio.fail_after(20):
        while any(home.glob(".trash/*")):
            await anyio.sleep(0.01)
    assert not (home / volume).exists()
    with pytest.raises(GuestError):
        await host.volumes.stat(volume, "f")


async def test_the_process_behind_volumes_is_started_again(host: SandboxHost, volume: str) -> None:
    await write(host, "f", b"kept")
    assert host.launcher_pid is not None
    for keeper in children(host.launcher_pid):  # there is no sandbox: one for volumes, perhaps one that measures
        os.kill(keeper, signal.SIGKILL)
    with pytest.raises(GuestError):
        while True:
            await host.volumes.stat(VOLUME, "f")
    assert await read(host, "f") == b"kept"
