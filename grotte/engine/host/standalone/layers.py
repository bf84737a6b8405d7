"""Copies of what sandboxes wrote, and layers of images: made and removed in processes of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable

from . import disks, trees, unpack
from .namespaces import DATA, IdMap, fork_mapped

Told = Callable[[str, bool], None]
MAX_REPORT = 4096


class Layers:
    """The copies and removals under way.

    Args:
        ids: Whose files the layers are: root's inside, whatever sandbox they came from.
        tell: Called with the name of a layer whose copy or removal has ended, and whether it was done.
        reset: Undoes in a forked process what only the launcher wants.
    """

    def __init__(self, ids: IdMap, tell: Told, reset: Callable[[], None]) -> None:
        self._ids = ids
        self._tell = tell
        self._reset = reset
        self._copying: dict[int, str] = {}
        self._removing: dict[int, str] = {}

    @property
    def pids(self) -> set[int]:
        """The processes at work."""
        return {*self._copying, *self._removing}

    def copy(self, sandbox_id: str, name: str) -> None:
        """Make a layer of what a sandbox has written so far; it should not be writing now."""
        source, target = disks.home_of(sandbox_id), _path(f"{name}.new")
        program = shutil.which("cp", path="/usr/bin:/bin") or "cp"
        arguments = ["cp", "-a", "--reflink=auto", "--", f"{source}/fs", f"{source}/usr", target]

        def inside() -> None:
            os.umask(0o022)
            os.mkdir(target)
            os.execve(program, arguments, {"LC_ALL": "C"})  # noqa: S606 - no shell is what we want

        def prepare() -> None:
            self._reset()
            disks.attach(sandbox_id, 0)  # of one that does not run; it is unmounted when that goes

        self._copying[fork_mapped(self._ids, self._ids.owner(0), prepare, inside)] = name

    def unpack(self, name: str, archive: int, report: int, limit: int, digest: str) -> None:
        """Make a layer of an archive; what is wrong with it is written to `report`. See `unpack.enter_and_unpack`."""
        target = _path(f"{name}.new")

        def inside() -> None:
            try:
                os.write(report, b"%d" % unpack.enter_and_unpack(target, archive, limit, digest))
            except Exception as error:
                os.write(report, (str(error) or type(error).__name__).encode(errors="replace")[:MAX_REPORT])
                raise

        self._copying[fork_mapped(self._ids, self._ids.owner(0), self._reset, inside)] = name

    def remove(self, name: str) -> None:
        """Remove a layer on which nothing stands."""
        pid = os.fork()
        if pid == 0:
            self._reset()
            try:
                trees.remove(_path(name))
                trees.remove(_path(f"{name}.new"))
                os._exit(0)
            finally:
                os._exit(1)
        self._removing[pid] = name

    def reaped(self, pid: int, status: int) -> bool:
        """A process has ended; tell whether it was one of these."""
        if (name := self._copying.pop(pid, None)) is not None:
            self._tell(name, status == 0 and _renamed(name))
            return True
        if (name := self._removing.pop(pid, None)) is not None:
            self._tell(name, status == 0)
            return True
        return False

    def end(self) -> None:
        """Stop at once; what is half done is removed at the next start."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _path(name: str) -> str:
    return f"{DATA}/host/layers/{name}"


def _renamed(name: str) -> bool:
    try:
        os.rename(_path(f"{name}.new"), _path(name))
    except OSError:
        return False
    return True
