"""Template ``debian``: a small Debian made of its packages, where those can be had."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import anyio
from anyio import to_thread

from grotte.engine.images import programs
from grotte.engine.images.reference import ImageError

MAKE_SECONDS = 1800.0
#: What people expect beside the packages that nothing works without.
PACKAGES = ("ca-certificates", "curl", "procps")


def suite() -> str:
    """Which Debian: this machine's, if it is one, or the stable one."""
    try:
        known = platform.freedesktop_os_release()
    except OSError:
        known = {}
    return known.get("VERSION_CODENAME", "stable") if known.get("ID") == "debian" else "stable"


async def make(room: Path, say: programs.OnLine) -> Path:
    """An archive of the root file system.

    Raises:
        ImageError: it could not be made.
    """
    program = programs.find("mmdebstrap", "mmdebstrap", "template 'debian'")
    target = room / "debian.tar"
    command = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=tar", suite(), "-"]
    envs = {}
    if os.geteuid() == 0:  # otherwise its files belong to ids that must get through to them, and only it can remove
        (room / "tmp").mkdir(exist_ok=True)
        envs["TMPDIR"] = str(room / "tmp")
    try:
        await programs.run(command, say, seconds=MAKE_SECONDS, envs=envs, output=target)
    except ImageError as error:
        raise ImageError(f"template 'debian' is made of Debian's packages, which could not be had: {error}") from None
    finally:
        with anyio.CancelScope(shield=True):  # one tree, which nobody writes to any more
            await to_thread.run_sync(_remove, room / "tmp")
    return target


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
