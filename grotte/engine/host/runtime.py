"""A copy of the interpreter, as much of it as the guest needs: its loader, libraries and modules.

The guest starts from it in any image, an empty one or one with another libc. It is a copy and not a bind mount of the
installation, because that may lie in somebody's home, together with packages that are nobody's business inside.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import CodeType

import msgspec

from . import lean_code
from .spec import HostError
from .standalone import bundle

STANDALONE = Path(__file__).parent / "standalone"
PROBE_SECONDS = 30
UNCHECKED_HASH = 1  # in the flags of compiled code
BUNDLE = "bundle"
ENCODINGS = "lean_encodings.py"
# Nothing that is imported is garbage: looking for some would be a tenth of the time in which the guest starts.
START = """\
import gc, marshal, posix; gc.disable()
directory = posix.open('{place}', posix.O_PATH | posix.O_CLOEXEC)
file = posix.open('{bundle}', posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
exec(marshal.loads(posix.pread(file, {size}, {at})), first := {{'__name__': 'bundle'}})
first['use'](directory, file, {at} + {size})
from standalone.guest import main; gc.freeze(); gc.enable(); main()"""
# With all that the guest imports later.
PROBE = """
import sys; sys.path.insert(0, sys.argv[1])
import traceback, warnings, json, os, standalone.guest, standalone.sudo, standalone.copying, standalone.provision
import standalone.bundle, standalone.lean_encodings
import standalone.elevations, standalone.filework, standalone.terminals, standalone.usage
from importlib.machinery import PathFinder
def spec_of(name, module):
    spec, package = getattr(module, "__spec__", None), sys.modules.get(name.rpartition(".")[0])
    stands_in = spec is not None and spec.name != name and hasattr(package, "__path__")
    return PathFinder.find_spec(name, package.__path__) if stands_in else spec
specs = [spec_of(*item) for item in list(sys.modules.items())]
modules = {spec.origin: spec.name for spec in specs if spec is not None and spec.has_location}
maps = sorted({l.split(None, 5)[5].strip() for l in open("/proc/self/maps") if l.count("/")})
print(json.dumps({"modules": modules, "maps": maps, "exe": os.path.realpath("/proc/self/exe"),
                  "prefix": sys.base_prefix, "stdlib": os.path.dirname(os.__file__)}))
"""


class _Interpreter(msgspec.Struct):
    """What the probe tells: files of modules with their names, all files in memory, and where things are."""

    modules: dict[str, str]
    maps: list[str]
    exe: str
    prefix: str
    stdlib: str


def build(directory: Path, mount_point: str) -> tuple[Path, list[str]]:
    """Copy the interpreter into a directory, unless it is there already.

    Args:
        directory: Holds the copies; those of other interpreters are removed.
        mount_point: Where the copy will be inside a sandbox.

    Returns:
        The copy, and the command that starts the guest from it inside.

    Raises:
        HostError: The interpreter could not be copied.
    """
    found = _probe()
    modules = _module_targets(found)
    files = {os.path.join(found.stdlib, "os.py"): f"{_library(found)}/os.py", **modules}
    libraries = [path for path in found.maps if _is_library(path, files)]
    files |= {name: f"libs/{os.path.basename(name)}" for path in libraries for name in _names_of(path)}
    files |= {found.exe: "bin/python", interpreter_of(found.exe): "loader"}
    target = directory / _key(files)
    if not target.exists():
        _copy(files, _bundle(found.modules, modules), target)
    for other in directory.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    command = [f"{mount_point}/loader", "--library-path", f"{mount_point}/libs", f"{mount_point}/bin/python"]
    size = bundle.size_of_first((target / BUNDLE).read_bytes())
    start = START.format(place=mount_point, bundle=BUNDLE, at=bundle.HEADER_SIZE, size=size)
    return target, [*command, "-I", "-S", "-X", "utf8", "-c", start]


def environment() -> dict[str, str]:
    """What the interpreter itself may need of the environment where it is run without it: its shared library."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _probe() -> _Interpreter:
    arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROBE, str(STANDALONE.parent)]
    try:
        result = subprocess.run(arguments, capture_output=True, timeout=PROBE_SECONDS, check=False, env=environment())
        if result.returncode:
            said = result.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise OSError(said or f"it ended with status {result.returncode}")
        return msgspec.json.decode(result.stdout, type=_Interpreter)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise HostError(f"the Python interpreter {sys.executable} cannot be examined: {error}") from error


def _library(found: _Interpreter) -> str:
    return os.path.relpath(found.stdlib, found.prefix)


def _module_targets(found: _Interpreter) -> dict[str, str]:
    targets = {}
    for path, name in found.modules.items():
        if path == f"{STANDALONE}{os.sep}{ENCODINGS}":
            targets[path] = f"{_library(found)}/encodings.py"
        elif path.startswith(f"{STANDALONE}{os.sep}"):
            targets[path] = f"{_library(found)}/standalone/{os.path.basename(path)}"
        elif name.partition(".")[0] != "encodings":
            targets[path] = os.path.relpath(path, found.prefix)
    return targets


def _bundle(names: dict[str, str], targets: dict[str, str]) -> bytes:
    """Return all modules in one file; see `standalone.bundle`."""
    codes, libraries = {}, {}
    for path, target in targets.items():
        if path.endswith(".py"):
            codes[names[path]] = os.path.basename(path) == "__init__.py", marshal.dumps(_compiled(path, target))
        else:
            libraries[names[path]] = target
    return bundle.pack(marshal.dumps(_compiled(bundle.__file__, BUNDLE)), codes, libraries)


def _compiled(path: str, target: str) -> CodeType:
    source = Path(path).read_bytes()
    if path.startswith(f"{STANDALONE}{os.sep}"):
        return lean_code.compiled(source, target)
    return compile(source, target, "exec", dont_inherit=True, optimize=0)


def _is_library(path: str, modules: dict[str, str]) -> bool:
    return ".so" in os.path.basename(path) and path not in modules and os.path.isfile(path)


def _names_of(library: str) -> list[str]:
    """Return a library with the links to it beside it: it is looked for by one of them."""
    directory, name = os.path.split(library)
    beside = [f"{directory}/{other}" for other in os.listdir(directory) if other.startswith(name.partition(".so")[0])]
    return [library, *(path for path in beside if os.path.realpath(path) == os.path.realpath(library))]


def interpreter_of(executable: str) -> str:
    """Return the loader that an ELF executable names.

    Raises:
        HostError: It names none.
    """
    with open(executable, "rb") as file:
        header = file.read(64)
        start, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        for index in range(count):
            file.seek(start + index * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    raise HostError(f"the Python interpreter {executable} is linked statically, which the guest cannot use")


def _key(files: dict[str, str]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    makers = {__file__: "runtime", lean_code.__file__: "lean_code"}
    for source, target in sorted((files | makers).items()):
        info = os.stat(source)
        digest.update(f"{target} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _copy(files: dict[str, str], modules: bytes, target: Path) -> None:
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for source, name in files.items():
        destination = fresh / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        destination.chmod(0o644 if name.endswith(".py") else 0o755)
        if name.endswith(".py"):
            _write_compiled(source, name, destination)
    (fresh / BUNDLE).write_bytes(modules)
    (fresh / BUNDLE).chmod(0o644)
    for directory, _, _ in os.walk(fresh):
        os.chmod(directory, 0o755)  # noqa: S103 - a copy of what every user may read
    fresh.rename(target)


def _write_compiled(source: str, name: str, destination: Path) -> None:
    """Write a module's code where the interpreter looks for it, marked as never to be compared with its text."""
    path = Path(importlib.util.cache_from_source(str(destination), optimization=""))
    path.parent.mkdir(exist_ok=True)
    header = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little")
    text_hash = importlib.util.source_hash(destination.read_bytes())
    path.write_bytes(header + text_hash + marshal.dumps(_compiled(source, name)))
