"""Removing trees that someone hostile built: any depth, any mode, with names changing under the walk."""

from __future__ import annotations

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a file, link or whole directory; a missing path is no error.

    One descriptor is open at a time, so neither depth nor path length is a limit. On the way back up, ``..`` must be
    the directory that the walk came from: a directory moved meanwhile cannot lead the walk out of the tree.

    Raises:
        OSError: Something could not be removed.
    """
    parent, name = os.path.split(path.rstrip("/"))
    try:
        top = os.open(parent or ".", _DIRECTORY & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if not _unlink(name, top):
            _remove_below(name, top)
    finally:
        os.close(top)


def _unlink(name: str, at: int) -> bool:
    """Unlink anything but a directory; tell whether that was all there is to do."""
    try:
        if _is_directory(name, at):
            return False
        os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        pass
    return True


def _is_directory(name: str, at: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _remove_below(name: str, top: int) -> None:
    trail = [(name, _identity(top))]
    here = _descend(name, top)
    try:
        while True:
            child = _empty_until_directory(here)
            if child is not None:
                trail.append((child, _identity(here)))
                here = _replace(here, _descend(child, here))
                continue
            done, came_from = trail.pop()
            above = os.open("..", _DIRECTORY, dir_fd=here)
            here = _replace(here, above)
            if _identity(here) != came_from:
                raise OSError(f"{name} changed while it was removed")
            os.rmdir(done, dir_fd=here)
            if not trail:
                return
    finally:
        os.close(here)


def _empty_until_directory(here: int) -> str | None:
    """Unlink what is in a directory; return the first directory found, or None once there is none."""
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            _unlink(entry.name, here)
    return None


def _descend(name: str, at: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=at)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=at)  # the owner without CAP_DAC_OVERRIDE
        return os.open(name, _DIRECTORY, dir_fd=at)


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
