"""What Debian's package manager must know to install more onto the host's /usr: what is there, and where to get more.

Without it every package would be installed anew, the C library first. What only describes files that are not changed
anyway, which is two thirds, is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import stat

DPKG = "/var/lib/dpkg"
SOURCES = ("etc/apt", "etc/dpkg")
NOT_NEEDED = shutil.ignore_patterns(
    "*.md5sums",
    "*.symbols",
    "*-old",
    "lock*",
    "available",
    "updates",
    "auth.conf*",
    "statoverride",  # names users
)
DIRECTORIES = (
    "var/lib/dpkg/updates", "var/lib/apt/lists/partial", "var/lib/apt/periodic", "var/cache/apt/archives/partial",
    "var/cache/debconf", "var/log/apt",
)  # fmt: skip
CREDENTIALS = re.compile(rb"://[^/\s]*@")


def copy(root: str) -> None:
    """Copy it below a root, as far as everybody on the host may read it; nothing where there is no such manager."""
    if not os.path.exists(f"{DPKG}/status"):
        return
    for source in (DPKG[1:], *SOURCES):
        if os.path.isdir(f"/{source}"):
            shutil.copytree(f"/{source}", f"{root}/{source}", True, NOT_NEEDED, copy_public, dirs_exist_ok=True)
    for directory in DIRECTORIES:
        os.makedirs(f"{root}/{directory}", exist_ok=True)


def copy_public(source: str, target: str) -> None:
    """Copy one file, unless it is somebody's secret."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(mode) and mode & 0o004 and not _tells_secrets(source):
        shutil.copyfile(source, target)
        os.chmod(target, mode & 0o755)


def _tells_secrets(source: str) -> bool:
    """Whether a list of sources has somebody's password in it."""
    if not source.startswith("/etc/apt/"):
        return False
    with open(source, "rb") as file:
        return CREDENTIALS.search(file.read()) is not None
