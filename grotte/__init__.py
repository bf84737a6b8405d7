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
    from grotte._budget import SharedBudget
    from grotte._core._aio import OutputHandler
    from grotte._core.account import AsyncGrotte
    from grotte._core.command_handle import AsyncCommandHandle
    from grotte._core.commands import AsyncCommands
    from grotte._core.downloads import AsyncFileStreamReader
    from grotte._core.filesystem import AsyncFilesystem
    from grotte._core.fleet.fleet import AsyncFleet
    from grotte._core.fleet.mapping import AsyncFleetMap
    from grotte._core.git import AsyncGit
    from grotte._core.paginator import AsyncSandboxPaginator, AsyncSnapshotPaginator
    from grotte._core.pty import AsyncPty
    from grotte._core.pty_handle import AsyncPtyHandle
    from grotte._core.sandbox import AsyncSandbox
    from grotte._core.template import AsyncTemplate
    from grotte._core.uploads import AsyncStreamEntry, AsyncWriteData
    from grotte._core.volume import AsyncVolume
    from grotte._core.watch import AsyncWatchHandle
    from grotte._proto.calls import CallParams, RequestParams
    from grotte._proto.fleet.results import (
        FailureKind,
        FleetAttempt,
        FleetFailure,
        FleetResult,
        FleetStats,
        FleetSuccess,
    )
    from grotte._proto.git import GitConfigScope, GitParams, GitResetMode
    from grotte._proto.options import Counters, TransportOptions
    from grotte._proto.signature import Signature, get_signature
    from grotte._proto.templates.base import TemplateBase, TemplateClass
    from grotte._proto.templates.builder import CopyItem, TemplateBuilder, TemplateFinal
    from grotte._proto.templates.logger import default_build_logger
    from grotte._proto.templates.ready import (
        ReadyCmd,
        wait_for_file,
        wait_for_port,
        wait_for_process,
        wait_for_timeout,
        wait_for_url,
    )
    from grotte._proto.templates.results import (
        BuildInfo,
        BuildStatusReason,
        LogEntry,
        LogEntryEnd,
        LogEntryLevel,
        LogEntryStart,
        TemplateBuildStatus,
        TemplateBuildStatusResponse,
        TemplateInfo,
        TemplateTag,
        TemplateTagInfo,
    )
    from grotte._sync.account import Grotte
    from grotte._sync.command_handle import CommandHandle
    from grotte._sync.commands import Commands
    from grotte._sync.downloads import FileStreamReader
    from grotte._sync.filesystem import Filesystem
    from grotte._sync.fleet.fleet import Fleet
    from grotte._sync.fleet.mapping import FleetMap
    from grotte._sync.git import Git
    from grotte._sync.paginator import SandboxPaginator, SnapshotPaginator
    from grotte._sync.pty import Pty
    from grotte._sync.pty_handle import PtyHandle
    from grotte._sync.sandbox import Sandbox
    from grotte._sync.template import Template
    from grotte._sync.uploads import StreamEntry, WriteData
    from grotte._sync.volume import Volume
    from grotte._sync.watch import WatchHandle
    from grotte.config import ApiParams, ConnectionConfig, VolumeApiParams, VolumeConnectionConfig
    from grotte.errors import (
        ApiUnreachableException,
        AuthenticationException,
        BuildException,
        ClientClosedException,
        CommandExitException,
        DockerfileSyntaxError,
        DoNotRetryException,
        EngineUnavailableException,
        FileNotFoundException,
        FileUploadException,
        FleetClosedException,
        GitAuthException,
        GitUpstreamException,
        GrotteException,
        GuestUnresponsiveException,
        InvalidArgumentException,
        NotEnoughSpaceException,
        NotFoundException,
        RateLimitException,
        SandboxesLeftException,
        SandboxException,
        SandboxHostUnreachableException,
        SandboxNotFoundException,
        SandboxNotRunningException,
        SandboxUnreachableException,
        SecretException,
        SecretNotFoundException,
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
        SandboxListOrder,
        SandboxMetrics,
        SandboxNetworkOpts,
        SandboxNetworkUpdate,
        SandboxOnResume,
        SandboxOnTimeout,
        SandboxQuery,
        SandboxState,
        SnapshotInfo,
        SnapshotMode,
        Stderr,
        Stdout,
        TransferProgress,
        Username,
        WriteEntry,
        WriteInfo,
    )
    from grotte.volume_models import VolumeAndToken, VolumeEntryStat, VolumeFileType, VolumeInfo

#: Where each public name is defined.
_HOMES = {
    "_budget": ("SharedBudget",),
    "_core._aio": ("OutputHandler",),
    "_core.account": ("AsyncGrotte",),
    "_core.command_handle": ("AsyncCommandHandle",),
    "_core.commands": ("AsyncCommands",),
    "_core.downloads": ("AsyncFileStreamReader",),
    "_core.filesystem": ("AsyncFilesystem",),
    "_core.fleet.fleet": ("AsyncFleet",),
    "_core.fleet.mapping": ("AsyncFleetMap",),
    "_core.git": ("AsyncGit",),
    "_core.paginator": ("AsyncSandboxPaginator", "AsyncSnapshotPaginator"),
    "_core.pty": ("AsyncPty",),
    "_core.pty_handle": ("AsyncPtyHandle",),
    "_core.sandbox": ("AsyncSandbox",),
    "_core.template": ("AsyncTemplate",),
    "_core.uploads": ("AsyncStreamEntry", "AsyncWriteData"),
    "_core.volume": ("AsyncVolume",),
    "_core.watch": ("AsyncWatchHandle",),
    "_proto.fleet.results": (
        "FailureKind",
        "FleetAttempt",
        "FleetFailure",
        "FleetResult",
        "FleetStats",
        "FleetSuccess",
    ),
    "_proto.calls": ("CallParams", "RequestParams"),
    "_proto.git": ("GitConfigScope", "GitParams", "GitResetMode"),
    "_proto.options": ("Counters", "TransportOptions"),
    "_proto.signature": ("Signature", "get_signature"),
    "_proto.templates.base": (
        "TemplateBase",
        "TemplateClass",
    ),
    "_proto.templates.builder": ("CopyItem", "TemplateBuilder", "TemplateFinal"),
    "_proto.templates.logger": ("default_build_logger",),
    "_proto.templates.ready": (
        "ReadyCmd",
        "wait_for_file",
        "wait_for_port",
        "wait_for_process",
        "wait_for_timeout",
        "wait_for_url",
    ),
    "_proto.templates.results": (
        "BuildInfo",
        "BuildStatusReason",
        "LogEntry",
        "LogEntryEnd",
        "LogEntryLevel",
        "LogEntryStart",
        "TemplateBuildStatus",
        "TemplateBuildStatusResponse",
        "TemplateInfo",
        "TemplateTag",
        "TemplateTagInfo",
    ),
    "_sync.account": ("Grotte",),
    "_sync.command_handle": ("CommandHandle",),
    "_sync.commands": ("Commands",),
    "_sync.downloads": ("FileStreamReader",),
    "_sync.filesystem": ("Filesystem",),
    "_sync.fleet.fleet": ("Fleet",),
    "_sync.fleet.mapping": ("FleetMap",),
    "_sync.git": ("Git",),
    "_sync.paginator": ("SandboxPaginator", "SnapshotPaginator"),
    "_sync.pty": ("Pty",),
    "_sync.pty_handle": ("PtyHandle",),
    "_sync.sandbox": ("Sandbox",),
    "_sync.template": ("Template",),
    "_sync.uploads": ("StreamEntry", "WriteData"),
    "_sync.volume": ("Volume",),
    "_sync.watch": ("WatchHandle",),
    "config": ("ApiParams", "ConnectionConfig", "VolumeApiParams", "VolumeConnectionConfig"),
    "errors": (
        "ApiUnreachableException",
        "AuthenticationException",
        "BuildException",
        "ClientClosedException",
        "CommandExitException",
        "DockerfileSyntaxError",
        "DoNotRetryException",
        "EngineUnavailableException",
        "FileNotFoundException",
        "FileUploadException",
        "FleetClosedException",
        "GitAuthException",
        "GitUpstreamException",
        "GrotteException",
        "GuestUnresponsiveException",
        "InvalidArgumentException",
        "NotEnoughSpaceException",
        "NotFoundException",
        "RateLimitException",
        "SandboxesLeftException",
        "SandboxException",
        "SandboxHostUnreachableException",
        "SandboxNotFoundException",
        "SandboxNotRunningException",
        "SandboxUnreachableException",
        "SecretException",
        "SecretNotFoundException",
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
        "SandboxListOrder",
        "SandboxMetrics",
        "SandboxNetworkOpts",
        "SandboxNetworkUpdate",
        "SandboxOnResume",
        "SandboxOnTimeout",
        "SandboxQuery",
        "SandboxState",
        "SnapshotInfo",
        "SnapshotMode",
        "Stderr",
        "Stdout",
        "TransferProgress",
        "Username",
        "WriteEntry",
        "WriteInfo",
    ),
    "volume_models": ("VolumeAndToken", "VolumeEntryStat", "VolumeFileType", "VolumeInfo"),
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
    "AsyncFleet",
    "AsyncFleetMap",
    "AsyncGit",
    "AsyncGrotte",
    "AsyncPty",
    "AsyncPtyHandle",
    "AsyncSandbox",
    "AsyncSandboxPaginator",
    "AsyncSnapshotPaginator",
    "AsyncStreamEntry",
    "AsyncTemplate",
    "AsyncVolume",
    "AsyncWatchHandle",
    "AsyncWriteData",
    "AuthenticationException",
    "BuildException",
    "BuildInfo",
    "BuildStatusReason",
    "CallParams",
    "ClientClosedException",
    "CommandExitException",
    "CommandHandle",
    "CommandResult",
    "Commands",
    "ConnectionConfig",
    "CopyItem",
    "Counters",
    "DoNotRetryException",
    "DockerfileSyntaxError",
    "EngineUnavailableException",
    "EntryInfo",
    "FailureKind",
    "FileNotFoundException",
    "FileStreamReader",
    "FileType",
    "FileUploadException",
    "Filesystem",
    "FilesystemEvent",
    "FilesystemEventType",
    "Fleet",
    "FleetAttempt",
    "FleetClosedException",
    "FleetFailure",
    "FleetMap",
    "FleetResult",
    "FleetStats",
    "FleetSuccess",
    "Git",
    "GitAuthException",
    "GitBranches",
    "GitConfigScope",
    "GitFileStatus",
    "GitParams",
    "GitResetMode",
    "GitStatus",
    "GitUpstreamException",
    "Grotte",
    "GrotteException",
    "GuestUnresponsiveException",
    "InvalidArgumentException",
    "LogEntry",
    "LogEntryEnd",
    "LogEntryLevel",
    "LogEntryStart",
    "NotEnoughSpaceException",
    "NotFoundException",
    "OutputHandler",
    "ProcessInfo",
    "Pty",
    "PtyHandle",
    "PtyOutput",
    "PtySize",
    "RateLimitException",
    "ReadyCmd",
    "RequestParams",
    "Sandbox",
    "SandboxException",
    "SandboxHostUnreachableException",
    "SandboxInfo",
    "SandboxInfoLifecycle",
    "SandboxLifecycle",
    "SandboxListOrder",
    "SandboxMetrics",
    "SandboxNetworkOpts",
    "SandboxNetworkUpdate",
    "SandboxNotFoundException",
    "SandboxNotRunningException",
    "SandboxOnResume",
    "SandboxOnTimeout",
    "SandboxPaginator",
    "SandboxQuery",
    "SandboxState",
    "SandboxUnreachableException",
    "SandboxesLeftException",
    "SecretException",
    "SecretNotFoundException",
    "ServiceBusyException",
    "SharedBudget",
    "Signature",
    "SnapshotInfo",
    "SnapshotMode",
    "SnapshotPaginator",
    "Stderr",
    "Stdout",
    "StreamEntry",
    "Template",
    "TemplateBase",
    "TemplateBuildStatus",
    "TemplateBuildStatusResponse",
    "TemplateBuilder",
    "TemplateClass",
    "TemplateException",
    "TemplateFinal",
    "TemplateInfo",
    "TemplateTag",
    "TemplateTagInfo",
    "TimeoutException",
    "TransferProgress",
    "TransportOptions",
    "Username",
    "Volume",
    "VolumeAndToken",
    "VolumeApiParams",
    "VolumeConnectionConfig",
    "VolumeEntryStat",
    "VolumeException",
    "VolumeFileType",
    "VolumeInfo",
    "VolumeNotFoundException",
    "VolumePathNotFoundException",
    "WatchHandle",
    "WriteData",
    "WriteEntry",
    "WriteInfo",
    "__version__",
    "default_build_logger",
    "get_signature",
    "wait_for_file",
    "wait_for_port",
    "wait_for_process",
    "wait_for_timeout",
    "wait_for_url",
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
