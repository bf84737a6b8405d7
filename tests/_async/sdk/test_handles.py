"""What stays in its process, what is made by methods and not by calling a class, and what all of it looks like."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from grotte import (
    AsyncFileStreamReader,
    AsyncFleet,
    AsyncGrotte,
    AsyncSandbox,
    AsyncTemplate,
    AsyncVolume,
    CommandExitException,
)
from tests.support.engine import Engine

COPIES: dict[str, Callable[[object], object]] = {"pickle": pickle.dumps, "copy": copy.copy, "deep": copy.deepcopy}


SANDBOX, VOLUME = AsyncSandbox.__name__, AsyncVolume.__name__


async def handles_of(sandbox: AsyncSandbox) -> dict[str, object]:
    """What a program has in hand, with what its refusal to be copied tells to do."""
    return {
        "connect(sandbox_id)": sandbox,
        "commands.connect(pid)": await sandbox.commands.run("exec sleep 60", background=True),
        "pty.connect(pid)": await sandbox.pty.create(),
        "files.watch_dir()": await sandbox.files.watch_dir("/tmp"),
        "with the same options": AsyncGrotte(api_key="k"),
        "next_token": type(sandbox).list(api_key="k"),
        "SharedBudget": AsyncFleet(size=1, api_key="k"),
        "read the file": await sandbox.files.read("/etc/passwd", "stream"),
        "sandbox_id, and call": sandbox.commands,
        "pass on the sandbox_id": sandbox.files,
    }


async def test_who_copies_a_handle_is_told_what_to_do_instead(sandbox: AsyncSandbox) -> None:
    handles = await handles_of(sandbox)
    for way in COPIES.values():
        for says, handle in handles.items():
            with pytest.raises(TypeError, match="cannot be pickled or copied") as caught:
                way(handle)
            assert str(caught.value).startswith(type(handle).__name__)
            assert says in str(caught.value)
    reader = handles["read the file"]
    assert isinstance(reader, AsyncFileStreamReader)
    await reader.aclose()


async def test_a_sandbox_is_found_again_as_the_message_says(sandbox: AsyncSandbox, engine: Engine) -> None:
    handle = await sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
    sandbox_id, pid = pickle.loads(pickle.dumps((sandbox.sandbox_id, handle.pid)))
    again = await (await AsyncSandbox.connect(sandbox_id, **engine.options)).commands.connect(pid)
    await again.send_stdin("it\n")
    assert (await again.wait()).stdout == "got it\n"


async def test_output_may_be_copied(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("echo text", background=True)
    await handle.wait()
    ways: list[Callable[[str], str]] = [copy.copy, copy.deepcopy, lambda text: pickle.loads(pickle.dumps(text))]
    for way in ways:
        twin = way(handle.stdout)
        assert (type(twin), twin) == (str, "text\n")


async def test_a_configuration_never_changes_and_so_is_its_own_copy(sandbox: AsyncSandbox) -> None:
    config = sandbox.connection_config
    assert copy.copy(config) is copy.deepcopy({"x": config})["x"] is config
    with pytest.raises(TypeError, match="options"):
        pickle.dumps(config)


def test_who_calls_a_class_is_told_which_method_makes_one() -> None:
    calls: list[Callable[[], object]] = [
        lambda: AsyncSandbox(),  # type: ignore[call-arg]  # that is the point
        lambda: AsyncSandbox("base"),  # type: ignore[arg-type, call-arg]
        lambda: AsyncSandbox(template="base", timeout=60),  # type: ignore[call-arg]
    ]
    for call in calls:
        with pytest.raises(TypeError, match=rf"{SANDBOX}\.create\(\), or {SANDBOX}\.connect\(sandbox_id\)"):
            call()
    with pytest.raises(TypeError, match=rf"{VOLUME}\.create\(name\)"):
        AsyncVolume("data")  # type: ignore[arg-type, call-arg]


BY_ID = ("kill", "connect", "resume", "pause", "beta_pause", "get_info", "get_metrics", "set_timeout", "refresh_ttl")


@pytest.mark.parametrize("name", [*BY_ID, "fork", "create_snapshot", "set_network", "update_network"])
async def test_a_call_on_the_class_without_an_id_names_the_id(name: str) -> None:
    public = f"{SANDBOX}.{name.removeprefix('beta_')}"
    with pytest.raises(TypeError, match=rf"^{public}\(\) missing .*'sandbox_id'"):
        await getattr(AsyncSandbox, name)()


def test_methods_are_called_by_their_public_names() -> None:
    for call in (AsyncSandbox.get_host, AsyncSandbox.delete_snapshot, AsyncSandbox.create):
        with pytest.raises(TypeError, match=rf"^{SANDBOX}\.[a-z]"):
            call(1, 2, 3, 4, 5, 6, 7, 8, 9)  # type: ignore[call-arg, arg-type]


async def test_a_signal_is_named_with_its_sandbox(sandbox: AsyncSandbox) -> None:
    for line, says in {
        "echo why >&2; kill -SEGV $$": "code -1 (SIGSEGV",
        "echo why >&2; sh -c 'kill -KILL $$'; exit $?": "code 137 (as shells report SIGKILL)",
        "echo why >&2; exit 3": "code 3 in",
    }.items():
        with pytest.raises(CommandExitException, match="why") as caught:
            await sandbox.commands.run(line)
        assert says in str(caught.value)
        assert f"in sandbox {sandbox.sandbox_id}" in str(caught.value)


async def test_a_handle_that_was_killed_says_so(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("exec sleep 60", background=True)
    await handle.kill()
    with pytest.raises(CommandExitException, match=r"SIGKILL\) in sandbox i") as caught:
        await handle.wait()
    assert (caught.value.exit_code, caught.value.stderr, caught.value.error) == (-1, "", "signal: killed")


async def test_representations(sandbox: AsyncSandbox, engine: Engine) -> None:
    where = f"sandbox_id='{sandbox.sandbox_id}'"
    handle = await sandbox.commands.run("exec sleep 60", background=True)
    terminal = await sandbox.pty.create()
    template = AsyncTemplate().from_image("ubuntu:24.04", "me", "hunter2").run_cmd("echo hunter2")
    reader = await sandbox.files.read("/etc/passwd", "stream")
    volume = await AsyncVolume.create("shown", **engine.options)
    await AsyncVolume.destroy(volume.volume_id, **engine.options)
    shown: dict[object, str] = {
        sandbox: f"({where})",
        handle: f"(pid={handle.pid}, {where}, exit_code=None)",
        terminal: f"(pid={terminal.pid}, {where}, exit_code=None)",
        sandbox.commands: f"({where})",
        sandbox.files: f"({where})",
        sandbox.pty: f"({where})",
        sandbox.git: f"({where})",
        await sandbox.files.watch_dir("/tmp"): f"(path='/tmp', {where}, stopped=False)",
        reader: f"({where}, closed=False)",
        volume: f"(volume_id='{volume.volume_id}', name='shown')",
        type(sandbox).list(limit=3, **engine.options): "(limit=3, has_next=True)",
        sandbox.list_snapshots(): "(limit=None, has_next=True)",
        AsyncGrotte(**engine.options): f"(api_url='{engine.url}', domain='grotte.dev')",
        AsyncTemplate(): "(image='parallactic/base', steps=0)",
        AsyncTemplate().from_template("base"): "(template='base', steps=0)",
        template: "(image='ubuntu:24.04', steps=1)",
        template.set_start_cmd("x", "true"): "(image='ubuntu:24.04', steps=1)",
    }
    for thing, text in shown.items():
        assert repr(thing) == type(thing).__name__ + text
        assert engine.api_key not in repr(thing)
    await reader.aclose()
    assert repr(reader).endswith("closed=True)")


async def test_a_process_does_not_show_what_it_was_given_in_secret(sandbox: AsyncSandbox) -> None:
    handle = await sandbox.commands.run("exec sleep 60", background=True, envs={"TOKEN": "hunter2"})
    (found,) = [process for process in await sandbox.commands.list() if process.pid == handle.pid]
    assert found.envs["TOKEN"] == "hunter2"
    assert "sleep 60" in repr(found)
    assert "hunter2" not in repr(found)


async def test_representations_of_fleets(engine: Engine) -> None:
    fleet = AsyncFleet(size=2, **engine.options)
    name = f"{type(fleet).__name__}(fleet_id='{fleet.fleet_id}', size=2, "
    assert repr(fleet) == f"{name}not entered)"
    async with fleet:
        assert repr(fleet) == f"{name}open)"
        results = fleet.map(version, [1])
        assert [result.value if result.ok else result.error async for result in results] == ["1\n"]
        assert repr(results) == f"{type(results).__name__}(workers=2, given=1, closing=False)"
    assert repr(fleet) == f"{name}closed)"


async def version(sandbox: AsyncSandbox, number: int) -> str:
    return (await sandbox.commands.run(f"echo {number}")).stdout
