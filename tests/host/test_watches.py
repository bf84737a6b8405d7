"""Watches on directories of a sandbox: what they tell of, in which order, and what they do when there is too much."""

from __future__ import annotations

import os

import anyio
import pytest

from grotte.engine.host import Guest, GuestError, SandboxHost, SandboxSpec, Watch
from tests.host.support import SECONDS, shell

Seen = list[tuple[str, str]]


async def do(box: Guest, script: str) -> None:
    result = await shell(box, f"cd /tmp/w; {script}")
    assert result.status.code == 0, result


@pytest.fixture
async def watched(box: Guest) -> Guest:
    await box.make_dir("/tmp/w", "user")
    return box


async def seen(watch: Watch) -> Seen:
    return [(event.type.removeprefix("EVENT_TYPE_"), event.name) for event in await watch.take()]


async def test_one_event_after_the_other(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user")
    assert await seen(watch) == []
    await do(watched, "echo x > a")
    assert await seen(watch) == [("CREATE", "a"), ("WRITE", "a")]
    await do(watched, "chmod 600 a")
    assert await seen(watch) == [("CHMOD", "a")]
    await do(watched, "mv a b; rm b; mkdir d; rmdir d")
    assert await seen(watch) == [
        ("RENAME", "a"),
        ("CREATE", "b"),
        ("REMOVE", "b"),
        ("CREATE", "d"),
        ("REMOVE", "d"),
    ]
    assert await seen(watch) == []


async def test_what_comes_from_outside_and_goes_there(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user")
    await do(watched, "echo x > /tmp/out; mv /tmp/out in; mv in /tmp/out")
    assert await seen(watch) == [("CREATE", "in"), ("RENAME", "in")]


async def test_below_only_when_asked(watched: Guest) -> None:
    await do(watched, "mkdir -p d/e")
    flat = await watched.watch("/tmp/w", "user")
    deep = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "touch d/e/f; chmod 700 d/e")
    assert await seen(flat) == []
    assert await seen(deep) == [("CREATE", "d/e/f"), ("CHMOD", "d/e/f"), ("CHMOD", "d/e")]


async def test_directories_that_are_made_later(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "mkdir -p a/b/c")
    await do(watched, "touch a/b/c/f a/g; rm -r a")
    found = await seen(watch)
    for name in ("a", "a/b", "a/b/c", "a/b/c/f", "a/g"):
        assert found.count(("CREATE", name)) == 1, found
        assert found.count(("REMOVE", name)) == 1, found


async def test_nothing_in_a_fast_tree_is_missed_or_told_twice(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "for i in $(seq 40); do mkdir -p $i/x/y; : > $i/f; : > $i/x/y/f; done")
    found = await seen(watch)
    for number in range(1, 41):
        for name in (f"{number}", f"{number}/x", f"{number}/x/y", f"{number}/f", f"{number}/x/y/f"):
            assert found.count(("CREATE", name)) == 1, name


async def test_a_renamed_directory_is_watched_under_its_new_name(watched: Guest) -> None:
    await do(watched, "mkdir -p old/deep other")
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "mv old new; : > new/deep/f; mv new /tmp/away; : > /tmp/away/deep/g; mv /tmp/away back")
    assert await seen(watch) == [
        ("RENAME", "old"),
        ("CREATE", "new"),
        ("CREATE", "new/deep/f"),
        ("RENAME", "new"),
        ("CREATE", "back"),
    ]
    await do(watched, ": > back/h")  # a directory that has just come back is watched a moment later
    assert await seen(watch) == [("CREATE", "back/h")]


async def test_what_left_the_tree_is_not_watched(watched: Guest) -> None:
    await do(watched, "mkdir d")
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "mv d /tmp/gone")
    assert await seen(watch) == [("RENAME", "d")]
    await do(watched, "touch /tmp/gone/f")
    assert await seen(watch) == []


async def test_links_are_not_followed_below(watched: Guest) -> None:
    await do(watched, "mkdir /tmp/elsewhere; ln -s /tmp/elsewhere link; ln -s . loop")
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "touch /tmp/elsewhere/f")
    assert await seen(watch) == []


async def test_the_end_of_the_directory_itself(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "chmod 700 .; rmdir /tmp/w")
    assert await seen(watch) == [("CHMOD", "."), ("REMOVE", ".")]
    assert await seen(watch) == []


async def test_an_upload_looks_like_a_plain_write(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", recursive=True, entries=True)
    for _ in range(2):
        slot = await watched.open_write("/tmp/w/sub/f", "user")
        os.write(slot.fd, b"12345")
        os.close(slot.fd)
        await watched.commit(slot)
    aborted = await watched.open_write("/tmp/w/sub/g", "user")
    os.close(aborted.fd)
    await watched.abort(aborted)
    events = [event for event in await watch.take() if event.name != "sub"]
    assert {event.name for event in events} == {"sub/f"}
    kinds = [event.type.removeprefix("EVENT_TYPE_") for event in events]
    assert kinds[-3:] == ["WRITE", "CHMOD", "WRITE"]
    assert kinds[0] == "CREATE"
    assert events[-1].entry is not None
    assert (events[-1].entry.path, events[-1].entry.size) == ("/tmp/w/sub/f", 5)


async def test_entries(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", entries=True)
    await do(watched, "echo x > a; chmod 640 a; echo y > b; mv a c; rm b")
    entries = {(event.type, event.name): event.entry for event in await watch.take()}
    created = entries["EVENT_TYPE_CREATE", "c"]
    assert created is not None
    assert (created.name, created.path, created.permissions) == ("c", "/tmp/w/c", "-rw-r-----")
    for gone in (("EVENT_TYPE_RENAME", "a"), ("EVENT_TYPE_REMOVE", "b")):
        assert entries[gone] is None


async def test_what_cannot_be_watched(watched: Guest) -> None:
    await do(watched, "touch file")
    for path, code in (("/no/such", "not_found"), ("/tmp/w/file", "invalid_argument"), ("~bob", "invalid_argument")):
        with pytest.raises(GuestError) as refused:
            await watched.watch(path, "user")
        assert refused.value.code == code


async def test_the_bell_rings(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user")
    assert await seen(watch) == []
    with anyio.fail_after(SECONDS):
        for number in range(5):
            await do(watched, f"mkdir {number}")
            found: Seen = []
            while not found:
                await watch.wait()
                found = await seen(watch)
            assert found == [("CREATE", f"{number}")]


async def test_too_much_is_said_and_not_kept(watched: Guest) -> None:
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    other = await watched.watch("/tmp", "user")
    await do(watched, "i=0; while [ $i -lt 20000 ]; do echo > a; echo > b; i=$((i+1)); done")
    with anyio.fail_after(SECONDS), pytest.raises(GuestError, match="lost") as lost:
        while True:
            await watch.take()
    assert lost.value.code == "internal"
    await do(watched, "touch /tmp/after")
    if (await seen(other)) != [("CREATE", "after"), ("CHMOD", "after")]:  # the kernel's own queue overflowed
        with pytest.raises(GuestError, match="lost"):
            await other.take()
    watch.close()
    with pytest.raises(GuestError) as gone:
        await watch.take()
    assert gone.value.code == "not_found"


async def test_there_is_an_end_of_watches(watched: Guest) -> None:
    watches = []
    with pytest.raises(GuestError) as refused:
        for _ in range(1000):
            watches.append(await watched.watch("/tmp/w", "user"))
    assert refused.value.code == "resource_exhausted"
    watches[0].close()
    await do(watched, "touch f")
    assert await seen(watches[1]) == [("CREATE", "f"), ("CHMOD", "f")]
    await watched.watch("/tmp/w", "user")


async def test_a_deep_tree(watched: Guest) -> None:
    await do(watched, "i=0; while [ $i -lt 1500 ]; do mkdir d; cd d || exit 1; i=$((i+1)); done")
    watch = await watched.watch("/tmp/w", "user", recursive=True)
    await do(watched, "cd $(for i in $(seq 1200); do printf d/; done); touch f")
    assert [name for kind, name in await seen(watch) if kind == "CREATE"] == ["d/" * 1200 + "f"]


async def test_what_is_closed_even_to_root_is_left_out(watched: Guest) -> None:
    """Some of /proc is."""
    (await watched.watch("/proc", "root", recursive=True)).close()
    watch = await watched.watch("/", "root", recursive=True)
    await do(watched, "touch a")
    assert ("CREATE", "tmp/w/a") in await seen(watch)


async def test_a_cancelled_call_leaves_no_watch(watched: Guest) -> None:
    for turn in range(300):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(watched.watch, "/tmp/w", "user")
                for _ in range(turn % 4):
                    await anyio.sleep(0)
                scope.cancel()
        await watched.stat("/", "user")  # the guest is not to fall behind
    for _ in range(200):
        await watched.watch("/tmp/w", "user")


async def test_the_end_of_the_sandbox_wakes_who_waits(host: SandboxHost) -> None:
    guest = await host.launch(SandboxSpec("watched"))
    watch = await guest.watch("/tmp", "user")
    assert await watch.take() == []
    async with anyio.create_task_group() as group:
        group.start_soon(guest.kill)
        with anyio.fail_after(SECONDS):
            await watch.wait()
    with pytest.raises(GuestError) as gone:
        await watch.take()
    assert gone.value.code == "unavailable"
    watch.close()
