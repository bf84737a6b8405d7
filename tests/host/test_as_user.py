"""All tests of this folder once more, as an ordinary user, where the first time was as root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import small_disk
from tests.support.peer import VARIABLE, running_peer

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the tests run as an ordinary user already"),
    pytest.mark.timeout(850),  # a whole folder of tests
]

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 800
# Systems with a device manager let every user open it; here that is so in a mount namespace of the tests' own.
# A small disk of theirs can only be memory.
SMALL_DISK = "mount -t tmpfs -o size=192m,nr_inodes=16k,mode=1777 small /media"
OPEN_TUN = "mount -t tmpfs -o mode=755 tun /dev/net && mknod -m 666 /dev/net/tun c 10 200"
NOT_COPIED = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "*.a", "config-*", "ensurepip")


@pytest.fixture(scope="module")
def ordinary_user() -> Iterator[pwd.struct_passwd]:
    """A user made for these tests, with subordinate ids as every new user gets them."""
    name = f"grotte{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", name], check=True, timeout=30)
    try:
        if f"{name}:" not in Path("/etc/subuid").read_text():
            ranges = ["--add-subuids", "1000000-1065535", "--add-subgids", "1000000-1065535"]
            subprocess.run(["usermod", *ranges, name], check=True, timeout=30)
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--remove", "--force", name], check=True, timeout=120, capture_output=True)


@pytest.fixture(scope="module")
def project(ordinary_user: pwd.struct_passwd) -> tuple[list[str], dict[str, str]]:
    """An interpreter and a copy of the project that the user may read, wherever the originals are."""
    home = Path(ordinary_user.pw_dir)
    prefix = Path(sys.base_prefix)
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(prefix / library, home / "python" / library, ignore=NOT_COPIED)
    (home / "python" / "bin").mkdir()
    executable = Path(os.path.realpath("/proc/self/exe"))
    shutil.copy(executable, home / "python" / "bin" / "python3")
    for shared in prefix.glob("lib/libpython3*"):
        shutil.copy(shared, home / "python" / "lib")
    packages = [Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    for path in packages:
        shutil.copytree(path, home / "packages", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("grotte", "tests", "pyproject.toml"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, home / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, home / "project" / name)
    subprocess.run(["chown", "-R", f"{ordinary_user.pw_uid}:{ordinary_user.pw_gid}", home], check=True, timeout=60)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LD_LIBRARY_PATH": str(home / "python" / "lib"),
        "PYTHONPATH": f"{home}/project:{home}/packages",
        "PYTHONHOME": str(home / "python"),
    }
    return [str(home / "python" / "bin" / "python3")], environment


def test_everything_as_an_ordinary_user(
    ordinary_user: pwd.struct_passwd, project: tuple[list[str], dict[str, str]]
) -> None:
    python, environment = project
    home = Path(ordinary_user.pw_dir)
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--basetemp={home}/tmp", "tests/host"]
    become = ["setpriv", f"--reuid={ordinary_user.pw_uid}", f"--regid={ordinary_user.pw_gid}", "--clear-groups"]
    apart = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        f'{OPEN_TUN} && {SMALL_DISK} && exec "$@"',
        "sh",
    ]
    with running_peer() as peer:
        result = subprocess.run(
            [*apart, *become, *python, *arguments],
            cwd=home / "project",
            env=environment | {VARIABLE: f"{peer.cable} {peer.net}", small_disk.VARIABLE: "/media"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-5_000:]
    assert " passed" in result.stdout
