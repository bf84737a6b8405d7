"""Files at full size: a gibibyte in either direction, and ten thousand files, in a memory that does not grow."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grotte import AsyncSandbox
from tests.support.engine import Engine

MIB = 1024 * 1024
SIZE = 1024 * MIB
#: What a transfer may need over what was there before it.
ALLOWED = 64 * MIB
PIECE = os.urandom(MIB)
FILES = 10_000


@pytest.fixture
def room(engine: Engine) -> None:
    free = shutil.disk_usage(engine.data_dir).free
    if free < 4 * SIZE:
        pytest.skip(f"{free // MIB} MiB are free where the engine keeps its files, and this needs {4 * SIZE // MIB}")


class Memory:
    """What this process needs at most, from now on, over what it needs now."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._base = self._now()["VmRSS"]

    def _now(self) -> dict[str, int]:
        text = Path("/proc/self/status").read_text()
        return {name: int(size) * 1024 for name, size in re.findall(r"(VmHWM|VmRSS):\s+(\d+)", text)}

    def grown(self) -> int:
        return self._now()["VmHWM"] - self._base


class Pattern:
    """A gibibyte that is nowhere: a mebibyte of noise, again and again, each time from another place on."""

    def __init__(self) -> None:
        self._number = 0
        self.checksum = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._number * MIB == SIZE:
            raise StopAsyncIteration
        shift = 1009 * self._number % MIB
        self._number += 1
        piece = PIECE[shift:] + PIECE[:shift]
        self.checksum = zlib.crc32(piece, self.checksum)
        return piece


async def test_a_gibibyte_up_and_down(sandbox: AsyncSandbox, room: None) -> None:
    await sandbox.files.write("/tmp/first", b"x" * MIB)  # what is loaded on first use is loaded
    memory = Memory()
    source = Pattern()
    entry = await sandbox.files.write("/tmp/large", source)
    assert entry.size == SIZE
    assert memory.grown() < ALLOWED
    size = checksum = 0
    async with await sandbox.files.read("/tmp/large", "stream") as pieces:
        async for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
            size += len(piece)
    assert (size, checksum) == (SIZE, source.checksum)
    assert memory.grown() < ALLOWED
    await sandbox.files.remove("/tmp/large")


async def test_a_gibibyte_from_a_file_and_to_a_file(sandbox: AsyncSandbox, room: None, tmp_path: Path) -> None:
    local, back = tmp_path / "sparse", tmp_path / "back"
    with local.open("wb") as file:
        file.write(PIECE)
        file.truncate(SIZE - MIB)
        file.seek(SIZE - MIB)
        file.write(PIECE[::-1])
    memory = Memory()
    await sandbox.files.upload(local, "/tmp/large")
    await sandbox.files.download("/tmp/large", back)
    assert memory.grown() < ALLOWED
    assert back.stat().st_size == SIZE
    with back.open("rb") as file:
        assert file.read(MIB) == PIECE
        assert not any(file.read(MIB))
        file.seek(SIZE - MIB)
        assert file.read() == PIECE[::-1]
    back.unlink()
    await sandbox.files.remove("/tmp/large")


async def test_ten_thousand_files(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    for number in range(FILES):
        directory = tmp_path / "many" / f"{number // 100:02}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        (directory / f"{number:04}").write_text(f"content of {number}\n")
    memory = Memory()
    await sandbox.files.upload(tmp_path / "many", "many")
    assert memory.grown() < ALLOWED
    result = await sandbox.commands.run("find . -type f | wc -l; cat */*", cwd="many")
    assert result.stdout == f"{FILES}\n" + "".join(f"content of {number}\n" for number in range(FILES))
    assert await sandbox.files.download("many", tmp_path / "back") == tmp_path / "back"
    assert memory.grown() < ALLOWED
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "back")) == FILES
