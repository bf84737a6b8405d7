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
    from grotte._core.paginator import AsyncSandboxPaginator
    from grotte._core.sandbox import AsyncSandbox
    from grotte._core.uploads import AsyncStreamEntry
    from grotte._sync.command_handle import CommandHandle
    from grotte._sync.commands import Commands
    from grotte._sync.downloads import FileStreamReader
    from grotte._sync.filesystem import Filesystem
    from grotte._sync.paginator import SandboxPaginator
    from grotte._sync.sandbox import Sandbox
    from grotte._sync.uploads import StreamEntry
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
        FileType,
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
    "_core.paginator": ("AsyncSandboxPaginator",),
    "_core.sandbox": ("AsyncSandbox",),
    "_core.uploads": ("AsyncStreamEntry",),
    "_sync.command_handle": ("CommandHandle",),
    "_sync.commands": ("Commands",),
    "_sync.downloads": ("FileStreamReader",),
    "_sync.filesystem": ("Filesystem",),
    "_sync.paginator": ("SandboxPaginator",),
    "_sync.sandbox": ("Sandbox",),
    "_sync.uploads": ("StreamEntry",),
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
    "AsyncSandbox",
    "AsyncSandboxPaginator",
    "AsyncStreamEntry",
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
    "GitAuthException",
    "GitUpstreamException",
    "GrotteException",
    "GuestUnresponsiveException",
    "InvalidArgumentException",
    "NotEnoughSpaceException",
    "NotFoundException",
    "OutputHandler",
    "ProcessInfo",
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
    "SnapshotInfo",
    "Stderr",
    "Stdout",
    "StreamEntry",
    "TemplateException",
    "TimeoutException",
    "Username",
    "VolumeException",
    "VolumeNotFoundException",
    "VolumePathNotFoundException",
    "WriteEntry",
    "WriteInfo",
    "__version__",
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
