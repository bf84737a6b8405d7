"""Sandboxes that take all of the disk that they can get, where no file system of their own stops them."""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from grotte.engine.faults import ControlFault
from grotte.engine.host import Guest, GuestError, Limits, Mount, SandboxHost, SandboxSpec
from grotte.engine.host.gauge import DiskUse
from grotte.engine.host.standalone import gauge
from grotte.engine.lifecycle.diskguard import DiskGuard
from grotte.engine.lifecycle.store import Store
from tests.host.support import SECONDS, python, run, shell
from tests.host.test_doors import background
from tests.host.test_volumes import VOLUME
from tests.support.small_disk import small_disk

MIB = 1 << 20
LIMIT = Limits(disk_bytes=24 * MIB)


@dataclass
class Guarded:
    """A host whose sandboxes are watched."""

    host: SandboxHost
    guard: DiskGuard
    told: list[tuple[str, str]] = field(default_factory=list)


@asynccontextmanager
async def guarded(host: SandboxHost, limits: Limits, reserve: int | None = None) -> AsyncIterator[Guarded]:
    guard = DiskGuard(host, limits, reserve)
    made = Guarded(host, guard)
    guard.told = lambda sandbox_id, reason: made.told.append((sandbox_id, reason))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(guard.keep)
        yield made
        tasks.cancel_scope.cancel()


@pytest.fixture
async def limited(host: SandboxHost) -> AsyncIterator[Guarded]:
    async with guarded(host, LIMIT, reserve=0) as made:
        yield made
    host.room.limit = math.inf


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as place:
        yield place


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.01)


IDLE = ("idle0", "idle1", "idle2")
BYTES = "exec cat /dev/zero > ~/zeros"
FILES = "mkdir ~/d; cd ~/d; i=0; while :; do i=$((i+1)); : > $i; done"
IN_PYTHON = {
    "open without a name": """
        import os, time
        with open("h", "wb") as file:
            os.unlink("h")
            while True: file.write(bytes(1 << 20)); file.flush(); time.sleep(0.005)
    """,
    "mapped without a name": """
        import mmap, os, time
        with open("h", "w+b") as file:
            os.ftruncate(file.fileno(), 200 << 20); memory = mmap.mmap(file.fileno(), 200 << 20); os.unlink("h")
        for place in range(0, 200 << 20, 4096):
            memory[place] = 1
            if not place % (1 << 20): time.sleep(0.005)
        time.sleep(1000)
    """,
    "too deep to look at": """
        import os
        while True: os.mkdir("d"); os.chdir("d"); open("f", "w").close()
    """,
}
WAYS = {"bytes": ("/bin/sh", "-c", BYTES), "files": ("/bin/sh", "-c", FILES)}
WAYS |= {name: ("python3", "-c", textwrap.dedent(script)) for name, script in IN_PYTHON.items()}


@pytest.mark.parametrize("way", WAYS)
async def test_who_holds_too_much_is_stopped(limited: Guarded, way: str) -> None:
    # Door: disk exhaustion and inode exhaustion, in the open and by what no directory shows.
    guest = await limited.host.launch(SandboxSpec("greedy"))
    neighbour = await limited.host.launch(SandboxSpec("neighbour"))
    result = await run(guest, *WAYS[way])
    assert result.status.signal == 9
    assert [sandbox_id for sandbox_id, _ in limited.told] == ["greedy"]
    assert limited.told[0][1].startswith("disk limit: ")
    assert limited.guard.stops == 1
    assert (await shell(neighbour, "echo fine > ~/f && cat ~/f")).out == "fine\n"
    await guest.kill()
    await neighbour.kill()


async def test_nothing_can_be_written_until_something_is_removed(limited: Guarded) -> None:
    guest = await limited.host.launch(SandboxSpec("full"))
    daemon = "sleep 94 & "  # goes, too: it could write
    assert (await shell(guest, f"{daemon}{BYTES}")).status.signal == 9
    for refused in (
        lambda: run(guest, "/bin/true"),
        lambda: guest.make_dir("/home/user/d", "user"),
        lambda: guest.move("/home/user/zeros", "/home/user/moved", "user"),
        lambda: guest.open_write("/home/user/f", "user"),
    ):
        with pytest.raises(GuestError, match="disk limit: this sandbox holds more than 24 MiB") as caught:
            await refused()
        assert caught.value.code == "resource_exhausted"
    opened = await guest.open_read("/home/user/zeros", "user")
    assert opened.size > LIMIT.disk_bytes
    os.close(opened.fd)
    names = [entry.name for entry in await guest.list_dir("/proc", 1, "root") if entry.name.isdigit()]
    assert names == ["1"]
    await guest.remove("/home/user/zeros", "user")
    with anyio.fail_after(SECONDS):
        while True:  # a look that is very young is not repeated
            try:
                assert (await shell(guest, "echo again")).out == "again\n"
                break
            except GuestError:
                await anyio.sleep(0.05)
    assert (await limited.guard.used(guest, fresh=True))[1] == LIMIT.disk_bytes
    await guest.kill()


async def test_what_is_sent_is_counted_at_once(limited: Guarded) -> None:
    guest = await limited.host.launch(SandboxSpec("sent"))
    guest.quota.take(20 * MIB)
    with pytest.raises(GuestError, match="does not fit"):
        guest.quota.take(5 * MIB)
    await guest.kill()


async def test_idle_sandboxes_are_left_alone(limited: Guarded) -> None:
    guests = [await limited.host.launch(SandboxSpec(name)) for name in IDLE]
    if limited.host.cpu_seconds("idle0") is None:
        pytest.skip("nothing counts what these use of the processor")
    seen = limited.guard.seen
    for guest in guests:
        await _until_quiet(limited.host, guest)
        await limited.guard.used(guest)
    before = {name: seen[name].at for name in IDLE}
    busy = await limited.host.launch(SandboxSpec("busy"))
    await shell(busy, "head -c 12M /dev/urandom > ~/f")
    await until(lambda: "busy" in seen and seen["busy"].use.bytes > 12 * MIB)
    assert {name: seen[name].at for name in IDLE} == before
    for guest in (*guests, busy):
        await guest.kill()


async def _until_quiet(host: SandboxHost, guest: Guest) -> None:
    """Wait until a sandbox has done all that comes with its start."""
    used, quiet = None, 0
    while quiet < 5:  # once may mean that others had all processors
        quiet = quiet + 1 if used == (used := host.cpu_seconds(guest.sandbox_id)) else 0
        await anyio.sleep(0.1)


async def test_space_cannot_be_taken_without_writing(limited: Guarded) -> None:
    # Door: a whole disk by one call, sooner than anybody can look.
    guest = await limited.host.launch(SandboxSpec("claims"))
    out = await python(guest, """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def allocate(mode, size):
            done = libc.fallocate(file, mode, ctypes.c_long(0), ctypes.c_long(size))
            return 0 if done == 0 else ctypes.get_errno()
        file = os.open("/home/user/f", os.O_RDWR | os.O_CREAT)
        os.write(file, bytes(1 << 20))
        print(*(allocate(mode, 4 << 30) for mode in (0, 1, 0x10, 0x11)), allocate(3, 1 << 19))
        os.posix_fallocate(file, 0, 2 << 20); print(os.fstat(file).st_size)
    """)  # fmt: skip
    assert out.split() == [str(errno.EOPNOTSUPP)] * 4 + ["0", str(2 * MIB)]
    await guest.kill()


async def test_a_disk_that_many_fill_keeps_its_reserve(small: Path) -> None:
    # Door: the disk of the engine itself, filled by those who stay within their own limits.
    reserve = 64 * MIB
    async with SandboxHost(small / "data") as host, guarded(host, Limits(), reserve) as made:
        made.guard.admit()
        quiet = await made.host.launch(SandboxSpec("quiet"))
        assert (await shell(quiet, "head -c 1M /dev/zero > ~/before")).status.code == 0
        writers = [await made.host.launch(SandboxSpec(f"writer{number}")) for number in range(2)]
        slowly = "while :; do head -c 1M /dev/zero >> ~/f; sleep 0.05; done"
        async with anyio.create_task_group() as tasks:
            for writer in writers:
                tasks.start_soon(_outlive, writer, slowly)
            await until(lambda: made.host.room.low != "")
            with pytest.raises(ControlFault, match="not enough disk space") as caught:
                made.guard.admit()
            assert caught.value.status == 503
            with pytest.raises(GuestError, match="not enough disk space"):
                await quiet.open_write("/home/user/f", "user")
            with pytest.raises(GuestError, match="not enough disk space"):
                made.host.volumes.take(1)
        assert {sandbox_id for sandbox_id, _ in made.told} == {"writer0", "writer1"}
        assert all(reason.startswith("disk full: this sandbox was taking the most") for _, reason in made.told)
        assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > reserve // 2
        assert (await shell(quiet, "echo fine > ~/f && cat ~/f")).out == "fine\n"
        for writer in writers:
            await writer.kill()
        await until(lambda: made.host.room.low == "")
        made.guard.admit()
        await quiet.kill()


async def _outlive(guest: Guest, script: str) -> None:
    assert (await shell(guest, script)).status.signal == 9


async def test_one_that_fills_the_disk_too_fast_is_ended(small: Path) -> None:
    # Door: all that is left, within a moment: nothing but the end of the sandbox gives it back.
    async with SandboxHost(small / "data") as host:
        guard = DiskGuard(host, Limits())
        quiet, fast = [await host.launch(SandboxSpec(name)) for name in ("quiet", "fast")]
        with anyio.fail_after(SECONDS):
            assert "No space left" in (await shell(fast, "cat /dev/zero > ~/zeros")).err
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(guard.keep)
                await fast.closed.wait()
                await until(lambda: host.room.low == "" and not host.has_files("fast"))
                tasks.cancel_scope.cancel()
        assert (await shell(quiet, "echo fine > ~/f && cat ~/f")).out == "fine\n"
        await quiet.kill()


def test_the_engine_remembers_on_a_full_disk(small: Path) -> None:
    # Door: an engine that cannot write down what happens, since others took the last block.
    with Store(small / "state.sqlite") as store:
        with (small / "all").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(MIB))
        with (small / "all").open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"x")
        for number in range(2000):
            store.remember("owner", f"key{number}", b"digest", bytes(1000))
        answer = store.answer("owner", "key1999")
        assert answer is not None
        (small / "all").unlink()
    with sqlite3.connect(small / "state.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_files_with_several_names_count_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "one").write_bytes(bytes(100_000))
    before = gauge.walk(str(tmp_path), 1 << 40, 1 << 20)
    os.link(tmp_path / "d" / "one", tmp_path / "two")
    (tmp_path / "link").symlink_to("/")
    after = gauge.walk(str(tmp_path), 1 << 40, 1 << 20)
    assert (after.bytes, after.files) == (before.bytes, before.files + 1)
    assert before.bytes >= 100_000
    assert gauge.walk(str(tmp_path), 1 << 40, 1).files == 2
    with pytest.raises(FileNotFoundError):
        gauge.walk(str(tmp_path / "nothing"), 1, 1)


HIDDEN = {
    "in the table of one thread": """
        def hide():
            libc.syscall(ctypes.c_long(436), ctypes.c_long(10**5), ctypes.c_long(10**5), ctypes.c_long(2))
            kept.append(take()); print("ready"); time.sleep(1000)
        threading.Thread(target=hide).start()
    """,
    "behind a thread that has ended": """
        def hide():
            while open("/proc/self/status").read().find("zombie") < 0: time.sleep(0.01)
            kept.append(take()); print("ready"); time.sleep(1000)
        threading.Thread(target=hide).start()
        libc.pthread_exit(None)
    """,
    "as the program that runs": """
        shutil.copy("/bin/sleep", "h")
        with open("h", "ab") as file: file.write(bytes(8 << 20))
        kept.append(subprocess.Popen(["./h", "1000"])); time.sleep(0.5); os.unlink("h"); print("ready")
    """,
    "on its way": """
        kept.extend(socket.socketpair())
        with take() as file: socket.send_fds(kept[0], [b"x"], [file.fileno()])
        print("ready")
    """,
}
HIDE = """
import ctypes, os, shutil, socket, subprocess, threading, time
libc = ctypes.CDLL(None)
kept = []
def take():
    file = open("h", "wb")
    os.unlink("h")
    file.write(bytes(8 << 20))
    file.flush()
    return file
"""


@pytest.mark.parametrize("way", HIDDEN)
async def test_what_is_hidden_is_found(host: SandboxHost, box: Guest, way: str) -> None:
    # Door: files that fill the disk and that neither a directory nor a process's own descriptors show.
    script = f"{HIDE}{textwrap.dedent(HIDDEN[way])}\ntime.sleep(1000)"
    async with background(box, script):
        held = (await host.gauge.removed_but_open())[box.sandbox_id]
        if way == "on its way":
            assert held.unseen == 1
        else:
            assert held.use.beyond(DiskUse(8 * MIB - 1, 0))


FILL = "while :; do head -c 1M /dev/zero >> {}; sleep 0.02; done"
IN_FLIGHT = """
import os, socket, time
kept = []
while True:
    kept.append(socket.socketpair())
    with open("h", "wb") as file:
        os.unlink("h")
        file.write(bytes(1 << 20))
        socket.send_fds(kept[-1][0], [b"x"], [file.fileno()])
    time.sleep(0.02)
"""


@pytest.mark.parametrize("command", [("/bin/sh", "-c", FILL.format("/mnt/v/f")), ("python3", "-c", IN_FLIGHT)])
async def test_who_fills_the_disk_in_hiding_is_stopped_and_nobody_else(small: Path, command: tuple[str, ...]) -> None:
    # Door: the disk of the engine, filled through a volume, which has no limit, and by what cannot be measured.
    async with SandboxHost(small / "data") as host, guarded(host, Limits(), 64 * MIB) as made:
        await host.volumes.make(VOLUME)
        busy = await host.launch(SandboxSpec("busy"))
        filler = await host.launch(SandboxSpec("filler", mounts=(Mount(VOLUME, "/mnt/v"),)))
        async with background(
            busy, "import time; print('ready')\nwhile True: open('f', 'w').write('x'); time.sleep(0.1)"
        ):
            assert (await run(filler, *command)).status.signal == 9
            assert {sandbox_id for sandbox_id, _ in made.told} == {"filler"}
            assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > 32 * MIB
        await busy.kill()
        await filler.kill()
