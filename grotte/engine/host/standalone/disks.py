"""A disk of limited size for what a sandbox writes: a file that holds a file system, mounted by the launcher.

Everything of the sandbox lies on it, so that neither its bytes nor its files can be more than it holds. The file grows
with what is written, and shrinks again with what is removed. Only root may mount one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from . import syscalls
from .namespaces import DATA, ROOT_BASE

IMAGE = "disk.img"
PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"
#: How many bytes there are for each file that it can hold, and how many its journal takes.
BYTES_PER_FILE, JOURNAL_MIB = 8192, 4
SECONDS = 60


def home_of(sandbox_id: str) -> str:
    """Return where the files of a sandbox lie: on its disk, if it has one."""
    place = place_of(sandbox_id)
    return f"{place}/disk" if os.path.exists(f"{place}/{IMAGE}") else place


def place_of(sandbox_id: str) -> str:
    """Return the directory of a sandbox."""
    return f"{DATA}/host/sandboxes/{sandbox_id}"


def attach(sandbox_id: str, size: int) -> None:
    """Make a sandbox's disk if it has none, and mount it if it is not; do nothing for one that is to have none.

    Raises:
        OSError: It could not be made or mounted.
    """
    place = place_of(sandbox_id)
    image, disk = f"{place}/{IMAGE}", f"{place}/disk"
    if not os.path.exists(image):
        if not size or os.path.exists(place):  # what began without goes on without
            return
        os.makedirs(disk, mode=0o711)
        os.chmod(place, 0o711)  # noqa: S103 - the sandbox's root must get through
        _format(image, size)
    if not os.path.ismount(disk):
        _run("mount", "-o", "loop,discard,noatime,nosuid,nodev", image, disk)


def detach(sandbox_id: str) -> None:
    """Unmount a sandbox's disk, if it has one that is mounted."""
    with contextlib.suppress(OSError):
        syscalls.umount(f"{place_of(sandbox_id)}/disk")


def why_not(privileged: bool) -> str:
    """Return what keeps sandboxes from having disks of their own here, or nothing."""
    if not privileged:
        return "only root may mount them"
    missing = [name for name in ("mkfs.ext4", "mount") if shutil.which(name, path=PLACES) is None]
    if missing:
        return f"{missing[0]} is not installed"
    return "" if os.path.exists("/dev/loop-control") else "there are no loop devices"


def _format(image: str, size: int) -> None:
    fresh = f"{image}.new"
    with open(fresh, "wb") as file:
        os.truncate(file.fileno(), size)
    owner = f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={ROOT_BASE}:{ROOT_BASE}"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-i", str(BYTES_PER_FILE), "-J", f"size={JOURNAL_MIB}", "-E", owner, fresh)
    os.rename(fresh, image)


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=PLACES) or command[0]
    environment = {"PATH": PLACES, "LC_ALL": "C"}
    try:
        subprocess.run(
            [program, *command[1:]], check=True, capture_output=True, timeout=SECONDS, env=environment, cwd="/"
        )
    except subprocess.SubprocessError as error:
        output = getattr(error, "stderr", b"") or b""
        raise OSError(f"{command[0]} failed: {output.decode(errors='replace').strip()}") from None
