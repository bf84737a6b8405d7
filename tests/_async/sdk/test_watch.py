"""`sandbox.filesystem.watch_dir` on the real engine."""

from __future__ import annotations

import pytest

from grotte import (
    AsyncSandbox,
    FileNotFoundException,
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    SandboxException,
    SandboxNotRunningException,
    TimeoutException,
)
from grotte._core import _aio

CREATE, CHMOD, WRITE = FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE
REMOVE, RENAME = FilesystemEventType.REMOVE, FilesystemEventType.RENAME

Seen = list[tuple[FilesystemEventType, str]]


def pairs(events: list[FilesystemEvent]) -> Seen:
    return [(event.type, event.name) for event in events]


async def test_new_events(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("w/file", "old")
    watch = await sandbox.files.watch_dir("w")
    assert await watch.get_new_events() == []
    await sandbox.files.write("w/file", "new")
    assert pairs(await watch.get_new_events()) == [(WRITE, "file"), (CHMOD, "file"), (WRITE, "file")]
    await sandbox.files.rename("w/file", "w/other")
    await sandbox.files.remove("w/other")
    assert pairs(await watch.get_new_events()) == [(RENAME, "file"), (CREATE, "other"), (REMOVE, "other")]
    assert await watch.get_new_events() == []
    await watch.stop()
    await watch.stop()
    with pytest.raises(SandboxException, match="stopped"):
        await watch.get_new_events()


async def test_iteration(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("w")
    seen: Seen = []
    async with await sandbox.files.watch_dir("w", recursive=True) as watch:
        await sandbox.commands.run("mkdir w/d")
        async for event in watch:
            seen.append((event.type, event.name))
            if seen == [(CREATE, "d")]:  # it is watched as well by now
                await sandbox.commands.run("echo x > w/d/f; rm -r w/d")
            if seen[-1] == (REMOVE, "d"):
                break
    assert seen == [(CREATE, "d"), (CREATE, "d/f"), (WRITE, "d/f"), (REMOVE, "d/f"), (REMOVE, "d")]
    async for event in watch:
        pytest.fail(f"it was stopped, and yet: {event}")


async def test_events_wait_for_who_takes_them(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("w")
    async with await sandbox.files.watch_dir("w") as watch:
        await sandbox.commands.run("cd w; seq 2000 | xargs mkdir")
        expected = [(CREATE, str(number)) for number in range(1, 2001)]
        seen: Seen = []
        async for event in watch:
            seen.append((event.type, event.name))
            if len(seen) == len(expected):
                break
    assert seen == expected


async def test_entries(sandbox: AsyncSandbox) -> None:
    async with await sandbox.files.watch_dir("/tmp", include_entry=True) as watch:
        await sandbox.files.write("/tmp/f", "12345")
        async for event in watch:
            if event.type is WRITE:
                break
        assert event.entry is not None
        assert (event.entry.path, event.entry.size, event.entry.type) == ("/tmp/f", 5, FileType.FILE)


async def test_the_callback_is_called_while_somebody_waits(sandbox: AsyncSandbox) -> None:
    seen: Seen = []
    ended: list[Exception] = []

    async def on_event(event: FilesystemEvent) -> None:
        seen.append((event.type, event.name))
        if event.name == "last":
            await watch.stop()

    watch = await sandbox.files.watch_dir("/tmp", on_event=on_event, on_exit=ended.append)
    await sandbox.commands.run("mkdir /tmp/first; mkdir /tmp/last")
    await watch.wait()
    assert seen == [(CREATE, "first"), (CREATE, "last")]
    assert ended == []


async def test_the_time_of_a_watch(sandbox: AsyncSandbox) -> None:
    watch = await sandbox.files.watch_dir("/tmp", timeout=1.5)
    with pytest.raises(TimeoutException, match=r"'timeout' of the watch is 1\.5 s"):
        await watch.wait()
    ended: list[Exception] = []
    watch = await sandbox.files.watch_dir("/tmp", timeout=1.5, on_exit=ended.append)
    await watch.wait()
    assert [type(error) for error in ended] == [TimeoutException]


async def test_the_end_of_the_sandbox(sandbox: AsyncSandbox) -> None:
    watch = await sandbox.files.watch_dir("/tmp")
    await sandbox.kill()
    with pytest.raises(SandboxNotRunningException):
        async for _ in watch:
            pass


async def test_leaving_the_block_of_a_sandbox_that_is_gone(sandbox: AsyncSandbox) -> None:
    async with await sandbox.files.watch_dir("/tmp"):
        await sandbox.kill()


async def test_too_many_events(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("w")
    write_much = "i=0; while [ $i -lt 30000 ]; do echo > w/a; echo > w/b; i=$((i+1)); done"
    async with await sandbox.files.watch_dir("w", timeout=300) as watch:
        await sandbox.commands.run(write_much, timeout=300)
        with pytest.raises(SandboxException, match="events were lost"):
            async for _ in watch:
                await _aio.sleep(0)


async def test_mistakes(sandbox: AsyncSandbox) -> None:
    with pytest.raises(FileNotFoundException):
        await sandbox.files.watch_dir("/no/such")
    with pytest.raises(InvalidArgumentException, match="not a directory"):
        await sandbox.files.watch_dir("/etc/passwd")
    with pytest.raises(InvalidArgumentException, match="NUL"):
        await sandbox.files.watch_dir("a\0b")
    with pytest.raises(InvalidArgumentException, match="on_event"):
        await sandbox.files.watch_dir("/tmp", "user")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentException, match="timeout"):
        await sandbox.files.watch_dir("/tmp", timeout=-1)


async def test_many_watches_at_once(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("w")
    counts: list[int] = []

    async def one(number: int) -> None:
        async with await sandbox.files.watch_dir("w", timeout=300) as watch:
            ready.append(number)
            seen = 0
            async for _ in watch:
                seen += 1
                if seen == 20:
                    break
            counts.append(seen)

    ready: list[int] = []
    async with _aio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one, number)
        while len(ready) < 10:
            await _aio.sleep(0.02)
        await sandbox.commands.run("for i in $(seq 20); do mkdir w/$i; done")
    assert counts == [20] * 10
