"""A computer for every AI agent: sandboxes on asyncio, trio and plain sync code.

Example:
    ```python
    from grotte import Sandbox

    with Sandbox.create("base") as sandbox:
        result = sandbox.commands.run('echo "Hello"')
        print(result.stdout)
    ```

Names are imported when they are first used, so that `import grotte` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from grotte._version import __version__

if TYPE_CHECKING:
    from grotte._core._aio import OutputHandler
    from grotte._core.command_handle import AsyncCommandHandle
    from grotte._core.commands import AsyncCommands
    from grotte._core.downloads import AsyncFileStreamReader
    from grotte._core.filesystem import AsyncFilesystem
    from grotte._core.git import AsyncGit
    from grotte._core.paginator import AsyncSandboxPaginator, AsyncSnapshotPaginator
    from grotte._core.pty import AsyncPty
    from grotte._core.pty_handle import AsyncPtyHandle
    from grotte._core.sandbox import AsyncSandbox
    from grotte._core.uploads import AsyncStreamEntry
    from grotte._core.watch import AsyncWatchHandle
    from grotte._proto.git import GitParams
    from grotte._proto.signature import Signature, get_signature
    from grotte._sync.command_handle import CommandHandle
    from grotte._sync.commands import Commands
    from grotte._sync.downloads import FileStreamReader
    from grotte._sync.filesystem import Filesystem
    from grotte._sync.git import Git
    from grotte._sync.paginator import SandboxPaginator, SnapshotPaginator
    from grotte._sync.pty import Pty
    from grotte._sync.pty_handle import PtyHandle
    from grotte._sync.sandbox import Sandbox
    from grotte._sync.uploads import StreamEntry
    from grotte._sync.watch import WatchHandle
    from grotte.config import ApiParams, ConnectionConfig
    from grotte.errors import (
        ApiUnreachableException,
        AuthenticationException,
        BuildException,
        CommandExitException,
        EngineUnavailableException,
        FileNotFoundException,
        FileUploadException,
        GitAuthException,
        GitUpstreamException,
        GrotteException,
        GuestUnresponsiveException,
        InvalidArgumentException,
        NotEnoughSpaceException,
        NotFoundException,
        RateLimitException,
        SandboxException,
        SandboxNotFoundException,
        SandboxNotRunningException,
        SandboxUnreachableException,
        ServiceBusyException,
        TemplateException,
        TimeoutException,
        VolumeException,
        VolumeNotFoundException,
        VolumePathNotFoundException,
    )
    from grotte.models import (
        ALL_TRAFFIC,
        CommandResult,
        EntryInfo,
        FilesystemEvent,
        FilesystemEventType,
        FileType,
        GitBranches,
        GitFileStatus,
        GitStatus,
        ProcessInfo,
        PtyOutput,
        PtySize,
        SandboxInfo,
        SandboxInfoLifecycle,
        SandboxLifecycle,
        SandboxMetrics,
        SandboxNetworkOpts,
        SandboxQuery,
        SandboxState,
        SnapshotInfo,
        Stderr,
        Stdout,
        TransferProgress,
        Username,
        WriteEntry,
        WriteInfo,
    )

#: Where each public name is defined.
_HOMES = {
    "_core._aio": ("OutputHandler",),
    "_core.command_handle": ("AsyncCommandHandle",),
    "_core.commands": ("AsyncCommands",),
    "_core.downloads": ("AsyncFileStreamReader",),
    "_core.filesystem": ("AsyncFilesystem",),
    "_core.git": ("AsyncGit",),
    "_core.paginator": ("AsyncSandboxPaginator", "AsyncSnapshotPaginator"),
    "_core.pty": ("AsyncPty",),
    "_core.pty_handle": ("AsyncPtyHandle",),
    "_core.sandbox": ("AsyncSandbox",),
    "_core.uploads": ("AsyncStreamEntry",),
    "_core.watch": ("AsyncWatchHandle",),
    "_proto.git": ("GitParams",),
    "_proto.signature": ("Signature", "get_signature"),
    "_sync.command_handle": ("CommandHandle",),
    "_sync.commands": ("Commands",),
    "_sync.downloads": ("FileStreamReader",),
    "_sync.filesystem": ("Filesystem",),
    "_sync.git": ("Git",),
    "_sync.paginator": ("SandboxPaginator", "SnapshotPaginator"),
    "_sync.pty": ("Pty",),
    "_sync.pty_handle": ("PtyHandle",),
    "_sync.sandbox": ("Sandbox",),
    "_sync.uploads": ("StreamEntry",),
    "_sync.watch": ("WatchHandle",),
    "config": ("ApiParams", "ConnectionConfig"),
    "errors": (
        "ApiUnreachableException",
        "AuthenticationException",
        "BuildException",
        "CommandExitException",
        "EngineUnavailableException",
        "FileNotFoundException",
        "FileUploadException",
        "GitAuthException",
        "GitUpstreamException",
        "GrotteException",
        "GuestUnresponsiveException",
        "InvalidArgumentException",
        "NotEnoughSpaceException",
        "NotFoundException",
        "RateLimitException",
        "SandboxException",
        "SandboxNotFoundException",
        "SandboxNotRunningException",
        "SandboxUnreachableException",
        "ServiceBusyException",
        "TemplateException",
        "TimeoutException",
        "VolumeException",
        "VolumeNotFoundException",
        "VolumePathNotFoundException",
    ),
    "models": (
        "ALL_TRAFFIC",
        "CommandResult",
        "EntryInfo",
        "FileType",
        "FilesystemEvent",
        "FilesystemEventType",
        "GitBranches",
        "GitFileStatus",
        "GitStatus",
        "ProcessInfo",
        "PtyOutput",
        "PtySize",
        "SandboxInfo",
        "SandboxInfoLifecycle",
        "SandboxLifecycle",
        "SandboxMetrics",
        "SandboxNetworkOpts",
        "SandboxQuery",
        "SandboxState",
        "SnapshotInfo",
        "Stderr",
        "Stdout",
        "TransferProgress",
        "Username",
        "WriteEntry",
        "WriteInfo",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ALL_TRAFFIC",
    "ApiParams",
    "ApiUnreachableException",
    "AsyncCommandHandle",
    "AsyncCommands",
    "AsyncFileStreamReader",
    "AsyncFilesystem",
    "AsyncGit",
    "AsyncPty",
    "AsyncPtyHandle",
    "AsyncSandbox",
    "AsyncSandboxPaginator",
    "AsyncSnapshotPaginator",
    "AsyncStreamEntry",
    "AsyncWatchHandle",
    "AuthenticationException",
    "BuildException",
    "CommandExitException",
    "CommandHandle",
    "CommandResult",
    "Commands",
    "ConnectionConfig",
    "EngineUnavailableException",
    "EntryInfo",
    "FileNotFoundException",
    "FileStreamReader",
    "FileType",
    "FileUploadException",
    "Filesystem",
    "FilesystemEvent",
    "FilesystemEventType",
    "Git",
    "GitAuthException",
    "GitBranches",
    "GitFileStatus",
    "GitParams",
    "GitStatus",
    "GitUpstreamException",
    "GrotteException",
    "GuestUnresponsiveException",
    "InvalidArgumentException",
    "NotEnoughSpaceException",
    "NotFoundException",
    "OutputHandler",
    "ProcessInfo",
    "Pty",
    "PtyHandle",
    "PtyOutput",
    "PtySize",
    "RateLimitException",
    "Sandbox",
    "SandboxException",
    "SandboxInfo",
    "SandboxInfoLifecycle",
    "SandboxLifecycle",
    "SandboxMetrics",
    "SandboxNetworkOpts",
    "SandboxNotFoundException",
    "SandboxNotRunningException",
    "SandboxPaginator",
    "SandboxQuery",
    "SandboxState",
    "SandboxUnreachableException",
    "ServiceBusyException",
    "Signature",
    "SnapshotInfo",
    "SnapshotPaginator",
    "Stderr",
    "Stdout",
    "StreamEntry",
    "TemplateException",
    "TimeoutException",
    "TransferProgress",
    "Username",
    "VolumeException",
    "VolumeNotFoundException",
    "VolumePathNotFoundException",
    "WatchHandle",
    "WriteEntry",
    "WriteInfo",
    "__version__",
    "get_signature",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'grotte' has no attribute {name!r}")
    value: object = getattr(import_module(f"grotte.{home}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
