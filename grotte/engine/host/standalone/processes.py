"""Starting, signalling and reaping the processes of a sandbox."""

from __future__ import annotations

import errno
import posix

from . import credentials, family
from .accounts import Account, Accounts
from .lean import exists, is_directory, suppress
from .wire import Json, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Iterator, Sequence

    from .terminals import Terminals

SHELL, BASH = "/bin/sh", "/bin/bash"
OOM_SCORE = b"100"
#: Of so many commands that ended what they left can still be found.
MAX_OVER = 1024
NULL_FD = 0  # the guest's own stdin reads nothing, either


class Order:
    """What a process is started with, checked.

    Attributes:
        groups: All of the user's.
        fds: The engine's pipe ends: stdin (if any), stdout and stderr, or what is typed and shown on a terminal.
        size: Columns and rows of its terminal, if it gets one.
    """

    def __init__(
        self,
        account: Account,
        groups: list[int],
        cwd: str,
        environment: dict[str, str],
        fds: Sequence[int],
        size: tuple[int, int] | None,
    ) -> None:
        self.account = account
        self.groups = groups
        self.cwd = cwd
        self.environment = environment
        self.fds = fds
        self.size = size


class Processes:
    """The processes that the engine asked for, and all the orphans that end up with the first process."""

    def __init__(self, accounts: Accounts, poller: select.poll) -> None:
        self._accounts = accounts
        self._poller = poller
        self._terminals: Terminals | None = None
        self._running: dict[int, int] = {}  # the number of each one's family
        self._over: dict[int, int] = {}  # the same of those that ended last
        self.families = family.Numbers()

    def spawn(self, request: Json, fds: Sequence[int]) -> tuple[int, str]:
        """Start a process with the given pipe ends, see `Order`; return its pid and the name of its user.

        Raises:
            RefusedError: It could not be started.
        """
        account = self._accounts.user(str(request["user"]))
        cwd = _directory(request["cwd"], account)
        command = [str(part) for part in _list(request["command"])]
        environment = {str(key): str(value) for key, value in _dict(request["envs"]).items()}
        if request["identify"]:
            environment = account.variables() | environment
        if "\0" in "".join((*command, *environment, *environment.values(), cwd)):
            raise RefusedError("invalid_argument", "arguments and environment must not contain NUL")
        size = read_size(request["pty"]) if request.get("pty") else None
        order = Order(account, self._accounts.groups(account), cwd, environment, fds, size)
        last: OSError | None = None
        for arguments in _attempts(command):
            try:
                return self._start(arguments, order), account.name
            except OSError as error:
                last = error
        assert last is not None
        raise _refusal(last, command[0], cwd)

    def _start(self, arguments: list[str], order: Order) -> int:
        number = self.families.fresh()
        family.mark_next(number)
        pid = _start_with_pipes(arguments, order) if order.size is None else self._start_on_terminal(arguments, order)
        self._running[pid] = number
        self._over.pop(pid, None)
        be_killed_before_the_guest(pid)
        return pid

    def _start_on_terminal(self, arguments: list[str], order: Order) -> int:
        from .terminals import Terminals  # most sandboxes never have one

        assert order.size is not None
        if self._terminals is None:
            self._terminals = Terminals(self._poller)
        return self._terminals.start(arguments, order, order.size)

    def serve(self, ready: set[int]) -> None:
        """Move bytes for those of the descriptors that belong to terminals."""
        if self._terminals is not None:
            self._terminals.serve(ready)

    def resize(self, pid: int, size: tuple[int, int]) -> bool:
        """Resize the terminal of a process; False when there is no such process.

        Raises:
            RefusedError: It has no terminal.
        """
        terminal = self._terminals.find(pid) if self._terminals is not None else None
        if terminal is None and pid in self._running:
            raise RefusedError("internal", "the process has no terminal to resize")
        if terminal is not None:
            terminal.resize(size)
        return terminal is not None

    def signal(self, pid: int, number: int) -> bool:
        """Signal a running process that the engine started, or what one left that has ended; False without any."""
        if pid in self._running:
            posix.kill(pid, number)
            return True
        left = family.members(0, self._over[pid]) if pid in self._over else set()
        for member in left:
            with suppress(ProcessLookupError):
                posix.kill(member, number)
        return bool(left)

    def kill_tree(self, pid: int) -> None:
        """Kill a process with all that came of it, daemons included, also if it has ended; see `family.kill`."""
        if pid in self._running:
            family.kill(pid, self._running[pid])
        elif pid in self._over:
            family.kill(0, self._over[pid])

    def ended(self, pid: int) -> bool:
        """Take note of the end of a process; tell whether the engine started it."""
        number = self._running.pop(pid, 0)
        if not number:
            return False
        self._over.pop(pid, None)  # pids come again
        self._over[pid] = number
        if len(self._over) > MAX_OVER:
            del self._over[next(iter(self._over))]
        if self._terminals is not None:
            self._terminals.end(pid)
        return True


def reap() -> Iterator[tuple[int, int]]:
    """Reap all that have ended; yield pid and wait status of each."""
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _start_with_pipes(arguments: list[str], order: Order) -> int:
    stdin, stdout, stderr = order.fds if len(order.fds) == 3 else (NULL_FD, *order.fds)
    return credentials.start(
        arguments, order.account, order.groups, (stdin, stdout, stderr), order.cwd, order.environment
    )


def _attempts(command: list[str]) -> list[list[str]]:
    """Run an executable directly; anything else through the shell, whose exit status and text tell what is wrong."""
    if command[0] == BASH and not exists(BASH) and exists(SHELL):
        command = [SHELL, *command[1:]]  # what every client runs commands with, and small images do not have
    wrapped = [SHELL, "-c", 'exec "$@"', command[0], *command]
    if not exists(SHELL):
        return [command]
    return [command, wrapped] if command[0].startswith("/") and _is_runnable(command[0]) else [wrapped]


def _is_runnable(path: str) -> bool:
    return posix.access(path, posix.X_OK, effective_ids=True)


def _directory(cwd: object, account: Account) -> str:
    text = str(cwd) if cwd else account.home
    if text == "~" or text.startswith("~/"):
        text = account.home + text[1:]
    elif text.startswith("~"):
        raise RefusedError("invalid_argument", f"cannot resolve the home directory of another user: {text}")
    if not text.startswith("/"):
        text = f"{account.home.rstrip('/')}/{text}"
    if is_directory(text):
        return text
    if not cwd and text == account.home:
        return "/"
    raise RefusedError("invalid_argument", f"cwd '{text}' does not exist")


def _refusal(error: OSError, command: str, cwd: str) -> RefusedError:
    if error.errno == errno.E2BIG:
        return RefusedError("invalid_argument", "the command line and environment are too long")
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return RefusedError("resource_exhausted", f"no process could be started: {error.strerror}")
    if error.filename == cwd:
        return RefusedError("invalid_argument", f"cwd '{cwd}' does not exist")
    return RefusedError("invalid_argument", f"{command}: {error.strerror}")


def be_killed_before_the_guest(pid: int) -> None:
    """When memory is short, a command goes first."""
    with suppress(OSError):  # it has ended already
        file = posix.open(f"/proc/{pid}/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(file, OOM_SCORE)
        finally:
            posix.close(file)


def read_size(value: object) -> tuple[int, int]:
    """Return columns and rows of a request."""
    assert isinstance(value, list)
    columns, rows = value
    return int(columns), int(rows)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _dict(value: object) -> dict[object, object]:
    assert isinstance(value, dict)
    return value
