"""The first process's side of ``sudo``: commands as another user, for those inside who may have them.

Whoever connects is untrusted. Who it is, the kernel says; what it wants comes in a sealed file of bounded size, whose
reading cannot block; nothing that it does makes this process wait.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

from . import family, notation, programs, terminals
from .accounts import Accounts
from .lean import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SO_PEERCRED,
    SOL_SOCKET,
    accept,
    received_fds,
    rights,
    socket,
    suppress,
)
from .processes import be_killed_before_the_guest
from .sudo_link import SEALS, STATUS
from .wire import RefusedError, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_REQUEST = 4 << 20
MAX_CLIENTS = 256
FDS = 5  # the request, the directory, and the standard streams
CREDENTIALS = struct.Struct("iII")


class Client:
    """One ``sudo`` that waits for its command.

    Attributes:
        link: To it.
        pid: Its own.
        uid: Whose it is.
        command: What was started for it, or 0.
        family: The number of that command's family.
    """

    __slots__ = ("command", "family", "link", "pid", "uid")

    def __init__(self, link: socket) -> None:
        self.link = link
        self.pid, self.uid, _ = CREDENTIALS.unpack(link.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
        self.command = self.family = 0


class Elevations:
    """All clients, on the loop of a poller, which awaits the listening socket already."""

    def __init__(self, listener: socket, poller: select.poll, accounts: Accounts, families: family.Numbers) -> None:
        self._listener = listener
        self._poller = poller
        self._accounts = accounts
        self._families = families
        self._clients: dict[int, Client] = {}

    def serve(self, ready: Iterable[int]) -> None:
        """Serve those of the descriptors that are clients, or new ones."""
        for fd in ready:
            if fd in self._clients:
                self._hear(self._clients[fd])
            elif fd == self._listener.fileno():
                self._accept()

    def ended(self, pid: int, status: int) -> None:
        """A process has ended; whoever waits for it is told."""
        client = next((client for client in self._clients.values() if client.command == pid), None)
        if client is not None:
            client.command = 0
            with suppress(OSError):
                client.link.send(STATUS.pack(status))
            self._drop(client)

    def _accept(self) -> None:
        with suppress(OSError):  # it has gone again, or there is no descriptor left
            link = accept(self._listener)
            link.setblocking(False)
            if len(self._clients) >= MAX_CLIENTS:
                link.close()
                return
            self._clients[link.fileno()] = Client(link)
            self._poller.register(link, select.POLLIN)

    def _drop(self, client: Client) -> None:
        """Part with a client; without it, its command goes, too."""
        if client.command:
            family.kill(client.command, client.family)
        self._poller.unregister(client.link)
        del self._clients[client.link.fileno()]
        client.link.close()

    def _hear(self, client: Client) -> None:
        fds: list[int] = []
        try:
            data, ancillary, flags, _ = client.link.recvmsg(64, CMSG_SPACE(4 * FDS), MSG_CMSG_CLOEXEC)
            fds += received_fds(ancillary)
            if client.command and len(data) == STATUS.size and not fds:
                os.kill(client.command, STATUS.unpack(data)[0])
            elif data != b"run" or client.command or len(fds) != FDS or flags & MSG_CTRUNC:
                self._drop(client)
            else:
                self._run(client, fds)
        except BlockingIOError:
            pass
        except Exception:  # noqa: BLE001 - nothing that anybody sends may end the first process
            self._drop(client)
        finally:
            close_all(fds)

    def _run(self, client: Client, fds: list[int]) -> None:
        master: list[int] = []
        try:
            if not self._accounts.may_become_root(client.uid):
                raise RefusedError("permission_denied", f"{self._accounts.user_name(client.uid)} may not use sudo")
            request = read_request(fds[0])
            if any(request.terminals):
                master += self._open_terminal(request)
            self._start(client, request, fds, *master[1:])
            client.link.sendmsg([b"+"], rights(master[:1]))
        except RefusedError as error:
            client.link.send(error.message[:4000].encode())
            self._drop(client)
        finally:
            close_all(master)

    def _open_terminal(self, request: Request) -> tuple[int, int]:
        try:
            return terminals.open_pair(self._accounts.by_id(request.uid), request.size)
        except OSError as error:
            raise RefusedError("internal", f"no terminal could be opened: {error.strerror}") from error

    def _start(self, client: Client, request: Request, fds: list[int], slave: int = -1) -> None:
        account = self._accounts.by_id(request.uid)
        group = self._accounts.group_id(request.group) if request.group else account.gid
        stdin, stdout, stderr = (slave if own else fd for own, fd in zip(request.terminals, fds[2:], strict=True))
        client.family = self._families.within(family.number_of(client.pid))
        family.mark_next(client.family)
        try:
            client.command = programs.start(
                request.arguments,
                (stdin, stdout, stderr),
                f"/proc/self/fd/{fds[1]}",
                request.envs,
                executable=request.program,
                user=account.uid,
                group=group,
                groups=self._accounts.groups(account),
                new_session=True,
                preexec=None if slave < 0 else lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            )
        except OSError as error:
            raise RefusedError("internal", f"{request.program}: {error.strerror}") from error
        except ValueError:
            raise RefusedError("internal", f"{request.program}: it cannot be started like this") from None
        be_killed_before_the_guest(client.command)  # the guest reaps it, as all others


class Request:
    """What a client wants, checked; see ``sudo.execute``."""

    def __init__(self, message: dict[object, object]) -> None:
        self.program = _text(message["program"])
        self.arguments = [_text(word) for word in _list(message["arguments"])]
        self.envs = {_text(name): _text(value) for name, value in _dict(message["envs"]).items()}
        self.uid = _number(message["uid"], 2**32 - 2)
        self.group = _text(message["group"])
        self.terminals = [bool(flag) for flag in _list(message["terminals"])]
        columns, rows = _list(message["size"])
        self.size = _number(columns, 65535), _number(rows, 65535)
        if len(self.terminals) != 3 or not self.arguments or any("=" in name for name in self.envs):
            raise ValueError


def read_request(fd: int) -> Request:
    """Read what a client wants from its sealed file.

    Raises:
        RefusedError: That makes no sense.
    """
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(fd).st_size > MAX_REQUEST:
            raise RefusedError("invalid_argument", "the request is too long")
        data = os.pread(fd, MAX_REQUEST, 0)
        return Request(_dict(notation.loads(data)))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise RefusedError("invalid_argument", "the request makes no sense") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _dict(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise TypeError
    return value
