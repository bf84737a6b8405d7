"""What template ``base`` has of what people expect of such a computer: it stands on the host's ``/usr``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .spec import Check

PLACES = ("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/bin", "/sbin")
#: A program → the package that brings it, where that has another name.
PROGRAMS = {
    "bash": "", "ls": "coreutils", "curl": "", "git": "", "python3": "", "pip3": "python3-pip", "tput": "ncurses-bin",
}  # fmt: skip
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
TERMINFO = ("/lib/terminfo/x/xterm", "/usr/share/terminfo/x/xterm", "/etc/terminfo/x/xterm")
LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8", "/usr/lib/locale/locale-archive")


def check_base() -> Check:
    """Say what the host lacks for template ``base``."""
    lacking = dict(_lacking())
    if not lacking:
        return Check("template base", "ok", "has bash, curl, git, python3, pip, tput, certificates, a UTF-8 locale")
    packages = " ".join(sorted({package for package in lacking.values() if package}))
    return Check("template base", "degraded", f"without {', '.join(lacking)}", f"on Debian: apt-get install {packages}")


def _lacking() -> Iterator[tuple[str, str]]:
    for program, package in PROGRAMS.items():
        if not any(os.access(f"{place}/{program}", os.X_OK) for place in PLACES):
            yield program, package or program
    for title, paths, package in (
        ("CA certificates", CERTIFICATES, "ca-certificates"),
        ("terminfo", TERMINFO, "ncurses-base"),
        ("the locale C.UTF-8", LOCALES, "libc-bin"),
    ):
        if not any(map(os.path.exists, paths)):
            yield title, package


def check_attributes(place: Path) -> Check:
    """Say whether files in sandboxes can have metadata."""
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix="grotte-doctor-") as file:
            os.setxattr(file.name, "user.grotte", b"1")
    except OSError as error:
        detail = f"files have no metadata: {error.strerror}"
        remedy = "put the data directory on ext4, xfs or btrfs, or on tmpfs of Linux 6.6 or newer"
        return Check("attributes", "degraded", detail, remedy)
    return Check("attributes", "ok", "files have user.* attributes")


def check_packages() -> Check:
    """Say whether more can be installed inside."""
    if not os.path.exists("/var/lib/dpkg/status") or not os.path.exists("/usr/bin/apt-get"):
        return Check("packages", "degraded", "no apt-get inside", "use a host with apt, or templates made from images")
    if os.getuid() != 0:
        detail = "apt-get adds packages, but cannot replace those of the host"
        return Check("packages", "degraded", detail, "run as root, or use templates made from images")
    return Check("packages", "ok", "apt-get")
