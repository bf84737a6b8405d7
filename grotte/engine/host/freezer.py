"""Stopping all processes of a sandbox at once, and letting them go on: the freezer of either version of cgroups."""

from __future__ import annotations

import contextlib
import os

import anyio

from .spec import HostError

NAME = "freezer"
#: How long processes may take to stop, in seconds: those in the middle of a slow system call take longest.
SECONDS = 10.0
POLL = 0.002


def group_of(groups: list[str]) -> str | None:
    """Return the one of a sandbox's groups that can be frozen."""
    return next((group for group in groups if _version(group)), None)


def _version(group: str) -> int:
    if os.path.exists(f"{group}/freezer.state"):
        return 1
    return 2 if os.path.exists(f"{group}/cgroup.freeze") else 0


async def freeze(group: str) -> None:
    """Stop every process of a group; when this returns, none of them runs.

    Raises:
        HostError: They would not all stop; then they all run.
    """
    try:
        with anyio.fail_after(SECONDS):
            while not _frozen(group):  # noqa: ASYNC110  (version 1 gives no sign)
                await anyio.sleep(POLL)
    except BaseException as error:
        release(group)
        if isinstance(error, (TimeoutError, OSError)):
            raise HostError("the processes of the sandbox could not be stopped") from error
        raise


def _frozen(group: str) -> bool:
    """Ask for it, as often as it takes (version 1 may give up on the way); tell whether it is done."""
    if _version(group) == 1:
        _write(f"{group}/freezer.state", "FROZEN")
        return _read(f"{group}/freezer.state") == "FROZEN"
    _write(f"{group}/cgroup.freeze", "1")
    return "frozen 1" in _read(f"{group}/cgroup.events").splitlines()


def release(group: str) -> None:
    """Let the processes of a group go on; of one that is gone already, nothing."""
    for file, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        if os.path.exists(f"{group}/{file}"):
            with contextlib.suppress(OSError):
                _write(f"{group}/{file}", value)


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
