"""Sandboxes that stand ready: how many there are when, who gets them, and that none stays."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from grotte.engine.host import Limits, SandboxHost
from grotte.engine.lifecycle import spares
from grotte.engine.lifecycle.diskguard import DiskGuard
from grotte.engine.lifecycle.network import Network
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Order, Sandbox
from grotte.engine.lifecycle.store import Store
from grotte.engine.lifecycle.templates import BASE, Template
from tests.host.support import children, shell

COUNT = 2
SECONDS = 30


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the engine's own event loop


@dataclass
class Parts:
    """The parts of an engine without its server."""

    host: SandboxHost
    registry: Registry

    async def create(self) -> Sandbox:
        return await self.registry.create(order())

    def spare_ids(self) -> set[str]:
        """Everything that runs and that no client knows of."""
        known = {sandbox.sandbox_id for sandbox in self.registry.all_owned("me")}
        return {guest.sandbox_id for guest in self.host.guests} - known

    async def settled(self, count: int = COUNT) -> set[str]:
        await until(lambda: len(self.spare_ids()) == count and all(g.ready.is_set() for g in self.host.guests))
        await self.proven()
        return self.spare_ids()

    async def proven(self) -> None:
        """Every guest has answered: what was being launched is ready."""
        for guest in self.host.guests:
            await guest.user("root")


def order(**changes: object) -> Order:
    fields: dict[str, object] = {
        "owner": "me", "template": BASE, "timeout": 300, "secure": False,
        "network": Network(internet=False), "metadata": {}, "envs": {},
    }  # fmt: skip
    return Order(**(fields | changes))  # type: ignore[arg-type]  # a table of test values


def command(pid: int) -> str:
    """The command line of a process; nothing for one that is dead."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.01)


@asynccontextmanager
async def engine(data_dir: Path, count: int = COUNT, max_sandboxes: int = 100) -> AsyncIterator[Parts]:
    data_dir.mkdir()
    with Store(data_dir / "state.sqlite") as store:
        async with SandboxHost(data_dir) as host:
            guard = DiskGuard(host, Limits())
            async with Registry(host, store, Limits(), max_sandboxes, count, guard).open() as registry:
                yield Parts(host, registry)


async def test_none_before_the_first_creation_and_as_many_as_said_after_it(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as parts:
        await anyio.sleep(0.1)
        assert parts.host.guests == ()
        await parts.create()
        await parts.settled()


async def test_a_creation_takes_a_spare_which_is_replaced(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as parts:
        await parts.create()
        ready = await parts.settled()
        sandbox = await parts.create()
        assert sandbox.sandbox_id in ready
        told = await shell(sandbox.guest, "cat /proc/sys/kernel/hostname /etc/hostname")
        assert told.out.split() == [sandbox.sandbox_id] * 2
        assert len(await parts.settled()) == COUNT


async def test_creations_at_once_get_different_sandboxes(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as parts:
        await parts.create()
        ready = await parts.settled()
        made: list[str] = []

        async def create() -> None:
            made.append((await parts.create()).sandbox_id)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(create)
        assert len(set(made)) == 8
        assert ready <= set(made)


async def test_no_spares_at_all_when_told_so(tmp_path: Path) -> None:
    async with engine(tmp_path / "data", count=0) as parts:
        await parts.create()
        await anyio.sleep(0.2)
        assert parts.spare_ids() == set()


async def test_spares_are_no_sandboxes_to_the_limit(tmp_path: Path) -> None:
    async with engine(tmp_path / "data", max_sandboxes=2) as parts:
        await parts.create()
        await parts.settled()
        await parts.create()


async def test_a_dead_spare_is_not_handed_out(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as parts:
        await parts.create()
        ready = await parts.settled()
        assert parts.host.launcher_pid is not None
        holders = [pid for pid in children(parts.host.launcher_pid) if any(spare in command(pid) for spare in ready)]
        family = set(holders).union(*map(children, holders))
        for pid in holders:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(command(pid) for pid in family))
        sandbox = await parts.create()
        assert sandbox.sandbox_id not in ready
        assert (await shell(sandbox.guest, "echo lives")).out == "lives\n"
        folder = tmp_path / "data/host/sandboxes"
        await until(lambda: not any((folder / spare).exists() for spare in ready))


async def test_they_go_when_nobody_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "UNUSED", 0.5)
    async with engine(tmp_path / "data") as parts:
        sandbox = await parts.create()
        await parts.settled()
        await parts.settled(0)
        assert [guest.sandbox_id for guest in parts.host.guests] == [sandbox.sandbox_id]


async def test_they_go_soon_after_the_last_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "QUIET", 0.5)
    async with engine(tmp_path / "data") as parts:
        sandbox = await parts.create()
        await parts.settled()
        await parts.registry.kill(sandbox)
        await until(lambda: parts.host.guests == ())
        await until(lambda: list((tmp_path / "data/host/sandboxes").iterdir()) == [])


async def test_few_kinds_are_kept_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "MAX_KINDS", 1)
    async with engine(tmp_path / "data") as parts:
        await parts.create()
        first = await parts.settled()
        layer = tmp_path / "data/layer"
        (layer / "fs").mkdir(parents=True)
        await parts.registry.create(order(template=Template("other000000000000000", "other", (layer,))))
        await until(lambda: not first & parts.spare_ids())
        await parts.settled()


async def test_the_engines_end_ends_them(tmp_path: Path) -> None:
    async with engine(tmp_path / "data") as parts:
        await parts.create()
        await parts.settled()
        assert parts.host.launcher_pid is not None
        pids = children(parts.host.launcher_pid)
        homes = parts.host.cgroup_homes
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert [home for home in homes if Path(home).exists()] == []
    assert list((tmp_path / "data/host/sandboxes").iterdir()) == []
