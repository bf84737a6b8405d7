"""What is mounted where, as users say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from grotte._proto import arguments, control
from grotte.errors import InvalidArgumentException


@runtime_checkable
class Named(Protocol):
    """What stands for its name: a volume."""

    @property
    def name(self) -> str:
        """The name."""


def volume_mounts(mounts: Mapping[str, str | Named] | None) -> list[control.VolumeMount]:
    """The volume for each path, by its name."""
    names: object = mounts
    if isinstance(mounts, Mapping):
        names = {path: mount.name if isinstance(mount, Named) else mount for path, mount in mounts.items()}
    found = arguments.string_map(names, "volume_mounts")
    if not all(name and path.startswith("/") for path, name in found.items()):
        raise InvalidArgumentException("volume_mounts must give a volume or its name for each absolute path")
    return [control.VolumeMount(name=name, path=path) for path, name in found.items()]
