"""`request_timeout` and `api_key` on every method: accepted, and refused before a byte is sent if they are wrong."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from grotte import (
    AsyncCommandHandle,
    AsyncGrotte,
    AsyncPtyHandle,
    AsyncSandbox,
    AsyncTemplate,
    AsyncVolume,
    AsyncWatchHandle,
    BuildInfo,
    CommandExitException,
    InvalidArgumentException,
    PtySize,
    TemplateBuilder,
)
from tests.support.engine import Engine
from tests.support.surface import Common, methods_of

WRONG: list[Common] = [
    *({"request_timeout": value} for value in (-1, "5", float("nan"), True, [1])),
    *({"api_key": value} for value in ("", "two words", "kéy", 5, "a\nb")),
]


@dataclass
class World:
    """What the calls are made on."""

    sandbox: AsyncSandbox
    command: AsyncCommandHandle
    pty: AsyncPtyHandle
    watch: AsyncWatchHandle
    volume: AsyncVolume
    templates: type[AsyncTemplate]
    template: TemplateBuilder
    build: BuildInfo
    folder: Path

    @property
    def name(self) -> str:
        """Of the volume, and of the template."""
        return self.volume.name


Call = Callable[[World, Common], Awaitable[object]]

#: Every method, in an order in which they all work; the last ones end what the others need.
CALLS: dict[str, Call] = {
    "Sandbox.is_running": lambda w, c: w.sandbox.is_running(**c),
    "Sandbox.get_info": lambda w, c: w.sandbox.get_info(**c),
    "Sandbox.get_metrics": lambda w, c: w.sandbox.get_metrics(**c),
    "Sandbox.set_timeout": lambda w, c: w.sandbox.set_timeout(300, **c),
    "Sandbox.refresh_ttl": lambda w, c: w.sandbox.refresh_ttl(300, **c),
    "Sandbox.set_network": lambda w, c: w.sandbox.set_network(internet_access=False, **c),
    "Sandbox.list": lambda w, c: type(w.sandbox).list(**c).next_items(),
    "Sandbox.list_snapshots": lambda w, c: w.sandbox.list_snapshots(**c).next_items(),
    "SandboxPaginator.next_items": lambda w, c: type(w.sandbox).list().next_items(**c),
    "SnapshotPaginator.next_items": lambda w, c: w.sandbox.list_snapshots().next_items(**c),
    "Commands.run": lambda w, c: w.sandbox.commands.run("true", **c),
    "Commands.list": lambda w, c: w.sandbox.commands.list(**c),
    "Commands.connect": lambda w, c: w.sandbox.commands.connect(w.command.pid, **c),
    "Commands.send_stdin": lambda w, c: w.sandbox.commands.send_stdin(w.command.pid, "x\n", **c),
    "CommandHandle.send_stdin": lambda w, c: w.command.send_stdin("y\n", **c),
    "Commands.close_stdin": lambda w, c: w.sandbox.commands.close_stdin(w.command.pid, **c),
    "CommandHandle.close_stdin": lambda w, c: w.command.close_stdin(**c),
    "CommandHandle.wait": lambda w, c: w.command.wait(**c),
    "CommandHandle.kill": lambda w, c: w.command.kill(**c),
    "Commands.kill": lambda w, c: w.sandbox.commands.kill(w.command.pid, **c),
    "CommandHandle.disconnect": lambda w, c: w.command.disconnect(**c),
    "Filesystem.write": lambda w, c: w.sandbox.files.write("/tmp/a", "b", **c),
    "Filesystem.write_files": lambda w, c: w.sandbox.files.write_files([{"path": "/tmp/c", "data": "d"}], **c),
    "Filesystem.read": lambda w, c: w.sandbox.files.read("/tmp/a", **c),
    "Filesystem.list": lambda w, c: w.sandbox.files.list("/tmp", **c),
    "Filesystem.exists": lambda w, c: w.sandbox.files.exists("/tmp", **c),
    "Filesystem.get_info": lambda w, c: w.sandbox.files.get_info("/tmp", **c),
    "Filesystem.make_dir": lambda w, c: w.sandbox.files.make_dir("/tmp/dir", **c),
    "Filesystem.rename": lambda w, c: w.sandbox.files.rename("/tmp/c", "/tmp/d", **c),
    "Filesystem.remove": lambda w, c: w.sandbox.files.remove("/tmp/d", **c),
    "Filesystem.download": lambda w, c: w.sandbox.files.download("/tmp/a", w.folder / "a", **c),
    "Filesystem.upload": lambda w, c: w.sandbox.files.upload(w.folder / "a", "/tmp/e", **c),
    "Filesystem.watch_dir": lambda w, c: w.sandbox.files.watch_dir("/tmp", **c),
    "WatchHandle.get_new_events": lambda w, c: w.watch.get_new_events(**c),
    "WatchHandle.stop": lambda w, c: w.watch.stop(**c),
    "WatchHandle.wait": lambda w, c: w.watch.wait(**c),
    "Pty.create": lambda w, c: w.sandbox.pty.create(**c),
    "Pty.connect": lambda w, c: w.sandbox.pty.connect(w.pty.pid, **c),
    "Pty.send_stdin": lambda w, c: w.sandbox.pty.send_stdin(w.pty.pid, "true\n", **c),
    "Pty.resize": lambda w, c: w.sandbox.pty.resize(w.pty.pid, PtySize(10, 20), **c),
    "PtyHandle.send_stdin": lambda w, c: w.pty.send_stdin("true\n", **c),
    "PtyHandle.resize": lambda w, c: w.pty.resize(rows=10, cols=20, **c),
    "PtyHandle.read": lambda w, c: w.pty.read(**c),
    "PtyHandle.kill": lambda w, c: w.pty.kill(**c),
    "Pty.kill": lambda w, c: w.sandbox.pty.kill(w.pty.pid, **c),
    "PtyHandle.wait": lambda w, c: w.pty.wait(check=False, **c),
    "PtyHandle.close_stdin": lambda w, c: w.command.close_stdin(**c),
    "PtyHandle.disconnect": lambda w, c: w.pty.disconnect(**c),
    "Git.configure_user": lambda w, c: w.sandbox.git.configure_user("Ada", "ada@example.org", **c),
    "Git.init": lambda w, c: w.sandbox.git.init("repo", initial_branch="main", **c),
    "Git.add": lambda w, c: w.sandbox.git.add("repo", **c),
    "Git.commit": lambda w, c: w.sandbox.git.commit("repo", "first", **c),
    "Git.clone": lambda w, c: w.sandbox.git.clone("/home/user/repo", "copy", **c),
    "Git.status": lambda w, c: w.sandbox.git.status("copy", **c),
    "Git.pull": lambda w, c: w.sandbox.git.pull("copy", **c),
    "Git.push": lambda w, c: w.sandbox.git.push("copy", "origin", "HEAD:refs/heads/other", set_upstream=False, **c),
    "Git.branches": lambda w, c: w.sandbox.git.branches("copy", **c),
    "Git.create_branch": lambda w, c: w.sandbox.git.create_branch("copy", "b", **c),
    "Git.checkout_branch": lambda w, c: w.sandbox.git.checkout_branch("copy", "main", **c),
    "Git.delete_branch": lambda w, c: w.sandbox.git.delete_branch("copy", "b", **c),
    "Git.reset": lambda w, c: w.sandbox.git.reset("copy", **c),
    "Git.restore": lambda w, c: w.sandbox.git.restore("copy", ["."], staged=True, worktree=False, **c),
    "Git.set_config": lambda w, c: w.sandbox.git.set_config("a.b", "c", **c),
    "Git.get_config": lambda w, c: w.sandbox.git.get_config("a.b", **c),
    "Git.remote_add": lambda w, c: w.sandbox.git.remote_add("copy", "more", "/home/user/repo", **c),
    "Git.remote_get": lambda w, c: w.sandbox.git.remote_get("copy", "more", **c),
    "Git.dangerously_authenticate": lambda w, c: w.sandbox.git.dangerously_authenticate("ada", "secret", **c),
    "Volume.write_file": lambda w, c: w.volume.write_file("/a", "b", **c),
    "Volume.read_file": lambda w, c: w.volume.read_file("/a", **c),
    "Volume.list": lambda w, c: w.volume.list("/", **c),
    "Volume.get_info": lambda w, c: w.volume.get_info("/a", **c),
    "Volume.exists": lambda w, c: w.volume.exists("/a", **c),
    "Volume.update_metadata": lambda w, c: w.volume.update_metadata("/a", mode=0o600, **c),
    "Volume.make_dir": lambda w, c: w.volume.make_dir("/b", **c),
    "Volume.remove": lambda w, c: w.volume.remove("/b", **c),
    "Volume.connect": lambda w, c: type(w.volume).connect(w.volume.volume_id, **c),
    "Volume.destroy": lambda w, c: type(w.volume).destroy(w.volume.volume_id, **c),
    "Volume.create": lambda w, c: type(w.volume).create(w.volume.name, **c),
    "Template.build": lambda w, c: w.templates.build(w.template, w.name, **c),
    "Template.build_in_background": lambda w, c: w.templates.build_in_background(w.template, w.name, **c),
    "Template.get_build_status": lambda w, c: w.templates.get_build_status(w.build, **c),
    "Template.exists": lambda w, c: w.templates.exists(w.name, **c),
    "Template.alias_exists": lambda w, c: w.templates.alias_exists(w.name, **c),
    "Template.assign_tags": lambda w, c: w.templates.assign_tags(w.name, ["one", "two"], **c),
    "Template.get_tags": lambda w, c: w.templates.get_tags(w.name, **c),
    "Template.remove_tags": lambda w, c: w.templates.remove_tags(w.name, "one", **c),
    "Template.list": lambda w, c: w.templates.list(**c),
    "Template.delete": lambda w, c: w.templates.delete(w.name, **c),
    "Sandbox.create_snapshot": lambda w, c: w.sandbox.create_snapshot(**c),
    "Sandbox.delete_snapshot": lambda w, c: type(w.sandbox).delete_snapshot("nothing", **c),
    "Sandbox.fork": lambda w, c: w.sandbox.fork(1, timeout=15, **c),
    "Sandbox.create": lambda w, c: type(w.sandbox).create("base", timeout=15, **c),
    "Sandbox.beta_create": lambda w, c: type(w.sandbox).beta_create("base", timeout=15, **c),
    "Sandbox.update_network": lambda w, c: w.sandbox.update_network({"allow_internet_access": False}, **c),
    "Sandbox.beta_pause": lambda w, c: w.sandbox.beta_pause(**c),
    "Sandbox.pause": lambda w, c: w.sandbox.pause(**c),
    "Sandbox.resume": lambda w, c: w.sandbox.resume(**c),
    "Sandbox.connect": lambda w, c: w.sandbox.connect(**c),
    "Sandbox.kill": lambda w, c: w.sandbox.kill(**c),
}
#: Those that send nothing, and so may be called plainly.
PLAIN: dict[str, Callable[[AsyncSandbox, Common], object]] = {
    "Sandbox.get_host": lambda sandbox, c: sandbox.get_host(80, **c),
    "Sandbox.get_url": lambda sandbox, c: sandbox.get_url(80, **c),
    "Sandbox.download_url": lambda sandbox, c: sandbox.download_url("/tmp/x", **c),
    "Sandbox.upload_url": lambda sandbox, c: sandbox.upload_url(**c),
}


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[AsyncGrotte]:
    async with AsyncGrotte(**engine.options) as made:
        yield made


@pytest.fixture
async def world(client: AsyncGrotte, tmp_path: Path) -> AsyncIterator[World]:
    async with await client.Sandbox.create("base") as sandbox:
        command = await sandbox.commands.run("cat", background=True, stdin=True)
        pty = await sandbox.pty.create()
        watch = await sandbox.files.watch_dir("/home/user")
        (tmp_path / "a").write_text("b")
        await sandbox.files.write("repo/file", "c")
        volume = await client.Volume.create(f"v-{secrets.token_hex(4)}")
        template = client.Template().from_base_image()
        build = await client.Template.build_in_background(template, volume.name)
        yield World(sandbox, command, pty, watch, volume, client.Template, template, build, tmp_path)
        await client.Template.delete(volume.name)
        for info in await client.Volume.list():
            if info.name == volume.name:
                await client.Volume.destroy(info.volume_id)


def test_every_method_is_tried() -> None:
    found = {f"{kind.removeprefix('Async')}.{name}" for kind, name in methods_of(AsyncSandbox.__module__)}
    assert found == CALLS.keys() | PLAIN.keys()


async def test_they_are_accepted(engine: Engine, world: World) -> None:
    common: Common = {"request_timeout": 30, "api_key": engine.api_key}
    for plain in PLAIN.values():
        plain(world.sandbox, common)
    for name, call in CALLS.items():
        try:
            result = await call(world, common)
        except CommandExitException as failure:
            raise AssertionError(f"{name}: {failure.stderr}") from failure
        if name in ("Sandbox.create", "Sandbox.beta_create", "Sandbox.fork"):
            made = result if isinstance(result, list) else [result]
            for sandbox in made:
                await sandbox.kill()


async def refusal(name: str, world: World, wrong: Common) -> str:
    with pytest.raises(InvalidArgumentException) as caught:
        if name in PLAIN:
            PLAIN[name](world.sandbox, wrong)
        else:
            await CALLS[name](world, wrong)
    assert caught.value.request is None
    return str(caught.value)


async def test_wrong_ones_are_refused_before_a_byte_is_sent(client: AsyncGrotte, world: World) -> None:
    before = client.counters
    for wrong in WRONG:
        for name in [*PLAIN, *CALLS]:
            said = await refusal(name, world, wrong)
            assert next(iter(wrong)) in said
            assert "two words" not in said
    after = client.counters
    assert (after.streams_opened, after.bytes_sent) == (before.streams_opened, before.bytes_sent)


async def test_a_name_that_no_method_has(world: World) -> None:
    for call in CALLS.values():
        with pytest.raises(TypeError):
            await call(world, {"request_timeuot": 3})  # type: ignore[typeddict-unknown-key]
