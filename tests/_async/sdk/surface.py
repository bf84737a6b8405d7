"""What type checkers see of the public surface; checked by `tests/test_typing.py`, never run.

A line with `type: ignore` must be an error: strict mode reports ignores that nothing needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import assert_type

from grotte import (
    AsyncCommandHandle,
    AsyncFileStreamReader,
    AsyncFilesystem,
    AsyncGit,
    AsyncGrotte,
    AsyncPty,
    AsyncPtyHandle,
    AsyncSandbox,
    AsyncSandboxPaginator,
    AsyncSnapshotPaginator,
    AsyncVolume,
    AsyncWatchHandle,
    CommandExitException,
    CommandResult,
    Counters,
    EntryInfo,
    FilesystemEvent,
    FilesystemEventType,
    GitBranches,
    GitStatus,
    ProcessInfo,
    PtySize,
    SandboxInfo,
    SandboxMetrics,
    SandboxQuery,
    SnapshotInfo,
    TransferProgress,
    TransportOptions,
    VolumeAndToken,
    VolumeEntryStat,
    VolumeInfo,
)


async def lifecycle() -> None:
    sandbox = await AsyncSandbox.create("base", timeout=60, metadata={"a": "b"}, api_key="k", request_timeout=1.5)
    assert_type(sandbox, AsyncSandbox)
    assert_type(await AsyncSandbox.connect("id"), AsyncSandbox)
    assert_type(await AsyncSandbox.connect("id", timeout=3, domain="d"), AsyncSandbox)
    assert_type(await sandbox.connect(timeout=3), AsyncSandbox)
    assert_type(await sandbox.resume(), AsyncSandbox)
    assert_type(await sandbox.kill(), bool)
    assert_type(await AsyncSandbox.kill("id", api_key=None), bool)
    assert_type(await AsyncSandbox.kill(sandbox_id="id"), bool)
    assert_type(await sandbox.pause(), bool)
    assert_type(await sandbox.is_running(request_timeout=3), bool)
    assert_type(await sandbox.get_info(), SandboxInfo)
    assert_type(await AsyncSandbox.get_info("id"), SandboxInfo)
    assert_type(await sandbox.get_metrics(), list[SandboxMetrics])
    assert_type(await sandbox.create_snapshot(), SnapshotInfo)
    assert_type(sandbox.sandbox_id, str)
    assert_type(sandbox.get_url(80), str)
    await sandbox.set_timeout(10)
    await AsyncSandbox.set_timeout("id", 10)
    await sandbox.refresh_ttl(10)
    await sandbox.refresh_ttl(duration=10)
    await sandbox.set_network(internet_access=False)
    async with await AsyncSandbox.create() as entered:
        assert_type(entered, AsyncSandbox)


async def accounts() -> None:
    async with AsyncGrotte(api_key="k", transport=TransportOptions(ca_file="x")) as client:
        assert_type(client, AsyncGrotte)
        assert_type(await client.Sandbox.create("base"), AsyncSandbox)
        assert_type(await client.Sandbox.connect("id"), AsyncSandbox)
        assert_type(client.Sandbox.list(), AsyncSandboxPaginator)
        assert_type(await client.Sandbox.kill("id"), bool)
        assert_type(await client.Volume.create("v"), AsyncVolume)
        assert_type(client.counters, Counters)
    AsyncGrotte(api_kee="k")  # type: ignore[call-arg]


async def volumes() -> None:
    volume = await AsyncVolume.create("v")
    assert_type(volume, AsyncVolume)
    assert_type(await AsyncVolume.connect("id"), AsyncVolume)
    assert_type(await AsyncVolume.list(), list[VolumeInfo])
    assert_type(await volume.list("/", depth=2, token="t"), list[VolumeEntryStat])
    assert_type(await AsyncVolume.get_info("id"), VolumeAndToken)
    assert_type(await volume.get_info("/x"), VolumeEntryStat)
    assert_type(await volume.read_file("/x"), str)
    assert_type(await volume.read_file("/x", "bytes"), bytes)
    assert_type(await volume.read_file("/x", format="stream"), AsyncFileStreamReader)
    assert_type(await AsyncVolume.destroy("id"), bool)
    await AsyncSandbox.create(volume_mounts={"/a": volume, "/b": "name"})
    await AsyncSandbox.create(volume_mounts={"/a": 3})  # type: ignore[dict-item]
    await volume.list()  # type: ignore[call-arg]


async def lists() -> None:
    paginator = AsyncSandbox.list(SandboxQuery(metadata={"a": "b"}), limit=3)
    assert_type(paginator, AsyncSandboxPaginator)
    assert_type(await paginator.next_items(), list[SandboxInfo])
    async for info in paginator:
        assert_type(info, SandboxInfo)


async def commands(sandbox: AsyncSandbox, background: bool) -> None:
    assert_type(await sandbox.commands.run("x"), CommandResult)
    assert_type(await sandbox.commands.run("x", background=False, check=False), CommandResult)
    handle = await sandbox.commands.run("x", background=True)
    assert_type(handle, AsyncCommandHandle)
    assert_type(await sandbox.commands.run("x", background=background), CommandResult | AsyncCommandHandle)
    assert_type(await sandbox.commands.connect(1), AsyncCommandHandle)
    assert_type(await sandbox.commands.list(), list[ProcessInfo])
    assert_type(await handle.wait(), CommandResult)
    assert_type(handle.exit_code, int | None)
    async for stdout, stderr, pty in handle:
        assert_type(stdout, str | None)
        assert_type(stderr, str | None)
        assert_type(pty, bytes | None)
    async for text in handle.stdout:
        assert_type(text, str)
    plain: str = handle.stderr
    print(plain)

    async def slow(text: str) -> None:
        print(text)

    await sandbox.commands.run("x", on_stdout=print, on_stderr=slow)


async def files(sandbox: AsyncSandbox, pieces: AsyncIterator[bytes]) -> None:
    assert_type(sandbox.files, AsyncFilesystem)
    assert_type(sandbox.filesystem, AsyncFilesystem)
    assert_type(await sandbox.files.read("/x"), str)
    assert_type(await sandbox.files.read("/x", format="text"), str)
    assert_type(await sandbox.files.read("/x", format="bytes"), bytes)
    stream = await sandbox.files.read("/x", "stream")
    assert_type(stream, AsyncFileStreamReader)
    async for piece in stream:
        assert_type(piece, bytes)
    assert_type(await sandbox.files.write("/x", pieces), EntryInfo)
    assert_type(await sandbox.files.write_files([{"path": "/x", "data": "y"}]), list[EntryInfo])
    assert_type(await sandbox.files.list("/", depth=2), list[EntryInfo])
    assert_type(await sandbox.files.make_dir("/x"), bool)
    assert_type(await sandbox.files.rename("/x", "/y"), EntryInfo)
    assert_type(await sandbox.files.get_info("/x"), EntryInfo)


async def terminals(sandbox: AsyncSandbox) -> None:
    assert_type(sandbox.pty, AsyncPty)
    pty = await sandbox.pty.create(rows=24, cols=80)
    assert_type(pty, AsyncPtyHandle)
    assert_type(await sandbox.pty.create(PtySize(rows=24, cols=80), on_data=print, timeout=0), AsyncPtyHandle)
    assert_type(await sandbox.pty.connect(pty.pid), AsyncPtyHandle)
    assert_type(await pty.read(), bytes)
    assert_type(await pty.read(timeout=1.5), bytes)
    assert_type(await pty.kill(), bool)
    assert_type(await pty.wait(), CommandResult)
    await pty.send_stdin(b"x")
    await pty.resize(PtySize(1, 2))
    await sandbox.pty.resize(pty.pid, rows=1, cols=2)
    command: AsyncCommandHandle = pty
    print(command)


async def watches(sandbox: AsyncSandbox) -> None:
    async with await sandbox.files.watch_dir("/x", recursive=True, include_entry=True, timeout=0) as watch:
        assert_type(watch, AsyncWatchHandle)
        assert_type(await watch.get_new_events(), list[FilesystemEvent])
        async for event in watch:
            assert_type(event, FilesystemEvent)
            assert_type(event.type, FilesystemEventType)
            assert_type(event.entry, EntryInfo | None)
    await watch.stop()
    await sandbox.files.watch_dir("/x", on_event=print, on_exit=print)
    await sandbox.files.watch_dir("/x", on_event="print")  # type: ignore[arg-type]
    await sandbox.pty.create(rows="24")  # type: ignore[arg-type]


async def transfers(sandbox: AsyncSandbox) -> None:
    async def slow(progress: TransferProgress) -> None:
        print(progress.transferred)

    assert_type(await sandbox.files.upload(Path("x"), "/x", on_progress=print), EntryInfo)
    assert_type(await sandbox.files.download("/x", "x", on_progress=slow), Path)
    assert_type(sandbox.upload_url(), str)
    assert_type(sandbox.download_url("/x", use_signature_expiration=60), str)


async def git(sandbox: AsyncSandbox) -> None:
    assert_type(sandbox.git, AsyncGit)
    assert_type(await sandbox.git.clone("url", depth=1, timeout=None, user="root"), CommandResult)
    assert_type(await sandbox.git.status("x"), GitStatus)
    assert_type(await sandbox.git.branches("x"), GitBranches)
    assert_type(await sandbox.git.remote_get("x", "origin"), str | None)


async def copies(sandbox: AsyncSandbox) -> None:
    assert_type(await sandbox.fork(2), list[AsyncSandbox])
    assert_type(await AsyncSandbox.fork("id", 2), list[AsyncSandbox])
    assert_type(sandbox.list_snapshots(limit=3), AsyncSnapshotPaginator)
    assert_type(await AsyncSandbox.delete_snapshot("id"), bool)
    async for snapshot in AsyncSandbox.list_snapshots("id"):
        assert_type(snapshot, SnapshotInfo)


def results(failure: CommandExitException) -> CommandResult:
    assert_type(failure.exit_code, int)
    return failure


async def mistakes(sandbox: AsyncSandbox) -> None:
    await AsyncSandbox.kill()  # type: ignore[call-arg]
    await sandbox.kill(api_kee="x")  # type: ignore[call-arg]
    await AsyncSandbox.create(timeout="60")  # type: ignore[arg-type]
    await AsyncSandbox.create(timeoot=60)  # type: ignore[call-arg]
    await AsyncSandbox.create(lifecycle={"on_timeout": "sleep"})  # type: ignore[arg-type]
    await sandbox.commands.run("x", envs={"A": 1})  # type: ignore[dict-item]
    await sandbox.files.read("/x", "lines")  # type: ignore[call-overload]
    await sandbox.files.write("/x", 3)  # type: ignore[arg-type]
