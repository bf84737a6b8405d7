"""Going on with the files of a sandbox: its name and its hosts are written anew, whatever lies where they belong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grotte.engine.host import Guest, SandboxHost, SandboxSpec
from grotte.engine.host.standalone.namespaces import DATA
from tests.host.support import shell

NAMES = ("hostname", "hosts", "resolv.conf")
AWAY = "cp -a /etc /moved && rm -rf /etc"


@pytest.fixture
async def neighbour(host: SandboxHost) -> AsyncIterator[Guest]:
    """A sandbox with a directory that everybody may write to."""
    guest = await host.launch(SandboxSpec("neighbour"))
    await shell(guest, "mkdir /open && echo mine > /open/hosts && chmod 777 /open && chmod 666 /open/hosts", "root")
    yield guest
    await guest.kill()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """The same on the host."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)
    room = tmp_path / "open"
    room.mkdir()
    (room / "hosts").write_text("mine\n")
    room.chmod(0o777)
    (room / "hosts").chmod(0o666)
    return room


async def go_on_after(host: SandboxHost, script: str, look: str) -> None:
    """Let root inside do something, put the sandbox away, go on with its files, and look at them."""
    guest = await host.launch(SandboxSpec("again"))
    try:
        done = await shell(guest, script, user="root")
        assert done.status.code == 0, done
        await host.put_away("again")
        guest = await host.launch(SandboxSpec("again", on_kept_files=True))
        shown = await shell(guest, f"cat /etc/hostname /etc/hosts; {look}", "root")
        assert shown.out == "again\n127.0.0.1 localhost again\n::1 localhost ip6-localhost\n", shown
        assert shown.status.code == 0, shown
    finally:
        await host.put_away("again")
        await host.discard("again")


@pytest.mark.parametrize("place", ["a neighbour's", "the host's"])
@pytest.mark.parametrize(
    "script",
    [
        f"for name in {' '.join(NAMES)}; do ln -sfn PLACE/$name /etc/$name; done",
        f"{AWAY}; ln -s PLACE /etc",
        f"{AWAY}; ln -s PLACE /there && ln -s there /etc",
    ],
)
async def test_links_do_not_lead_out(
    host: SandboxHost, neighbour: Guest, open_to_all: Path, place: str, script: str
) -> None:
    # Door: the launcher sees all sandboxes' files when it writes those of one.
    outside = f"{DATA}/host/sandboxes/neighbour/fs/open" if place == "a neighbour's" else str(open_to_all)
    await go_on_after(host, script.replace("PLACE", outside), "test ! -L /etc && test ! -L /etc/hostname")
    assert (await shell(neighbour, "ls /open; cat /open/hosts")).out == "hosts\nmine\n"
    assert [(path.name, path.read_text()) for path in open_to_all.iterdir()] == [("hosts", "mine\n")]


@pytest.mark.parametrize(
    ("script", "look"),
    [
        ("cd /etc && rm hostname resolv.conf && mkdir -p hostname/full resolv.conf", "ls -d /etc/hostname.*/full >&2"),
        ("rm /etc/hosts && mkfifo /etc/hosts", "test -f /etc/hosts"),
        ("chmod 0 /etc/hosts /etc && chown user /etc/hosts /etc && rm /etc/hostname", "true"),
        (AWAY, "ls /moved/passwd >&2"),
        (f"{AWAY}; touch /etc", "true"),
        (f"{AWAY}; ln -s /nowhere /etc", "test ! -e /nowhere"),
        (f"{AWAY}; ln -s etc /etc", "true"),
        (f"{AWAY}; mkfifo /etc", "true"),
    ],
)
async def test_nothing_in_their_way_is_the_end_of_a_sandbox(host: SandboxHost, script: str, look: str) -> None:
    await go_on_after(host, script, look)
