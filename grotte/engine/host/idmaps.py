"""Which user ids a sandbox gets, and how an ordinary user maps them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from dataclasses import dataclass

import anyio

from grotte.errors import EngineUnavailableException

IDS = 65536
LAST_ID = IDS - 1
MAP_SECONDS = 20
REMEDY = "on Debian: apt-get install uidmap, then: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"


@dataclass(frozen=True)
class Range:
    """Subordinate ids that a user may map."""

    start: int
    count: int


@dataclass(frozen=True)
class SubIds:
    """The subordinate users and groups of the engine's user."""

    uids: Range
    gids: Range


def find_subids() -> SubIds:
    """Return the ranges of the calling user.

    Raises:
        EngineUnavailableException: There are none, or nothing that may map them.
    """
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        raise EngineUnavailableException(f"newuidmap is not installed; {REMEDY}")
    uids, gids = _range("/etc/subuid"), _range("/etc/subgid")
    if uids is None or gids is None:
        raise EngineUnavailableException(f"this user has no subordinate ids in /etc/subuid and /etc/subgid; {REMEDY}")
    return SubIds(uids, gids)


def _range(path: str) -> Range | None:
    uid = os.getuid()
    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            name, _, rest = line.strip().partition(":")
            start, _, count = rest.partition(":")
            if name in names and start.isdigit() and count.isdigit() and int(count) >= 1001:
                return Range(int(start), min(int(count), LAST_ID))
    return None


async def map_launcher(pid: int, subids: SubIds) -> None:
    """Map the user of a process in a fresh user namespace to root inside, and the subordinate ids to all others.

    Raises:
        EngineUnavailableException: The system refused.
    """
    own = (("newuidmap", os.getuid(), subids.uids), ("newgidmap", os.getgid(), subids.gids))
    for program, caller, extra in own:
        numbers = (pid, 0, caller, 1, 1, extra.start, extra.count)
        with anyio.fail_after(MAP_SECONDS):
            result = await anyio.run_process([program, *map(str, numbers)], check=False)
        if result.returncode != 0:
            text = result.stderr.decode(errors="replace").strip()
            raise EngineUnavailableException(f"{program} failed: {text}; {REMEDY}")
