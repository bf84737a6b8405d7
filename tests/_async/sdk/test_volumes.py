"""Volumes and their files, on the real engine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from grotte import (
    AsyncGrotte,
    AsyncSandbox,
    AsyncVolume,
    SandboxException,
    VolumeException,
    VolumeFileType,
    VolumeNotFoundException,
    VolumePathNotFoundException,
)
from tests.support.engine import Engine

MOUNT = "/mnt/data"
PIECE = bytes(range(256)) * 1024
PIECES = 64


@pytest.fixture
async def volume(engine: Engine) -> AsyncIterator[AsyncVolume]:
    made = await AsyncVolume.create(f"v-{secrets.token_hex(4)}", **engine.options)
    yield made
    await AsyncVolume.destroy(made.volume_id, **engine.options)


async def test_a_volume_is_found_until_it_is_destroyed(engine: Engine, volume: AsyncVolume) -> None:
    assert volume.volume_id in [info.volume_id for info in await AsyncVolume.list(**engine.options)]
    again = await AsyncVolume.connect(volume.volume_id, **engine.options)
    assert (again.name, again.token) == (volume.name, volume.token)
    assert (await AsyncVolume.get_info(volume.volume_id, **engine.options)).name == volume.name
    with pytest.raises(VolumeException):
        await AsyncVolume.create(volume.name, **engine.options)
    assert await AsyncVolume.destroy(volume.volume_id, **engine.options) is True
    assert await AsyncVolume.destroy(volume.volume_id, **engine.options) is False
    with pytest.raises(VolumeNotFoundException):
        await AsyncVolume.connect(volume.volume_id, **engine.options)


async def test_files_without_a_sandbox(volume: AsyncVolume) -> None:
    await volume.make_dir("/a/b", mode=0o750, force=True)
    stat = await volume.write_file("/a/b/c.txt", "text", mode=0o600)
    assert (stat.name, stat.path, stat.type, stat.size) == ("c.txt", "/a/b/c.txt", VolumeFileType.FILE, 4)
    assert await volume.read_file("/a/b/c.txt") == "text"
    assert await volume.read_file("/a/b/c.txt", "bytes") == b"text"
    assert sorted(entry.path for entry in await volume.list("/", depth=3)) == ["/a", "/a/b", "/a/b/c.txt"]
    assert [entry.path for entry in await volume.list("/")] == ["/a"]
    assert (await volume.update_metadata("/a/b/c.txt", mode=0o640)).mode & 0o777 == 0o640
    await volume.remove("/a")
    assert await volume.exists("/a") is False
    for call in (lambda: volume.get_info("/a"), lambda: volume.read_file("/a"), lambda: volume.list("/a")):
        with pytest.raises(VolumePathNotFoundException):
            await call()


async def test_large_files_travel_in_pieces(volume: AsyncVolume) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    await volume.write_file("/large", pieces())
    size = 0
    async with await volume.read_file("/large", "stream") as stream:
        async for piece in stream:
            size += len(piece)
    assert size == PIECES * len(PIECE)


async def test_sandboxes_share_it_and_it_outlives_them(engine: Engine, volume: AsyncVolume) -> None:
    await volume.write_file("/before", "made outside")
    first = await AsyncSandbox.create(volume_mounts={MOUNT: volume}, **engine.options)
    second = await AsyncSandbox.create(volume_mounts={MOUNT: volume.name}, **engine.options)
    async with first, second:
        assert await first.files.read(f"{MOUNT}/before") == "made outside"
        await first.commands.run(f"echo from inside > {MOUNT}/inside")
        assert await second.files.read(f"{MOUNT}/inside") == "from inside\n"
        assert (await first.get_info()).volume_mounts == [{"name": volume.name, "path": MOUNT}]
    assert await volume.read_file("/inside") == "from inside\n"


async def test_an_unknown_volume_is_not_mounted(engine: Engine) -> None:
    with pytest.raises(SandboxException):
        await AsyncSandbox.create(volume_mounts={MOUNT: "no-such-volume"}, **engine.options)


async def test_volumes_of_a_client(engine: Engine) -> None:
    async with AsyncGrotte(**engine.options) as client:
        volume = await client.Volume.create(f"v-{secrets.token_hex(4)}")
        await volume.write_file("/x", "y")
        opened = client.counters.streams_opened
        assert await volume.read_file("/x") == "y"
        assert client.counters.streams_opened == opened + 1
        assert await client.Volume.destroy(volume.volume_id)
