"""What a request for a sandbox says of volumes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from itertools import pairwise

from grotte._proto import control
from grotte.engine.faults import ControlFault
from grotte.engine.lifecycle.volumes import VolumeMount, Volumes

MAX_MOUNTS = 16
MAX_PATH = 1024
#: Where a sandbox would not work any more, or where a volume would not be seen.
_CLOSED = frozenset({"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/var"})
_CLOSED_BELOW = ("/proc", "/sys", "/dev", "/run")


def read_mounts(asked: Iterable[control.VolumeMount], owner: str, volumes: Volumes) -> tuple[VolumeMount, ...]:
    """The volumes that a sandbox is to have.

    Raises:
        ControlFault: 400, a place cannot be; 404, there is no such volume.
    """
    mounts = [volumes.mount(owner, mount.name, _place(mount.path)) for mount in asked]
    if len(mounts) > MAX_MOUNTS:
        raise ControlFault(400, f"a sandbox can have at most {MAX_MOUNTS} volumes")
    places = sorted(f"{mount.path}/" for mount in mounts)
    for one, other in pairwise(places):
        if other.startswith(one):
            raise ControlFault(400, f"volumeMounts: {other[:-1]} is a place of two volumes, or in another volume")
    return tuple(mounts)


def _place(path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path) > MAX_PATH:
        raise ControlFault(400, "volumeMounts: a path must be absolute, without '..' or NUL")
    place = posixpath.normpath(path).replace("//", "/")
    if place in _CLOSED or any(place == closed or place.startswith(f"{closed}/") for closed in _CLOSED_BELOW):
        raise ControlFault(400, f"volumeMounts: a volume cannot be at {place}")
    return place
