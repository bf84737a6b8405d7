"""The generated layers of template ``base``: a fresh root over the host's /usr."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator

from . import packages, trees
from .base_texts import DIRECTORIES, ETC, SHADOW, TEXTS, USER_ID
from .namespaces import DATA, HOST_USR, IdMap, fork_mapped

BASE = f"{DATA}/host/base"
TOOLS = f"{DATA}/host/tools"  # what lies over images that bring everything else
SUDO = "import gc; gc.disable(); from standalone.sudo import main; main()"
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
NOT_COPIED = shutil.ignore_patterns("modules", "firmware")
COPY_LIMIT = 8 << 20
SCANNERS = 8
SPREAD_DEPTH = 2

# Directories that exist in the layer can be written to even where the host's own belong to nobody inside: then
# packages can be added to all but the deepest.
LOCAL_DEPTH, USR_DEPTH = 3, 6
LOCAL = ("local", "local/bin", "local/etc", "local/include", "local/lib", "local/sbin", "local/share")
LOCAL_PACKAGES = re.compile(r"local/(lib/[^/]+|lib/[^/]+/[^/]+-packages|lib/node_modules|share/[^/]+)")
LINKS = {
    "var/run": "/run",
    "var/lock": "/run",
    "etc/mtab": "/proc/self/mounts",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
}


def build(ids: IdMap, command: list[str]) -> None:
    """Generate the layers afresh, as root of a sandbox's user namespace, so that their files belong there.

    Args:
        ids: The map of that namespace.
        command: What starts the guest, and with another last word its ``sudo``.

    Raises:
        RuntimeError: They could not be generated.
    """
    pid = fork_mapped(ids, ids.owner(0), lambda: None, lambda: _build(ids.privileged, command))
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("the layers of template base could not be generated")


def remove() -> None:
    """Remove the layers; their files belong to users of sandboxes."""
    for layer in (BASE, TOOLS):
        trees.remove(layer)


def _build(privileged: bool, command: list[str]) -> None:
    os.umask(0o022)
    remove()
    os.makedirs(f"{BASE}/fs")
    for place in (f"{BASE}/usr", f"{TOOLS}/fs/usr"):
        _write_sudo(place, command)
    _make_root(f"{BASE}/fs")
    packages_known = _apart(lambda: packages.copy(f"{BASE}/fs"))
    for name in ETC:
        _copy_public(f"/etc/{name}", f"{BASE}/fs/etc/{name}")
    _copy_top_level(f"{BASE}/fs")
    _make_usr(f"{BASE}/usr", privileged)
    if os.waitpid(packages_known, 0)[1] != 0:
        raise OSError("what is installed could not be copied")


def _apart(run: Callable[[], None]) -> int:
    """Run something in a process of its own; it succeeds if it returns."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        finally:
            os._exit(status)
    return pid


def _make_root(root: str) -> None:
    for name, mode in DIRECTORIES.items():
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)
    for name, text in TEXTS.items():
        _write(f"{root}/{name}", text)
    _write(f"{root}/etc/shadow", SHADOW)
    os.chmod(f"{root}/etc/shadow", 0o640)
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/{name}")
    for name in ("", "/.profile", "/.bashrc"):
        os.chown(f"{root}/home/user{name}", USER_ID, USER_ID)


def _write_sudo(usr: str, command: list[str]) -> None:
    """In both places where it is looked for: the image's own, or the host's, gains nothing by its setuid bit."""
    for directory in ("bin", "local/bin"):
        os.makedirs(f"{usr}/{directory}")
        _write(f"{usr}/{directory}/sudo", f'#!/bin/sh\nexec {shlex.join([*command[:-1], SUDO])} "$@"\n')
        os.chmod(f"{usr}/{directory}/sudo", 0o755)  # noqa: S103 - for everybody inside


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _copy_public(source: str, target: str) -> None:
    """Copy a file or directory as far as everybody on the host may read it."""
    try:
        info = os.lstat(source)
    except OSError:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(info.st_mode) and info.st_mode & 0o004 and info.st_size <= COPY_LIMIT:
        shutil.copyfile(source, target)
        os.chmod(target, info.st_mode & 0o755)
    elif stat.S_ISDIR(info.st_mode) and info.st_mode & 0o005 == 0o005:
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(source):
            _copy_public(f"{source}/{name}", f"{target}/{name}")


def _copy_top_level(root: str) -> None:
    """Where /bin is a link to /usr/bin, link; where it is a directory of its own, copy it."""
    for name in MERGED:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            shutil.copytree(f"/{name}", f"{root}/{name}", symlinks=True, ignore=NOT_COPIED)


def _make_usr(layer: str, privileged: bool) -> None:
    for name in directories(HOST_USR, LOCAL_DEPTH if privileged else USR_DEPTH):
        ours = name in LOCAL or LOCAL_PACKAGES.fullmatch(name)
        if ours or not privileged:
            os.makedirs(f"{layer}/{name}", exist_ok=True)
    for name in LOCAL:
        os.makedirs(f"{layer}/{name}", exist_ok=True)
    for name in directories(f"{layer}/local", LOCAL_DEPTH):
        os.chmod(f"{layer}/local/{name}", 0o777)  # noqa: S103 - what is local is the user's
    os.chmod(f"{layer}/local", 0o777)  # noqa: S103 - as is that itself
    if not os.path.lexists(f"{HOST_USR}/bin/python"):
        os.symlink("python3", f"{layer}/bin/python")
    if privileged:
        for name in private_entries(HOST_USR):
            os.makedirs(os.path.dirname(f"{layer}/{name}"), exist_ok=True)
            os.mknod(f"{layer}/{name}", stat.S_IFCHR, os.makedev(0, 0))  # overlayfs: "there is no such file"


def directories(root: str, depth: int) -> Iterator[str]:
    """Yield the directories that everybody may read, relative to the root, each before those in it."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        if _mode(f"{root}/{name}") & 0o005 == 0o005:
            yield name
            if depth > 1:
                yield from (f"{name}/{below}" for below in directories(f"{root}/{name}", depth - 1))


def private_entries(root: str) -> Iterator[str]:
    """Yield what is not for everybody, relative to the root.

    Root inside is shown as the owner of the host's files and could read them all; these it must not even see.
    """
    level, found = [""], list[str]()
    for _ in range(SPREAD_DEPTH):
        below: list[str] = []
        for directory in level:
            _scan(root, directory, below, found)
        level = below
    yield from found
    # A hundred thousand files take seconds with a cold cache, so processes share the work.
    workers = [_scan_apart(root, level[index::SCANNERS]) for index in range(SCANNERS)]
    for pid, results in workers:
        with open(results, "rb") as file:
            yield from (os.fsdecode(name) for name in file.read().split(b"\0") if name)
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError(f"{root} could not be searched for private files")


def _scan_apart(root: str, pending: list[str]) -> tuple[int, int]:
    """Scan trees in a process of its own; return its pid and where it writes what it found."""
    read, write = os.pipe()

    def scan() -> None:
        found: list[str] = []
        while pending:
            _scan(root, pending.pop(), pending, found)
        with open(write, "wb") as file:
            file.write(b"\0".join(map(os.fsencode, found)))

    pid = _apart(scan)
    os.close(write)
    return pid, read


def _scan(root: str, directory: str, directories: list[str], found: list[str]) -> None:
    """Sort the entries of one directory into directories to scan and things that are not for everybody."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):  # the host's packages may be changing
        names = os.listdir(f"{root}/{directory}")
    for name in names:
        mode = _mode(f"{root}/{directory}{name}")
        wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
        if not stat.S_ISLNK(mode) and mode & wanted != wanted:
            found.append(f"{directory}{name}")
        elif stat.S_ISDIR(mode):
            directories.append(f"{directory}{name}/")


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0  # private, should it come back
