"""Modules from one file: looking for each of them in directories would take longer than most of them take to run.

What is imported later comes from there, too: from a file that is open already, so that nobody inside can put another
one in its place. The same holds for libraries, which are found from a directory that is open already.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

HEADER_SIZE = 8


class Bundle:
    """Finds and loads modules of a bundle: the length of its index, the index, and code.

    Args:
        directory: Where the bundle is, opened; the libraries of modules that are no Python are found relative to it.
        file: The bundle, opened.
        start: Where in the file it begins.
    """

    def __init__(self, directory: int, file: int, start: int = 0) -> None:
        self._directory = f"/proc/self/fd/{directory}"
        self._file = file
        size = int.from_bytes(posix.pread(file, HEADER_SIZE, start), "big")
        index = posix.pread(file, size, start + HEADER_SIZE)
        self._start = start + HEADER_SIZE + size
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
        code = marshal.loads(posix.pread(self._file, size, self._start + offset))  # noqa: S302 - the same
        exec(code, module.__dict__)  # noqa: S102 - that is what importing is


def use(directory: int, file: int, start: int) -> None:
    """From now on, import what Python does not hold itself from a bundle, and nothing from anywhere else."""
    sys.meta_path[2:] = [Bundle(directory, file, start)]


def pack(first: bytes, codes: dict[str, tuple[bool, bytes]], libraries: dict[str, str]) -> bytes:
    """Make a bundle.

    Args:
        first: The marshalled code of this module, which cannot be imported before it is there; the bundle follows it.
        codes: Whether each module is a package, and its marshalled code.
        libraries: Where the library of each other module is, relative to the bundle.
    """
    modules, offset = {}, 0
    for name, (is_package, code) in codes.items():
        modules[name] = is_package, offset, len(code)
        offset += len(code)
    index = marshal.dumps((modules, libraries))
    sizes = (size.to_bytes(HEADER_SIZE, "big") for size in (len(first), len(index)))
    return b"".join([next(sizes), first, next(sizes), index, *(code for _, code in codes.values())])


def size_of_first(packed: bytes) -> int:
    """Return how long the code is that comes first in a bundle, after its size."""
    return int.from_bytes(packed[:HEADER_SIZE], "big")
