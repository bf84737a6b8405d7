"""Without root: the same programs run, in sandboxes of an ordinary user."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grotte import Sandbox
from tests.support.census import left_since, take_census
from tests.support.engine import running_engine
from tests.support.ordinary_user import ROOT, OrdinaryUser, ordinary_user


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as someone:
        yield someone


def test_doctor_says_that_sandboxes_run_here(user: OrdinaryUser) -> None:
    done = user.run(sys.executable, "-m", "grotte", "doctor", "--data-dir", str(user.home / "doctor"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_quickstart_runs(user: OrdinaryUser) -> None:
    variables = ["GROTTE_API_URL=local", f"XDG_RUNTIME_DIR={user.home}", "GROTTE_ENGINE_IDLE_SECONDS=1"]
    done = user.run("env", *variables, sys.executable, str(ROOT / "examples" / "quickstart.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("'Hello\\n'") == 3


def owners_of(command_line: bytes) -> set[int]:
    """The users, as the machine sees them, of the processes with this command line."""
    until = time.monotonic() + 60
    found: set[int] = set()
    while not found and time.monotonic() < until:  # a forked shell has yet to become the command
        for pid in [path for path in Path("/proc").iterdir() if path.name.isdigit()]:
            with contextlib.suppress(OSError):
                if (pid / "cmdline").read_bytes() == command_line:
                    found.add(pid.stat().st_uid)
    return found


def test_sandboxes_are_isolated_and_leave_nothing(user: OrdinaryUser) -> None:
    data_dir = user.home / "data"
    before = take_census(data_dir)
    with running_engine(data_dir, become=user.command()) as engine:
        with Sandbox.create("base", **engine.options) as sandbox:
            assert sandbox.commands.run("id -un; id -u").stdout == "user\n1000\n"
            assert sandbox.commands.run("id -u", user="root").stdout == "0\n"
            seen = sandbox.commands.run("ls /home; ls /root", check=False, user="root")
            assert seen.stdout == "user\n"
            sandbox.commands.run("sleep 12.34 >/dev/null 2>&1 &", user="root")
            assert owners_of(b"sleep\x0012.34\0") == {user.uid}
        assert engine.stop() == 0
    assert left_since(before, data_dir) == {}


def test_pause_snapshots_and_sudo(user: OrdinaryUser) -> None:
    with running_engine(user.home / "paused", become=user.command()) as engine:
        with Sandbox.create("base", **engine.options) as sandbox:
            assert sandbox.commands.run("sudo id -u").stdout == "0\n"
            handle = sandbox.commands.run("read word; echo $word $$", background=True, stdin=True)
            assert sandbox.pause()
            sandbox = Sandbox.connect(sandbox.sandbox_id, **engine.options)
            sandbox.commands.send_stdin(handle.pid, "kept\n")
            sandbox.commands.run("echo one > ~/file")
            reference = sandbox.create_snapshot().snapshot_id
            sandbox.commands.run("echo two > ~/file")
            assert sandbox.commands.run("ps -eo stat= | grep -c T", check=False).stdout == "0\n"
            with Sandbox.create(reference, **engine.options) as copy:
                assert copy.commands.run("cat ~/file").stdout == "one\n"
            assert sandbox.commands.run("cat ~/file").stdout == "two\n"
        assert engine.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without subordinate ids")
def test_without_subordinate_ids_doctor_says_what_to_do() -> None:
    nobody = OrdinaryUser("nobody", 65534, Path("/"))
    done = nobody.run(sys.executable, "-m", "grotte", "doctor", "--data-dir", "/var/tmp/grotte-nobody")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "/etc/subuid" in done.stdout
