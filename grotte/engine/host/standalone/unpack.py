"""Unpacking a layer of an image, as root of a user namespace, in a root directory that is the layer's own."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import tarfile

from .archives import WHITEOUT, Archive, ArchiveError

OPAQUE_ATTRIBUTE = "user.overlay.opaque"
ATTRIBUTE = "SCHILY.xattr.user."
#: What checking may need; the library keeps headers in memory.
MEMORY = 512 << 20
LAST_MOMENT = 1 << 33


def enter_and_unpack(target: str, fd: int, limit: int, digest: str) -> int:
    """Make a layer at `target` of the archive that a descriptor reads, and prove its digest.

    Args:
        target: A directory that does not exist; the process can reach nothing but it afterwards.
        fd: The archive, a regular file.
        limit: How many bytes it may unpack to.
        digest: SHA-256 of the unpacked archive, in hexadecimal digits.

    Returns:
        How many bytes it has unpacked to.

    Raises:
        ArchiveError: It is not what it should be.
        OSError: It could not be written.
    """
    os.umask(0o022)
    os.makedirs(f"{target}/fs")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chroot(f"{target}/fs")
    os.chdir("/")
    with open(fd, "rb", buffering=1 << 18) as raw:
        archive = Archive(raw, limit, os.fstat(fd).st_size, image=True)
        unpack(archive)
        found = archive.finish()
    if found != digest:
        raise ArchiveError(f"its content has the digest sha256:{found}, not sha256:{digest}")
    return archive.size


def unpack(archive: Archive) -> None:
    """Write all members below the root directory."""
    directories: list[tuple[str, tarfile.TarInfo]] = []
    for path, member in archive.members():
        place = f"/{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.basename(path).startswith(WHITEOUT):
            _white_out(place)
            continue
        _write(place, member, archive)
        if member.isdir():
            directories.append((place, member))
            os.chmod(place, 0o700 | member.mode & 0o7777)
        elif not member.islnk():
            _finish(place, member)
    for place, member in reversed(directories):
        _finish(place, member)


def _white_out(place: str) -> None:
    """Say that what layers below have here is gone."""
    directory, name = os.path.split(place)
    if name.startswith(f"{WHITEOUT}{WHITEOUT}"):
        os.setxattr(directory, OPAQUE_ATTRIBUTE, b"y")
        return
    hidden = os.path.join(directory, name[len(WHITEOUT) :])
    if os.path.lexists(hidden):
        return  # what this layer has itself wins
    os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))


def _write(place: str, member: tarfile.TarInfo, archive: Archive) -> None:
    if member.isdir():
        os.makedirs(place, exist_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        if not (member.islnk() and os.path.samefile(place, f"/{member.linkname}")):
            os.unlink(place)
    if member.issym():
        os.symlink(member.linkname, place)
    elif member.islnk():
        with contextlib.suppress(FileExistsError):
            os.link(f"/{member.linkname}", place, follow_symlinks=False)
    elif member.isfifo():
        os.mkfifo(place)
    else:
        with open(place, "xb") as file:
            file.writelines(archive.content(member))


def _finish(place: str, member: tarfile.TarInfo) -> None:
    """Owner first: a change of it takes setuid away."""
    try:
        os.chown(place, member.uid, member.gid, follow_symlinks=False)
    except OSError as error:
        raise ArchiveError(f"{place!r} belongs to user {member.uid} and group {member.gid}: {error.strerror}") from None
    if not member.issym():
        os.chmod(place, member.mode & 0o7777)
        for name, value in member.pax_headers.items():
            if name.startswith(ATTRIBUTE) and not name.startswith(f"{ATTRIBUTE}overlay."):
                os.setxattr(place, name.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape"))
    moment = int(min(max(member.mtime, 0), LAST_MOMENT)) * 1_000_000_000
    os.utime(place, ns=(moment, moment), follow_symlinks=False)
