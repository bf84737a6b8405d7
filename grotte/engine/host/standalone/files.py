"""File operations inside the sandbox, as its root: a path can lead nowhere but into the sandbox."""

from __future__ import annotations

import errno
import os
import stat

from . import trees
from .accounts import Account, Accounts
from .entries import METADATA_PREFIX, describe, printable
from .lean import allocate_lock, suppress
from .wire import Json, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY_MODE = 0o755
FILE_MODE = 0o644
COPY_CHUNK = 1 << 20
MAX_PAGE = 8 << 20  # bytes of a list in one answer: half of what a frame holds
ENTRY_KEYS = 300
MAX_SPECIAL_FILE = 16 << 20

_CODES = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ELOOP: "failed_precondition",
    errno.ENAMETOOLONG: "invalid_argument",
    errno.EINVAL: "invalid_argument",
    errno.EISDIR: "invalid_argument",
    errno.ENXIO: "invalid_argument",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "resource_exhausted",
    errno.EDQUOT: "resource_exhausted",
    errno.EMFILE: "resource_exhausted",
    errno.ENFILE: "resource_exhausted",
}


def refusal(error: OSError, path: str) -> RefusedError:
    """Say an error of the system in the words of the protocol."""
    code = _CODES.get(error.errno or 0, "internal")
    reason = "no such file or directory" if code == "not_found" else (error.strerror or "failed").lower()
    return RefusedError(code, f"{printable(path)}: {reason}")


def resolve(path: str, account: Account) -> str:
    """Apply the protocol's rules for paths; symlinks are left to the kernel.

    Raises:
        RefusedError: The path contains NUL or names another user's home.
    """
    if "\0" in path:
        raise RefusedError("invalid_argument", "a path must not contain NUL")
    if path in ("", "~") or path.startswith("~/"):
        path = account.home + path[1:]
    elif path.startswith("~"):
        raise RefusedError("invalid_argument", f"cannot resolve the home directory of another user: {path}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise RefusedError("invalid_argument", "a path must be valid text") from None
    return os.path.normpath(os.path.join("/", account.home, path)).replace("//", "/", 1)


class Files:
    """The file operations; any thread may call them."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._uploads: dict[int, tuple[str, str, Account]] = {}
        self._lock = allocate_lock()
        self._next = 0

    def stat(self, path: str, account: Account) -> Json:
        """Describe one file."""
        path = resolve(path, account)
        try:
            return describe(path, self._accounts)
        except OSError as error:
            raise refusal(error, path) from error

    def list_dir(self, path: str, depth: int, skip: int, account: Account) -> Json:
        """Describe the entries of a directory, and of those below it down to a depth, in lexical order.

        One answer holds so much: it says how many to skip in the next question, or 0 at the end.
        """
        path = resolve(path, account)
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise RefusedError("invalid_argument", f"path is not a directory: {path}")
            return self._page(path, max(depth, 1), skip)
        except OSError as error:
            raise refusal(error, path) from error

    def _page(self, path: str, depth: int, skip: int) -> Json:
        entries: list[Json] = []
        size = 0
        for number, child in enumerate(_walk(path, depth)):
            if size > MAX_PAGE:
                return {"entries": entries, "next": number}
            if number >= skip:
                with suppress(FileNotFoundError, NotADirectoryError):  # removed under the walk
                    entries.append(describe(child, self._accounts))
                    size += _length(entries[-1])
        return {"entries": entries, "next": 0}

    def make_dir(self, path: str, account: Account) -> Json:
        """Make a directory with its missing parents."""
        path = resolve(path, account)
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise RefusedError("already_exists", f"directory already exists: {path}")
            raise RefusedError("invalid_argument", f"path already exists but it is not a directory: {path}")
        except FileNotFoundError:
            pass
        except OSError as error:
            code = "internal" if error.errno == errno.ENOTDIR else refusal(error, path).code
            raise RefusedError(code, f"{path}: {(error.strerror or 'failed').lower()}") from error
        _prepare_parents(path, account, path)
        try:
            return describe(path, self._accounts)
        except OSError as error:
            raise refusal(error, path) from error

    def move(self, source: str, destination: str, account: Account) -> Json:
        """Rename a file or directory, replacing a file that is there."""
        source, destination = resolve(source, account), resolve(destination, account)
        try:
            os.lstat(source)
        except OSError as error:
            raise refusal(error, source) from error
        _prepare_parents(destination, account)
        try:
            os.rename(source, destination)
            return describe(destination, self._accounts)
        except FileNotFoundError as error:
            raise refusal(error, source) from error
        except OSError as error:
            reason = (error.strerror or "failed").lower()
            raise RefusedError("internal", f"cannot move {source} to {destination}: {reason}") from error

    def remove(self, path: str, account: Account) -> None:
        """Remove a file or a whole directory; a missing path is no error."""
        path = resolve(path, account)
        if path == "/":
            raise RefusedError("invalid_argument", "the root directory cannot be removed")
        try:
            trees.remove(path)
        except NotADirectoryError:  # a parent is a file, so the path does not exist
            pass
        except OSError as error:
            raise refusal(error, path) from error

    def open_read(self, path: str, account: Account) -> tuple[Json, int]:
        """Open a regular file for reading, whoever owns it."""
        path = resolve(path, account)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise refusal(error, path) from error
        try:
            fd = _plain(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return {"path": path}, fd

    def open_write(self, path: str, metadata: dict[str, str], account: Account) -> tuple[Json, int]:
        """Open a new file beside the target, to take its place when it is complete."""
        requested = resolve(path, account)
        path = os.path.realpath(requested)
        parent = os.path.dirname(path)
        try:
            mode = _replaceable_mode(path)
            _prepare_parents(requested, account, parent)
            # watches tell by the name what the upload does to its target
            kind = "over" if os.path.lexists(path) else "part"
            temporary = f"{parent.rstrip('/')}/.grotte.{os.urandom(8).hex()}.{kind}"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:  # the directory is there: of /proc, for one
            raise RefusedError("internal", f"{printable(requested)}: no file can be made there") from error
        except OSError as error:
            raise refusal(error, requested) from error
        try:
            os.fchown(fd, account.uid, account.gid)
            os.fchmod(fd, mode)
            for key, value in metadata.items():
                os.setxattr(fd, METADATA_PREFIX + key, value.encode())
        except OSError as error:
            os.close(fd)
            os.unlink(temporary)
            raise refusal(error, requested) from error
        with self._lock:
            self._next += 1
            token = self._next
            self._uploads[token] = (temporary, path, account)
        return {"path": requested, "token": token}, fd

    def commit(self, token: int) -> Json:
        """Put an uploaded file in its place."""
        temporary, path, _ = self._upload(token)
        try:
            os.rename(temporary, path)
            return describe(path, self._accounts)
        except FileNotFoundError as error:
            raise RefusedError("internal", f"{printable(path)}: its directory was removed meanwhile") from error
        except OSError as error:
            _discard(temporary)
            raise refusal(error, path) from error

    def abort(self, token: int) -> None:
        """Forget an upload and its bytes."""
        _discard(self._upload(token)[0])

    def _upload(self, token: int) -> tuple[str, str, Account]:
        with self._lock:
            found = self._uploads.pop(token, None)
        if found is None:
            raise RefusedError("not_found", "no such upload")
        return found


def _walk(path: str, depth: int) -> Iterator[str]:
    """Yield what is in a directory, and below it down to a depth; what closes or goes under the walk is left out."""
    pending = [(f"{path.rstrip('/')}/{name}", 1) for name in sorted(os.listdir(path), reverse=True)]
    while pending:
        child, level = pending.pop()
        yield child
        if level < depth:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # of /proc, some
                if stat.S_ISDIR(os.lstat(child).st_mode):
                    pending += [(f"{child}/{name}", level + 1) for name in sorted(os.listdir(child), reverse=True)]


def _length(entry: Json) -> int:
    """How long a description is at most on its way to the engine."""
    texts = [str(value) for value in entry.values()]
    plain = all(text.isascii() and text.isprintable() for text in texts)
    return ENTRY_KEYS + (2 if plain else 6) * sum(map(len, texts))


def _discard(path: str) -> None:
    with suppress(OSError):  # someone inside was faster
        os.unlink(path)


def _prepare_parents(path: str, account: Account, parent: str = "") -> None:
    """Make what is missing above a path, or down to a parent of another name, in the words of the protocol.

    Raises:
        RefusedError: internal, a file is in the way.
    """
    try:
        _make_parents(parent or os.path.dirname(path), account)
    except NotADirectoryError as error:
        raise RefusedError("internal", f"{printable(path)}: a parent is not a directory") from error
    except OSError as error:
        raise refusal(error, path) from error


def _make_parents(path: str, account: Account) -> None:
    """``mkdir -p``; what is new belongs to the user."""
    missing = []
    while True:
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            break
        except FileNotFoundError:
            missing.append(path)
            path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, DIRECTORY_MODE)
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
        except FileExistsError:
            if not os.path.isdir(directory):
                raise


def _replaceable_mode(path: str) -> int:
    """Return the mode that a file has or will have; refuse what cannot be replaced by a file."""
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return FILE_MODE
    if stat.S_ISDIR(info.st_mode):
        raise RefusedError("invalid_argument", f"path is a directory: {path}")
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError("invalid_argument", f"path is not a regular file: {path}")
    return info.st_mode & 0o777


def _plain(fd: int, path: str) -> int:
    """Check that a descriptor is a regular file on a real file system; a copy stands in for files of /proc.

    The engine reads with its own rights, and some files of /proc answer according to who reads.
    """
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        raise RefusedError("invalid_argument", f"path is a directory: {path}")
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError("invalid_argument", f"path is not a regular file: {path}")
    if info.st_dev != os.stat("/proc/self").st_dev:
        return fd
    copy = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        size = 0
        while size < MAX_SPECIAL_FILE and (chunk := os.read(fd, COPY_CHUNK)):
            os.write(copy, chunk)
            size += len(chunk)
        os.lseek(copy, 0, os.SEEK_SET)
    except OSError as error:
        os.close(copy)
        raise refusal(error, path) from error
    os.close(fd)
    return copy
