"""Modules from one file: looking for each of them in directories would take longer than most of them take to run.

What is imported later comes from there, too: from a file that is open already, so that nobody inside can put another
one in its place.
"""

from __future__ import annotations

import _collections_abc
import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from types import ModuleType

HEADER_SIZE = 8


class Bundle:
    """Finds and loads modules of a bundle: the length of its index, the index, and code.

    Args:
        path: Where the bundle is; the libraries of modules that are no Python are found relative to its directory.
    """

    def __init__(self, path: str) -> None:
        self._directory = path.rpartition("/")[0]
        self._fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        size = int.from_bytes(posix.pread(self._fd, HEADER_SIZE, 0), "big")
        index = posix.pread(self._fd, size, HEADER_SIZE)
        self._start = HEADER_SIZE + size
        self._modules: dict[str, tuple[bool, int, int]]
        self._libraries: dict[str, str]
        self._modules, self._libraries = marshal.loads(index)  # noqa: S302 - written by the engine, read-only here

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a module, as the import system asks for it."""
        if name in self._modules:
            is_package = self._modules[name][0]
            return ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]  # it has what a loader needs
        if name in self._libraries:
            file = f"{self._directory}/{self._libraries[name]}"
            return ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        _, offset, size = self._modules[module.__name__]
        code = marshal.loads(posix.pread(self._fd, size, self._start + offset))  # noqa: S302 - the same
        exec(code, module.__dict__)  # noqa: S102 - that is what importing is


def use(path: str) -> None:
    """From now on, import what Python does not hold itself from a bundle, and nothing from anywhere else."""
    sys.meta_path[2:] = [Bundle(path)]
    # Under its public name, too: by that alone, all of `collections` would have to be imported first.
    sys.modules.setdefault("collections.abc", _collections_abc)


def pack(codes: dict[str, tuple[bool, bytes]], libraries: dict[str, str]) -> bytes:
    """Make a bundle.

    Args:
        codes: Whether each module is a package, and its marshalled code.
        libraries: Where the library of each other module is, relative to the bundle.
    """
    modules, offset = {}, 0
    for name, (is_package, code) in codes.items():
        modules[name] = is_package, offset, len(code)
        offset += len(code)
    index = marshal.dumps((modules, libraries))
    return b"".join([len(index).to_bytes(HEADER_SIZE, "big"), index, *(code for _, code in codes.values())])
