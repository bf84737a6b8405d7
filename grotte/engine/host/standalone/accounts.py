"""The sandbox's users and groups, read from its own files: no libc lookups, so that any image works."""

from __future__ import annotations

import posix

from .wire import RefusedError

MAX_FILE = 1 << 20
MAX_KNOWN = 256
NO_ID, MAX_DIGITS = 2**32 - 1, 10
ADMINISTRATORS = ("sudo", "wheel", "admin")
#: Programs start with this search path, as on every Debian.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account:
    """One line of /etc/passwd."""

    # Written out: importing typing or dataclasses would be a third of the time in which the guest starts.
    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home

    def variables(self) -> dict[str, str]:
        """Return the first variables of this user's processes; all others may override them."""
        return {"PATH": PATH, "HOME": self.home, "USER": self.name, "LOGNAME": self.name}


class _Table:
    """What a file said when it was read.

    Attributes:
        key: Tells whether it has changed since.
        lines: Those that make sense, each in its fields.
        users: The accounts by the names that were asked for.
        groups: The same of the groups of users.
    """

    __slots__ = ("groups", "key", "lines", "users")

    def __init__(self, key: tuple[int, int], lines: list[list[str]]) -> None:
        self.key = key
        self.lines = lines
        self.users: dict[str, Account] = {}
        self.groups: dict[tuple[str, int], list[int]] = {}


class Accounts:
    """Lookups in /etc/passwd and /etc/group, reread when they change."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}

    def user(self, name: str) -> Account:
        """Return a user by name, or by a number that need not have one; root is there even where no file says so.

        Raises:
            RefusedError: There is no such user.
        """
        table = self._table("/etc/passwd")
        if name in table.users:
            return table.users[name]
        for fields in table.lines:
            if fields[0] == name and name and len(fields) >= 6:
                home = fields[5] if fields[5].startswith("/") else "/"
                account = Account(name, int(fields[2]), int(fields[3]), home)
                table.users[name] = account
                return account
        if name == "root":
            return Account(name, 0, 0, "/root")
        if name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS and int(name) < NO_ID:
            return self.by_id(int(name))
        raise RefusedError("unauthenticated", f"invalid username: '{name}'")

    def by_id(self, uid: int) -> Account:
        """Return a user by id, which need not have a name."""
        name = self.user_name(uid)
        return self.user(name) if name != str(uid) else Account(name, uid, uid, "/")

    def group_id(self, group: str) -> int:
        """Return a group's id by its name, or by its number after ``#``.

        Raises:
            RefusedError: There is no such group.
        """
        for fields in self._lines("/etc/group", 3):
            if group in (fields[0], f"#{fields[2]}"):
                return int(fields[2])
        raise RefusedError("not_found", f"unknown group {group}")

    def may_become_root(self, uid: int) -> bool:
        """Whether ``sudo`` works for a user: root, the default user, and the members of the groups made for that."""
        name = self.user_name(uid)
        if uid == 0 or name == "user":
            return True
        return any(f[0] in ADMINISTRATORS and name in f[3].split(",") for f in self._lines("/etc/group", 4))

    def groups(self, account: Account) -> list[int]:
        """Return the ids of all groups of a user."""
        table = self._table("/etc/group")
        found = table.groups.get((account.name, account.gid))
        if found is None:
            named = [f for f in table.lines if len(f) >= 4 and account.name in f[3]]
            extra = [int(f[2]) for f in named if account.name in f[3].split(",")]
            found = sorted({account.gid, *extra})
            if len(table.groups) < MAX_KNOWN:
                table.groups[account.name, account.gid] = found
        return found

    def user_name(self, uid: int) -> str:
        """Return the name of a user id, or the id as text."""
        return self._name("/etc/passwd", uid)

    def group_name(self, gid: int) -> str:
        """Return the name of a group id, or the id as text."""
        return self._name("/etc/group", gid)

    def _name(self, path: str, number: int) -> str:
        text = str(number)
        return next((fields[0] for fields in self._lines(path, 3) if fields[2] == text), text)

    def _lines(self, path: str, fields: int) -> list[list[str]]:
        return [line for line in self._table(path).lines if len(line) >= fields]

    def _table(self, path: str) -> _Table:
        try:
            table = self._tables.get(path)
            if table is None or table.key != _key(posix.stat(path)):
                table = self._tables[path] = _read(path)
        except OSError:
            return _Table((0, 0), [])
        return table


def _key(info: posix.stat_result) -> tuple[int, int]:
    return info.st_mtime_ns, info.st_ino


def _read(path: str) -> _Table:
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        key = _key(posix.fstat(fd))
        text = posix.read(fd, MAX_FILE).decode("utf-8", "replace")
    finally:
        posix.close(fd)
    return _Table(key, [line for line in (raw.split(":") for raw in text.splitlines()) if _sane(line)])


def _sane(fields: list[str]) -> bool:
    """Whether the ids of a line are numbers that exist; the sandbox's root may have written anything there."""
    numbers = fields[2:4] if len(fields) >= 6 else fields[2:3]
    return bool(numbers) and all(n.isascii() and n.isdigit() and int(n) < 2**32 - 1 for n in numbers)
