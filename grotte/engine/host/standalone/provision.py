"""What an image needs before steps can run in it: accounts and a few directories. Runs as root of a sandbox."""

from __future__ import annotations

import os
import re
import sys

from .accounts import Accounts
from .wire import RefusedError

NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\$?", re.IGNORECASE)
FIRST_ID, LAST_ID, SUDO_ID = 1000, 59999, 27
ROOT = "root:x:0:0:root:/root:/bin/sh\n"
DIRECTORIES = {"/root": 0o700, "/home": 0o755, "/var": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108 - made here


def main() -> None:
    """Do what the arguments say; what is wrong is said on stderr, with status 1.

    ``image`` prepares an image, ``user NAME yes|no`` makes sure of an account, ``workdir PATH USER`` of a directory.
    """
    os.umask(0o022)
    what, *rest = sys.argv[1:]
    try:
        if what == "image":
            _prepare()
        elif what == "user":
            ensure_user(rest[0], administrator=rest[1] == "yes")
        else:
            _make_workdir(*rest)
    except RefusedError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(f"{error.filename or what}: {error.strerror}")


def _prepare() -> None:
    for path, mode in DIRECTORIES.items():
        if not os.path.lexists(path):
            os.mkdir(path)
            os.chmod(path, mode)
    os.makedirs("/etc", exist_ok=True)
    for path, text in (("/etc/passwd", ROOT), ("/etc/group", "root:x:0:\n")):
        if not os.path.exists(path):
            _append(path, text)
    ensure_user("user", administrator=True)


def ensure_user(name: str, *, administrator: bool) -> None:
    """Make an account with a home and a group of its own, unless there is one.

    Raises:
        RefusedError: It is no name of a user.
    """
    accounts = Accounts()
    if name.isdecimal():
        return  # a number needs no account
    if not NAME.fullmatch(name):
        raise RefusedError("invalid_argument", f"not a user name: {name!r}")
    try:
        accounts.user(name)
    except RefusedError:
        _add_user(name)
    if administrator and name != "root":
        _add_to_group("sudo", name)


def _add_user(name: str) -> None:
    taken = _numbers("/etc/passwd", 2) | _numbers("/etc/group", 2)
    number = next(i for i in range(FIRST_ID, LAST_ID) if i not in taken)
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    home = f"/home/{name}"
    _append("/etc/group", f"{name}:x:{number}:\n")
    _append("/etc/passwd", f"{name}:x:{number}:{number}:{name}:{home}:{shell}\n")
    if os.path.exists("/etc/shadow"):
        _append("/etc/shadow", f"{name}:*:19000:0:99999:7:::\n")
    if not os.path.lexists(home):
        os.makedirs(home)
        os.chown(home, number, number)


def _numbers(path: str, field: int) -> set[int]:
    return {int(f[field]) for f in _fields(path) if len(f) > field and f[field].isdecimal()}


def _fields(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rstrip("\n").split(":") for line in file]
    except FileNotFoundError:
        return []


def _append(path: str, line: str) -> None:
    """Add a line to a file that may lack its last newline."""
    with open(path, "a+b") as file:
        size = file.tell()
        if size:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())


def _add_to_group(group: str, name: str) -> None:
    rows = _fields("/etc/group")
    for row in rows:
        if row[0] == group and len(row) > 3:
            members = [member for member in row[3].split(",") if member]
            if name in members:
                return
            row[3] = ",".join([*members, name])
            break
    else:
        taken = _numbers("/etc/group", 2)
        number = next(i for i in (SUDO_ID, *range(100, 999)) if i not in taken)
        rows.append([group, "x", str(number), name])
    with open("/etc/group", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(":".join(row) + "\n" for row in rows)


def _make_workdir(path: str, user: str) -> None:
    """Make a directory with its parents; a new one belongs to the user."""
    if os.path.isdir(path):
        return
    account = Accounts().user(user)
    os.makedirs(path)
    os.chown(path, account.uid, account.gid)
