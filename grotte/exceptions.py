"""The exceptions under the module name of the PyPI client 0.2.0; all of them are in `grotte.errors`."""

from __future__ import annotations

from grotte.errors import (
    AuthenticationException,
    BuildException,
    FileNotFoundException,
    FileUploadException,
    GitAuthException,
    GitUpstreamException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    TemplateException,
    TimeoutException,
    VolumeException,
)

__all__ = [
    "AuthenticationException",
    "BuildException",
    "FileNotFoundException",
    "FileUploadException",
    "GitAuthException",
    "GitUpstreamException",
    "InvalidArgumentException",
    "NotEnoughSpaceException",
    "NotFoundException",
    "RateLimitException",
    "SandboxException",
    "SandboxNotFoundException",
    "TemplateException",
    "TimeoutException",
    "VolumeException",
]
