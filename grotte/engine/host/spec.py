"""The words between the engine's services and the isolation layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from grotte.errors import GrotteException

MIB = 1 << 20
#: How many bytes of a disk there are for each file on it, as most file systems are made; and the least for any.
BYTES_PER_FILE, MIN_FILES = 16384, 4096


class HostError(GrotteException):
    """A sandbox could not be started, or the machinery that holds it broke."""


class GuestError(GrotteException):
    """A refusal from inside a sandbox, or the news that it is gone.

    Attributes:
        code: A Connect code, such as ``not_found``.
        message: What to tell the caller.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use.

    Attributes:
        memory_bytes: Memory of all its processes, page cache and tmpfs included.
        cpus: Processors, 0.5 for half of one.
        pids: Processes and threads.
        disk_bytes: What it may write, with all that it has written; 0 for as much as the host's disk takes.
        own_disk: Whether it gets a file system of that size; otherwise it is measured, and stopped beyond it.
    """

    memory_bytes: int = 1024 * MIB
    cpus: float = 2.0
    pids: int = 1024
    disk_bytes: int = 10240 * MIB
    own_disk: bool = False

    @property
    def disk_files(self) -> int:
        """How many files, directories and links it may have: as many as a file system of that size would hold."""
        return max(self.disk_bytes // BYTES_PER_FILE, MIN_FILES)


@dataclass(frozen=True, slots=True)
class Egress:
    """Internet access, as far as these IPv4 ranges say: ``allow`` wins over ``deny``, what neither names is allowed.

    The host itself, its loopback, link-local addresses and multicast cannot be allowed.

    Attributes:
        allow: As in ``10.1.0.0/16``.
        deny: The same.
        lookups: Names may be looked up although everything is denied.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    lookups: bool = False


class Mount(NamedTuple):
    """A volume and the absolute path at which a sandbox has it."""

    volume: str
    path: str


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to launch.

    Attributes:
        sandbox_id: Unique among living sandboxes; letters, digits, ``-`` and ``_``.
        layers: Layers of the template inside the data directory, topmost first. A layer is a directory with ``fs``,
            which lies over ``/``, and perhaps ``usr``, which lies over the host's ``/usr``.
        on_host_usr: Whether the layers stand on template ``base``; False for images that bring everything.
        hostname: The host name inside; by default the sandbox's id.
        limits: What it may use.
        egress: What it may reach; None for no network at all.
        on_kept_files: Whether it goes on with the files of an earlier one of its id, which stay if it cannot start.
        mounts: Volumes that it shares with others.
    """

    sandbox_id: str
    layers: tuple[Path, ...] = ()
    hostname: str = ""
    limits: Limits = field(default_factory=Limits)
    on_host_usr: bool = True
    egress: Egress | None = None
    on_kept_files: bool = False
    mounts: tuple[Mount, ...] = ()


class TerminalSize(NamedTuple):
    """The size of a terminal in characters, each at most 65535; 0 stands for unknown."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A process to start.

    Attributes:
        cmd: A path, or a name to look up in the ``PATH`` of ``envs``.
        args: Its arguments, without the program's name.
        envs: The whole environment.
        cwd: Where it starts: relative to the user's home, which is also the default.
        user: Whose process it is.
        stdin: Whether it has a pipe as standard input, rather than ``/dev/null``.
        terminal: Its terminal's size, if it runs in a session of its own on one, which is then its stdin, too.
        identify: Whether it gets the usual ``PATH``, and ``HOME``, ``USER`` and ``LOGNAME``, where ``envs`` has none.
    """

    cmd: str
    args: tuple[str, ...] = ()
    envs: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str = "user"
    stdin: bool = False
    terminal: TerminalSize | None = None
    identify: bool = False


class ExitStatus(NamedTuple):
    """How a process ended: with a code, or by a signal. Both are None if its sandbox ended with it."""

    code: int | None
    signal: int | None
    core_dumped: bool = False


class UserEntry(msgspec.Struct, frozen=True):
    """A user of a sandbox."""

    name: str
    uid: int
    gid: int
    home: str


class Entry(msgspec.Struct, frozen=True):
    """What is known of one file, in the terms of the filesystem service's ``EntryInfo``.

    Attributes:
        name: Last part of the path.
        type: Of what a symlink leads to, or ``FILE_TYPE_UNSPECIFIED`` if that is neither file nor directory.
        path: Absolute.
        size: In bytes, of the link itself.
        mode: Permission bits of what a symlink leads to; 0 if it is broken.
        permissions: As Go writes a FileMode, of the link itself.
        owner: Name, or number as text.
        group: Name, or number as text.
        modified_time: RFC 3339, in UTC.
        is_symlink: Whether it is a symlink.
        symlink_target: Where a symlink leads in the end; None for anything else.
        metadata: The ``user.e2b.*`` attributes, without the prefix.
    """

    name: str
    type: Literal["FILE_TYPE_FILE", "FILE_TYPE_DIRECTORY", "FILE_TYPE_UNSPECIFIED"]
    path: str
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: str
    is_symlink: bool = False
    symlink_target: str | None = None
    metadata: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A regular file of a sandbox, opened for reading; whoever gets it closes the descriptor."""

    fd: int
    size: int
    mtime: float
    path: str


@dataclass(frozen=True, slots=True)
class UploadSlot:
    """A new file that takes the place of ``path`` when it is committed; whoever gets it closes the descriptor."""

    fd: int
    path: str
    token: int


@dataclass(frozen=True, slots=True)
class Check:
    """One layer of isolation on this machine.

    Attributes:
        name: Which layer.
        status: ``degraded`` works, with what ``detail`` says missing; ``missing`` means that the engine cannot start.
        detail: What was found.
        remedy: One line that helps, or nothing.
    """

    name: str
    status: Literal["ok", "degraded", "missing"]
    detail: str
    remedy: str = ""
