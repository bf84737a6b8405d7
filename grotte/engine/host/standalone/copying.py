"""COPY, inside a sandbox: the files of a build context, merged into the image as Docker does it.

Runs as root of the sandbox from the guest's interpreter; the archive comes in on stdin. Nothing here can reach beyond
the sandbox: what the archive says about paths is checked all the same, so that a step does what it says.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import stat
import sys
import tarfile
import tempfile

from .accounts import Accounts
from .archives import Archive, ArchiveError
from .wire import RefusedError


class Plan:
    """What a COPY says.

    Attributes:
        source: A path or pattern relative to the context.
        target: Absolute; one that ends with a slash is a directory.
        uid: Whose the copies are.
        gid: The same.
        mode: Permissions of all copies, or None for those that they have.
    """

    __slots__ = ("gid", "mode", "source", "target", "uid")

    def __init__(self, source: str, target: str, owner: str, mode: int | None) -> None:
        self.source = source
        self.target = target
        self.uid, self.gid = owner_ids(owner)
        self.mode = mode


def main() -> None:
    """Copy as the JSON of the last argument says; what is wrong is said on stderr, with status 1."""
    told = json.loads(sys.argv[-1])
    os.umask(0o022)
    try:
        plan = Plan(told["source"], told["target"], told["owner"], told["mode"])
        # In the file system that it goes to, and gone when the step ends, whatever happens.
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=_existing(told["target"])) as room:
            archive = Archive(sys.stdin.buffer, told["limit"])
            _extract(archive, room)
            archive.finish()
            copy(room, plan)
    except RefusedError as error:
        sys.exit(error.message)
    except (ArchiveError, OSError, tarfile.TarError, EOFError, ValueError) as error:
        sys.exit(str(error))


def _existing(target: str) -> str:
    """The nearest directory above a path that exists."""
    top = os.path.dirname(target.rstrip("/")) or "/"
    while not os.path.isdir(top):
        top = os.path.dirname(top)
    return top


def _extract(archive: Archive, room: str) -> None:
    for path, member in archive.members():
        place = f"{room}/{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if member.isdir():
            os.makedirs(place, exist_ok=True)
        elif member.issym():
            os.symlink(member.linkname, place)
            continue
        elif member.islnk():
            os.link(f"{room}/{member.linkname}", place, follow_symlinks=False)
        else:
            with open(place, "wb") as file:
                file.writelines(archive.content(member))
        if path:
            os.chmod(place, 0o700 * member.isdir() | member.mode & 0o7777)
            os.utime(place, (member.mtime, member.mtime))


def owner_ids(owner: str) -> tuple[int, int]:
    """The ids of ``user[:group]``, by name or number.

    Raises:
        RefusedError: there is no such user or group.
    """
    accounts = Accounts()
    name, colon, group = owner.partition(":")
    account = accounts.user(name)
    if not colon:
        return account.uid, account.gid
    return account.uid, int(group) if group.isdecimal() else accounts.group_id(group)


def copy(room: str, plan: Plan) -> None:
    """Merge what the pattern matches into the target.

    Raises:
        OSError: it cannot be.
        ValueError: nothing matches, or the target is of another kind.
    """
    roots = matching(room, plan.source)
    if not roots:
        raise ValueError("no file of the context matches")
    target = os.path.normpath(plan.target)
    into = plan.target.endswith("/") or len(roots) > 1 or os.path.isdir(target)
    for path in roots:
        if os.path.isdir(path) and not os.path.islink(path):
            _copy_below(path, target, plan)
        else:
            _place(path, os.path.join(target, os.path.basename(path)) if into else target, plan)


def matching(room: str, pattern: str) -> list[str]:
    """The files and directories that a pattern means; ``**`` is any number of directories."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    found = _match(room, parts)
    tops: list[str] = []
    for path in sorted(found):
        if not tops or not path.startswith(tops[-1] + "/"):
            tops.append(path)
    return tops


def _match(directory: str, parts: list[str]) -> set[str]:
    if not parts:
        return {directory}
    first, *rest = parts
    if not os.path.isdir(directory):
        return set()
    names = os.listdir(directory)
    if first == "**":
        below = {path for name in names if _is_real_directory(f"{directory}/{name}")
                 for path in _match(f"{directory}/{name}", parts)}  # fmt: skip
        return below | (_match(directory, rest) if rest else {f"{directory}/{name}" for name in names})
    exact = first in names
    return {path for name in names if name == first or (not exact and fnmatch.fnmatchcase(name, first))
            for path in _match(f"{directory}/{name}", rest)}  # fmt: skip


def _is_real_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _copy_below(source: str, target: str, plan: Plan) -> None:
    """Merge the content of a directory into another."""
    _make_parents(target, plan)
    if not os.path.isdir(target):
        raise ValueError(f"{target} is no directory")
    for name in os.listdir(source):
        path, destination = f"{source}/{name}", os.path.join(target, name)
        if not _is_real_directory(path):
            _place(path, destination, plan)
            continue
        if os.path.lexists(destination) and not os.path.isdir(destination):
            raise ValueError(f"{destination} is no directory")
        if not os.path.isdir(destination):
            os.mkdir(destination)
        _copy_below(path, destination, plan)
        _finish(path, destination, plan)


def _make_parents(directory: str, plan: Plan) -> None:
    """Make a directory with those above it that do not exist; they belong to whom the copies do."""
    if os.path.isdir(directory):
        return
    if os.path.lexists(directory):
        raise ValueError(f"{directory} is no directory")
    _make_parents(os.path.dirname(directory), plan)
    os.mkdir(directory)
    os.chown(directory, plan.uid, plan.gid)


def _place(source: str, target: str, plan: Plan) -> None:
    """Put one file or link in its place."""
    _make_parents(os.path.dirname(target), plan)
    if _is_real_directory(target):
        raise ValueError(f"{target} is a directory")
    _finish(source, source, plan)
    try:
        os.rename(source, target)
    except OSError:  # another file system, such as a tmpfs
        if os.path.lexists(target):
            os.unlink(target)
        shutil.copy2(source, target, follow_symlinks=False)
        _finish(source, target, plan)


def _finish(source: str, target: str, plan: Plan) -> None:
    """Give a copy its owner, permissions and time."""
    info = os.lstat(source)
    os.chown(target, plan.uid, plan.gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode) if plan.mode is None else plan.mode)
        os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
