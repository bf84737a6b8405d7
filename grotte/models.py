"""What calls take and return: results, entries, and the information about sandboxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import IO, Literal, NotRequired, TypeAlias, TypedDict

Username: TypeAlias = str
Stdout: TypeAlias = str
Stderr: TypeAlias = str
PtyOutput: TypeAlias = bytes
SandboxOnTimeout: TypeAlias = Literal["kill", "pause"]
SandboxOnResume: TypeAlias = Literal["restore", "reboot"]
SandboxListOrder: TypeAlias = Literal["asc", "desc"]
SnapshotMode: TypeAlias = Literal["full", "filesystem"]

#: The CIDR range of everything, for `SandboxNetworkOpts`.
ALL_TRAFFIC = "0.0.0.0/0"


# -- commands ----------------------------------------------------------------------------------------------------


@dataclass
class CommandResult:
    """What a finished command left behind.

    Attributes:
        stderr: Everything that it wrote to stderr, as text; invalid UTF-8 appears as U+FFFD.
        stdout: The same of stdout.
        exit_code: 0 for success; -1 when a signal ended it.
        error: How it ended when not with 0, such as ``"exit status 2"`` or ``"signal: killed"``.
        stdout_dropped: How many characters `max_output` left out at the beginning of `stdout`.
        stderr_dropped: The same of `stderr`.
        output_missing: The connection broke meanwhile, and the server could not send again what was printed until it
            was back: some output may be missing. The engine can, up to 4 MiB.
    """

    stderr: str
    stdout: str
    exit_code: int
    error: str | None = None
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    output_missing: bool = False


@dataclass
class ProcessInfo:
    """A process that runs in a sandbox.

    Attributes:
        pid: Its id inside the sandbox.
        tag: The tag that it was started with.
        cmd: The program.
        args: Its arguments.
        envs: The environment variables that were given when it was started; never part of the representation.
        cwd: The working directory that was given when it was started.
    """

    pid: int
    tag: str | None
    cmd: str
    args: list[str]
    envs: dict[str, str] = field(repr=False)
    cwd: str | None


@dataclass
class PtySize:
    """The size of a terminal, in characters."""

    rows: int
    cols: int


# -- files -------------------------------------------------------------------------------------------------------


class FileType(Enum):
    """What an entry of the file system is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


@dataclass
class WriteInfo:
    """Where a file was written.

    Attributes:
        name: The last part of the path.
        type: What it is; None for sockets, devices and the like.
        path: The absolute path.
        metadata: What was stored with it on upload; None for nothing.
    """

    name: str
    type: FileType | None
    path: str
    metadata: dict[str, str] | None = field(default=None, kw_only=True)


@dataclass
class EntryInfo(WriteInfo):
    """An entry of the file system.

    Attributes:
        size: In bytes.
        mode: The permission bits, such as ``0o644``.
        permissions: The same as text with the type in front, such as ``"-rw-r--r--"``.
        owner: The owner's name, or the number of one who has none.
        group: The same of the group.
        modified_time: When its content changed last.
        symlink_target: Where a link leads; None if it is none.
    """

    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: datetime
    symlink_target: str | None = None


class FilesystemEventType(Enum):
    """What happened to an entry of the file system."""

    CHMOD = "chmod"
    CREATE = "create"
    REMOVE = "remove"
    RENAME = "rename"
    WRITE = "write"


@dataclass
class FilesystemEvent:
    """Something that happened below a watched directory.

    A rename is two events: RENAME of the old name, then CREATE of the new one.

    Attributes:
        name: The path relative to the watched directory; ``"."`` for itself.
        type: What happened.
        entry: What was there afterwards, if the watch was to tell and there was something.
    """

    name: str
    type: FilesystemEventType
    entry: EntryInfo | None = None


@dataclass(frozen=True)
class TransferProgress:
    """How far an upload or download is; for a directory, in terms of the archive that it travels as.

    Attributes:
        transferred: Bytes so far.
        total: Bytes in the end.
    """

    transferred: int
    total: int


class WriteEntry(TypedDict):
    """One file for `write_files`."""

    path: str
    data: str | bytes | IO[bytes] | IO[str]


# -- git ---------------------------------------------------------------------------------------------------------


@dataclass
class GitFileStatus:
    """A file that git has something to say about.

    Attributes:
        name: Its path, from the top of the repository.
        status: ``"modified"``, ``"added"``, ``"deleted"``, ``"renamed"``, ``"copied"``, ``"typechange"``,
            ``"untracked"``, ``"conflict"`` or ``"unknown"``.
        index_status: What is staged, as git's letter; a space for nothing.
        working_tree_status: What is not staged, likewise.
        staged: Whether something is staged.
        renamed_from: Its former path.
    """

    name: str
    status: str
    index_status: str
    working_tree_status: str
    staged: bool
    renamed_from: str | None = None


@dataclass
class GitStatus:
    """The state of a repository.

    Attributes:
        current_branch: The branch, also one without commits; None if HEAD is detached.
        upstream: What the branch follows, such as ``"origin/main"``.
        ahead: How many commits upstream has not.
        behind: How many commits upstream has besides.
        detached: Whether HEAD is on no branch.
        file_status: The files that are changed, staged or not tracked.
    """

    current_branch: str | None
    upstream: str | None
    ahead: int
    behind: int
    detached: bool
    file_status: list[GitFileStatus]

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to commit and nothing untracked."""
        return not self.file_status

    @property
    def has_changes(self) -> bool:
        """The opposite of `is_clean`."""
        return bool(self.file_status)

    @property
    def has_staged(self) -> bool:
        """Whether something is staged."""
        return self.staged_count > 0

    @property
    def has_untracked(self) -> bool:
        """Whether there are files that git does not know."""
        return self.untracked_count > 0

    @property
    def has_conflicts(self) -> bool:
        """Whether a merge waits for decisions."""
        return self.conflict_count > 0

    @property
    def total_count(self) -> int:
        """How many files are changed, staged or not tracked."""
        return len(self.file_status)

    @property
    def staged_count(self) -> int:
        """How many files are staged."""
        return sum(file.staged for file in self.file_status)

    @property
    def unstaged_count(self) -> int:
        """How many files are changed or new, but not staged."""
        return self.total_count - self.staged_count

    @property
    def untracked_count(self) -> int:
        """How many files git does not know."""
        return self._count("untracked")

    @property
    def conflict_count(self) -> int:
        """How many files wait for decisions of a merge."""
        return self._count("conflict")

    def _count(self, status: str) -> int:
        return sum(file.status == status for file in self.file_status)


@dataclass
class GitBranches:
    """The local branches of a repository.

    Attributes:
        branches: Their names.
        current_branch: The one that is checked out; None if there is none yet, or HEAD is detached.
    """

    branches: list[str]
    current_branch: str | None


# -- sandboxes ---------------------------------------------------------------------------------------------------


class SandboxState(StrEnum):
    """Whether a sandbox runs."""

    RUNNING = "running"
    PAUSED = "paused"


class SandboxNetworkOpts(TypedDict):
    """What a sandbox may reach, and who may reach it.

    Attributes:
        allow_out: Addresses, CIDR ranges and host names that it may reach; they win over `deny_out`.
        deny_out: Addresses, CIDR ranges and host names that it may not reach.
        allow_public_traffic: False puts its ports behind a token. Default True.
        mask_request_host: The ``Host`` that its servers see; ``${PORT}`` stands for the port.
        dns_servers: IPv4 addresses that it may reach if `allow_out` has host names, in the place of the default ones.
        https_ports: Its ports that speak HTTPS themselves; their certificates are not looked at.
    """

    allow_out: NotRequired[list[str]]
    deny_out: NotRequired[list[str]]
    allow_public_traffic: NotRequired[bool]
    mask_request_host: NotRequired[str]
    dns_servers: NotRequired[list[str]]
    https_ports: NotRequired[list[int]]


class SandboxNetworkUpdate(TypedDict):
    """What a sandbox may reach from now on, for `update_network`.

    Attributes:
        allow_out: Addresses, CIDR ranges and host names that it may reach; they win over `deny_out`.
        deny_out: Addresses, CIDR ranges and host names that it may not reach.
        dns_servers: IPv4 addresses that it may reach if `allow_out` has host names, in the place of the default ones.
        allow_internet_access: False: nothing outside. Default True.
    """

    allow_out: NotRequired[list[str]]
    deny_out: NotRequired[list[str]]
    dns_servers: NotRequired[list[str]]
    allow_internet_access: NotRequired[bool]


class SandboxLifecycle(TypedDict):
    """What happens when a sandbox's time is over.

    Attributes:
        on_timeout: ``"kill"`` (default) or ``"pause"``.
        auto_resume: Whether a request wakes it up again; only with ``"pause"``. Default False.
    """

    on_timeout: SandboxOnTimeout
    auto_resume: NotRequired[bool]


class SandboxInfoLifecycle(TypedDict):
    """As `SandboxLifecycle`, as the server reports it."""

    on_timeout: SandboxOnTimeout
    auto_resume: bool


@dataclass
class SandboxQuery:
    """Which sandboxes to list.

    Attributes:
        metadata: Only those that have all of these pairs.
        state: Only those in one of these states; None for the running ones.
        started_after: Only those that were started later.
        template: Only those that were created from this template, by its name or id.
    """

    metadata: dict[str, str] | None = None
    state: list[SandboxState] | None = None
    started_after: datetime | None = None
    template: str | None = None


@dataclass
class SandboxInfo:
    """What the control plane knows about a sandbox.

    Attributes:
        sandbox_id: Its id.
        sandbox_domain: Where its ports are reached, if not at the client's own domain.
        template_id: The template that it was created from.
        name: The template's name.
        metadata: What was given to `create`.
        started_at: When it was created or resumed.
        end_at: When its time is over.
        state: Whether it runs.
        cpu_count: How many CPUs it has.
        memory_mb: Its memory in MiB.
        envd_version: The version of the protocol that it speaks.
        allow_internet_access: Whether it may reach the internet; None if that was never said.
        network: Its network rules.
        lifecycle: What happens when its time is over.
        volume_mounts: ``{"name": volume, "path": where}`` of each mounted volume.
        envd_unresponsive_at_pause: Whether its agent did not answer when it was paused, so that it cannot be resumed
            with its memory.
    """

    sandbox_id: str
    sandbox_domain: str | None
    template_id: str
    name: str | None
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime
    state: SandboxState
    cpu_count: int
    memory_mb: int
    envd_version: str
    allow_internet_access: bool | None = None
    network: SandboxNetworkOpts | None = None
    lifecycle: SandboxInfoLifecycle | None = None
    volume_mounts: list[dict[str, str]] = field(default_factory=list)
    envd_unresponsive_at_pause: bool = False


@dataclass
class SandboxMetrics:
    """What a sandbox used at one moment; sizes in bytes."""

    cpu_count: int
    cpu_used_pct: float
    disk_total: int
    disk_used: int
    mem_total: int
    mem_used: int
    timestamp: datetime
    mem_cache: int = 0


@dataclass
class SnapshotInfo:
    """A snapshot of a sandbox.

    Attributes:
        snapshot_id: What `create` takes as its template.
        names: The names that it has besides.
    """

    snapshot_id: str
    names: list[str] = field(default_factory=list)
