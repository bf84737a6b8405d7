"""What the filesystem service says about one file."""

from __future__ import annotations

import os
import stat
import time

from .accounts import Accounts
from .lean import suppress
from .wire import Json

METADATA_PREFIX = "user.e2b."
FIRST_TIME, LAST_TIME = -62135596800, 253402300799  # files may claim others

_TYPE_LETTERS = {stat.S_IFDIR: "d", stat.S_IFLNK: "L", stat.S_IFIFO: "p", stat.S_IFSOCK: "S", stat.S_IFBLK: "D"}
_TYPE_LETTERS[stat.S_IFCHR] = "D"


def describe(path: str, accounts: Accounts) -> Json:
    """Describe a file without following it, in the terms of ``EntryInfo``.

    Raises:
        OSError: There is no such file.
    """
    info = os.lstat(path)
    is_link = stat.S_ISLNK(info.st_mode)
    target = _target(path) if is_link else info
    entry: Json = {
        "name": printable(os.path.basename(path.rstrip("/")) or "/"),
        "type": _type(target),
        "path": printable(path),
        "size": info.st_size,
        "mode": target.st_mode & 0o777 if target else 0,
        "permissions": permissions(info.st_mode),
        "owner": accounts.user_name(info.st_uid),
        "group": accounts.group_name(info.st_gid),
        "modified_time": timestamp(info.st_mtime_ns),
        "is_symlink": is_link,
        "metadata": metadata(path),
    }
    if is_link:
        entry["symlink_target"] = printable(_resolved(path))
    return entry


def printable(text: str) -> str:
    """Replace what is not UTF-8: file names are bytes, the wire's strings are not."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _target(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError:
        return path


def _type(info: os.stat_result | None) -> str:
    if info is not None and stat.S_ISREG(info.st_mode):
        return "FILE_TYPE_FILE"
    if info is not None and stat.S_ISDIR(info.st_mode):
        return "FILE_TYPE_DIRECTORY"
    return "FILE_TYPE_UNSPECIFIED"


def permissions(mode: int) -> str:
    """Write a mode as Go's ``FileMode`` does: ``-rw-r--r--``, ``dtrwxrwxrwx``, ``Lrwxrwxrwx``, ``Dcrw-rw-rw-``."""
    letters = _TYPE_LETTERS.get(stat.S_IFMT(mode), "")
    letters += "u" if mode & stat.S_ISUID else ""
    letters += "g" if mode & stat.S_ISGID else ""
    letters += "c" if stat.S_ISCHR(mode) else ""
    letters += "t" if mode & stat.S_ISVTX else ""
    bits = "".join(letter if mode & (0o400 >> index) else "-" for index, letter in enumerate("rwxrwxrwx"))
    return (letters or "-") + bits


def timestamp(nanoseconds: int) -> str:
    """Write a time as proto3-JSON does: UTC, with 0, 3, 6 or 9 fractional digits, of the years 1 to 9999."""
    seconds, fraction = divmod(min(max(nanoseconds, FIRST_TIME * 10**9), LAST_TIME * 10**9), 10**9)
    moment = time.gmtime(seconds)
    text = f"{moment.tm_year:04}-" + time.strftime("%m-%dT%H:%M:%S", moment)
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def metadata(path: str) -> dict[str, str]:
    """Return the extended attributes that hold a file's metadata."""
    found = {}
    try:
        for name in os.listxattr(path):
            if name.startswith(METADATA_PREFIX):
                with suppress(UnicodeDecodeError):  # the wire has no place for what is no text
                    key = os.fsencode(name).decode()
                    found[key[len(METADATA_PREFIX) :]] = os.getxattr(path, name).decode()
    except OSError:  # no such support here
        pass
    return found
