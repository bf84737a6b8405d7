"""The generated layers of template ``base``: a fresh root over the host's /usr."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator

from . import trees
from .namespaces import DATA, HOST_USR, IdMap, fork_mapped

USER_ID = 1000
BASE = f"{DATA}/host/base"
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
NOT_COPIED = shutil.ignore_patterns("modules", "firmware")
COPY_LIMIT = 8 << 20
SCANNERS = 8
SPREAD_DEPTH = 2

# Of the host's /etc only what programs under /usr need and what says nothing about the host or its people.
ETC = (
    "alternatives", "ca-certificates.conf", "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls/certs",
    "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust/extracted", "crypto-policies", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "ld-musl-aarch64.path", "os-release",
    "debian_version", "alpine-release", "redhat-release", "lsb-release", "localtime", "mime.types",
    "protocols", "services", "rpc", "magic", "inputrc", "bash.bashrc", "bashrc", "gai.conf", "host.conf",
    "locale.alias", "locale.conf", "terminfo", "perl", "fonts", "python3", "python3.11", "python3.12",
    "python3.13", "vim", "nanorc", "java-17-openjdk", "java-21-openjdk",
)  # fmt: skip

ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
user:x:1000:1000:user:/home/user:/bin/bash
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
utmp:x:43:
shadow:x:42:
sudo:x:27:user
audio:x:29:
video:x:44:
staff:x:50:
users:x:100:
nogroup:x:65534:
user:x:1000:
"""
# Only inside: without passwords nothing can log in, and nothing listens.
SHADOW = "root::19000:0:99999:7:::\nuser::19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
PROFILE = """\
: "${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export PATH
if [ "${PS1-}" ] && [ -n "${BASH_VERSION-}" ] && [ -r /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
for script in /etc/profile.d/*.sh; do
  if [ -r "$script" ]; then . "$script"; fi
done
unset script
"""
DOT_PROFILE = 'if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then . "$HOME/.bashrc"; fi\n'
TEXTS = {
    "etc/passwd": ACCOUNTS,
    "etc/group": GROUP,
    "etc/nsswitch.conf": NSSWITCH,
    "etc/profile": PROFILE,
    "etc/shells": "/bin/sh\n/bin/bash\n",
    "etc/resolv.conf": "",
    "etc/fstab": "",
    "etc/environment": "",
    "root/.profile": DOT_PROFILE,
    "home/user/.profile": DOT_PROFILE,
    "root/.bashrc": "",
    "home/user/.bashrc": "",
}
DIRECTORIES = {
    "dev": 0o755, "etc": 0o755, "etc/profile.d": 0o755, "home": 0o755, "home/user": 0o755, "media": 0o755,
    "mnt": 0o755, "opt": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "srv": 0o755, "sys": 0o555,
    "tmp": 0o1777, "usr": 0o755, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/log": 0o755,
    "var/mail": 0o755, "var/opt": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
# Directories that exist in the layer can be written to even where the host's own belong to nobody inside.
WRITABLE_USR = ("", "bin", "local", "local/bin", "local/etc", "local/include", "local/lib", "local/sbin", "local/share")
LINKS = {"var/run": "/run", "var/lock": "/run", "etc/mtab": "/proc/self/mounts"}


def build(ids: IdMap) -> None:
    """Generate the layer afresh, as root of a sandbox's user namespace, so that its files belong there.

    Raises:
        RuntimeError: It could not be generated.
    """
    pid = fork_mapped(ids, ids.owner(0), lambda: None, lambda: _build(ids.privileged))
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("the layers of template base could not be generated")


def _build(privileged: bool) -> None:
    os.umask(0o022)
    trees.remove(BASE)
    os.makedirs(f"{BASE}/fs")
    _make_root(f"{BASE}/fs")
    for name in ETC:
        _copy_public(f"/etc/{name}", f"{BASE}/fs/etc/{name}")
    _copy_top_level(f"{BASE}/fs")
    _make_usr(f"{BASE}/usr", privileged)


def _make_root(root: str) -> None:
    for name, mode in DIRECTORIES.items():
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)
    for name, text in TEXTS.items():
        _write(f"{root}/{name}", text)
    _write(f"{root}/etc/shadow", SHADOW)
    os.chmod(f"{root}/etc/shadow", 0o640)
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/{name}")
    for name in ("", "/.profile", "/.bashrc"):
        os.chown(f"{root}/home/user{name}", USER_ID, USER_ID)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _copy_public(source: str, target: str) -> None:
    """Copy a file or directory as far as everybody on the host may read it."""
    try:
        info = os.lstat(source)
    except OSError:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(info.st_mode) and info.st_mode & 0o004 and info.st_size <= COPY_LIMIT:
        shutil.copyfile(source, target)
        os.chmod(target, info.st_mode & 0o755)
    elif stat.S_ISDIR(info.st_mode) and info.st_mode & 0o005 == 0o005:
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(source):
            _copy_public(f"{source}/{name}", f"{target}/{name}")


def _copy_top_level(root: str) -> None:
    """Where /bin is a link to /usr/bin, link; where it is a directory of its own, copy it."""
    for name in MERGED:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            shutil.copytree(f"/{name}", f"{root}/{name}", symlinks=True, ignore=NOT_COPIED)


def _make_usr(layer: str, privileged: bool) -> None:
    for name in WRITABLE_USR:
        if name in ("", "bin") or not privileged or not os.path.isdir(f"{HOST_USR}/{name}"):
            os.makedirs(f"{layer}/{name}", exist_ok=True)
    if not os.path.lexists(f"{HOST_USR}/bin/python"):
        os.symlink("python3", f"{layer}/bin/python")
    if privileged:
        for name in private_entries(HOST_USR):
            os.makedirs(os.path.dirname(f"{layer}/{name}"), exist_ok=True)
            os.mknod(f"{layer}/{name}", stat.S_IFCHR, os.makedev(0, 0))  # overlayfs: "there is no such file"


def private_entries(root: str) -> Iterator[str]:
    """Yield what is not for everybody, relative to the root.

    Root inside is shown as the owner of the host's files and could read them all; these it must not even see.
    """
    level, found = [""], list[str]()
    for _ in range(SPREAD_DEPTH):
        below: list[str] = []
        for directory in level:
            _scan(root, directory, below, found)
        level = below
    yield from found
    # A hundred thousand files take seconds with a cold cache, so processes share the work.
    workers = [_scan_apart(root, level[index::SCANNERS]) for index in range(SCANNERS)]
    for pid, results in workers:
        with open(results, "rb") as file:
            yield from (os.fsdecode(name) for name in file.read().split(b"\0") if name)
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError(f"{root} could not be searched for private files")


def _scan_apart(root: str, pending: list[str]) -> tuple[int, int]:
    """Scan trees in a process of its own; return its pid and where it writes what it found."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    status = 1
    try:
        found: list[str] = []
        while pending:
            _scan(root, pending.pop(), pending, found)
        with open(write, "wb") as file:
            file.write(b"\0".join(map(os.fsencode, found)))
        status = 0
    finally:
        os._exit(status)


def _scan(root: str, directory: str, directories: list[str], found: list[str]) -> None:
    """Sort the entries of one directory into directories to scan and things that are not for everybody."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):  # the host's packages may be changing
        names = os.listdir(f"{root}/{directory}")
    for name in names:
        mode = _mode(f"{root}/{directory}{name}")
        wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
        if not stat.S_ISLNK(mode) and mode & wanted != wanted:
            found.append(f"{directory}{name}")
        elif stat.S_ISDIR(mode):
            directories.append(f"{directory}{name}/")


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0  # private, should it come back
