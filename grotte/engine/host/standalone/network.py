"""A sandbox's way out: pasta, which carries its packets by ordinary sockets of the host, and the filter before it.

The process that becomes the sandbox sets the filter and makes the interface before anything else runs there. What is
changed later is the work of a keeper, which enters the sandbox's network namespace. The first packet that wants to
leave starts pasta. That speaks with untrusted packets, so it runs as the
nameless user that owns the sandbox's user namespace, with rights in there and nowhere else, and ends with the launcher.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import groups, host_addresses, netfilter, syscalls, taps
from .taps import INTERFACE, TUN, TUN_DEVICE

ADDRESS, MASK, GATEWAY, FORWARDER = "10.0.2.100", "255.255.255.0", "10.0.2.2", "10.0.2.3"
#: Another process may still be on its way to let go of an interface that it inherited.
TRIES = 10
#: What ends this soon has not begun, in seconds; and the longest pause before another try.
EARLY, LONGEST_PAUSE = 2.0, 0.25
NOISE = ("Failed to send", "won't quit once netns is gone")
MAX_REASON = 16 << 10
# Whether it is as was asked for, and the reason if it is not.
Answer = tuple[bool, str]


@dataclass(frozen=True)
class Order:
    """What the engine wants of a sandbox's network.

    Attributes:
        resolvers: Addresses that may be asked for names.
        allow: Ranges that may be reached.
        deny: Ranges that may not be reached, unless they are allowed.
        lookups: Names may be looked up although everything is denied.
        groups: The sandbox's control groups: carrying its packets is its own work.
    """

    resolvers: tuple[str, ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    lookups: bool = False
    groups: tuple[str, ...] = ()


@dataclass
class Link:
    """One sandbox's way out.

    Attributes:
        owner: The id that owns its namespaces.
        order: What was asked for last.
        log: Where errors of its processes can be read.
        errors: Where they are written.
        handover: Where the interface's other end is handed over, until it has been.
        first: The first process inside, or 0 while there is none.
        tap: That end, while nobody carries packets, or -1.
        keeper: The process that sets the filter, or 0.
        pasta: The process that carries packets, or 0.
        sender: The process that sends the first packets again, or 0.
        tries: How often pasta was started.
        tried_at: When it was started last.
        asked: The engine waits to hear.
        stale: What is being set has been overtaken.
    """

    owner: int
    order: Order
    log: int
    errors: int
    handover: socket.socket | None
    first: int = 0
    tap: int = -1
    keeper: int = 0
    pasta: int = 0
    sender: int = 0
    tries: int = 0
    tried_at: float = 0.0
    asked: bool = True
    stale: bool = False

    @property
    def pids(self) -> set[int]:
        """The processes at work."""
        return {self.keeper, self.pasta, self.sender} - {0}


@dataclass(frozen=True)
class Way:
    """What a sandbox that begins has to do for its way out, in its network namespace.

    Attributes:
        transaction: Sets the filter.
        handover: Takes the other end of the interface.
        errors: Where it writes what went wrong.
        keeper: The real id with which it hands something over, see `namespaces.IdMap.keeper`.
    """

    transaction: bytes
    handover: socket.socket
    errors: int
    keeper: int

    def open(self) -> None:
        """Make it. A sandbox without its network is still a sandbox."""
        try:
            netfilter.apply(self.transaction)
            os.setresuid(self.keeper, 0, 0)
            _hand_over(self.handover)
        except OSError as error:
            os.write(self.errors, f"{error}\n".encode(errors="replace"))
        finally:
            os.setresuid(0, 0, 0)


@dataclass
class Ending:
    """What is left of a way out that was closed, and what to tell when nothing is."""

    pids: set[int] = field(default_factory=set)
    answer: Answer | None = None


class Networks:
    """The ways out of all sandboxes.

    Args:
        poller: Where the launcher waits.
        pasta: The program, or nothing where there is none.
        tell: Called with a sandbox's id, whether its network is as was asked for, and the reason if it is not.
        closed: Called with a sandbox's id when nothing of its network is left.
    """

    def __init__(
        self, poller: select.epoll, pasta: str, tell: Callable[[str, bool, str], None], closed: Callable[[str], None]
    ) -> None:
        self._poller = poller
        self._pasta = pasta
        self._tell = tell
        self._closed = closed
        self._links: dict[str, Link] = {}
        self._watched: dict[int, str] = {}
        self._ending: dict[str, Ending] = {}
        self._local = host_addresses.local()

    @property
    def pids(self) -> set[int]:
        """The processes that belong to networks."""
        living = [link.pids for link in self._links.values()]
        return set[int]().union(*living, *(ending.pids for ending in self._ending.values()))

    def open(self, sandbox_id: str, first: int, owner: int, order: Order) -> None:
        """Give a sandbox a way out, or change what it may reach."""
        if sandbox_id in self._ending:
            self._tell(sandbox_id, False, "its last network is not gone yet")
            return
        link = self._links.get(sandbox_id)
        if link is not None:
            link.order, link.asked = order, True
            self._filter_again(link)
            return
        link, theirs = self._new_link(sandbox_id, owner, order)
        link.first = first
        self._filter(link, theirs)
        theirs.close()

    def announce(self, sandbox_id: str, owner: int, keeper: int, order: Order) -> Way:
        """A sandbox is about to begin: return what it has to do to get a way out."""
        link, theirs = self._new_link(sandbox_id, owner, order)
        return Way(self._compiled(order), theirs, link.errors, keeper)

    def _new_link(self, sandbox_id: str, owner: int, order: Order) -> tuple[Link, socket.socket]:
        log, errors = os.pipe()
        for end in (log, errors):  # pasta never waits for a reader, and what it says is bounded
            os.set_blocking(end, False)
        ours, theirs = socket.socketpair()
        self._watch(ours.fileno(), sandbox_id)
        link = self._links[sandbox_id] = Link(owner, order, log, errors, ours)
        return link, theirs

    def met(self, sandbox_id: str, first: int) -> None:
        """A sandbox that was announced has a first process."""
        if link := self._links.get(sandbox_id):
            link.first = first
            self._settle(sandbox_id, link)

    def close(self, sandbox_id: str, answer: Answer | None = None) -> None:
        """Begin to take the way out of a sandbox away; the engine is told the answer when it is gone.

        The kernel takes its time to remove an interface, and others wait here.
        """
        link = self._links.pop(sandbox_id, None)
        ending = self._ending.setdefault(sandbox_id, Ending())
        ending.answer = answer
        if link is not None:
            ending.pids |= link.pids
            for pid in ending.pids:
                os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so it is this one
            if answer is not None and link.tries:  # the sandbox goes on, and pasta's end does not remove it
                ending.pids.add(self._fork(link.errors, lambda: _remove(link)))
            self._let_go(link)
            os.close(link.log)
            os.close(link.errors)
        self._ended(sandbox_id, ending)

    def _let_go(self, link: Link) -> None:
        """Close what is open of a way out that nobody has used."""
        if link.handover is not None:
            self._unwatch(link.handover.fileno())
            link.handover.close()
        if link.tap >= 0:
            self._unwatch(link.tap)
            os.close(link.tap)

    def _watch(self, fd: int, sandbox_id: str) -> None:
        self._poller.register(fd, select.EPOLLIN)
        self._watched[fd] = sandbox_id

    def _unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)
        del self._watched[fd]

    def forget(self) -> None:
        """In a forked process: have nothing to do with interfaces, which would be held as long as it lives."""
        for link in self._links.values():
            if link.handover is not None:
                link.handover.close()
            if link.tap >= 0:
                os.close(link.tap)

    def is_ending(self, sandbox_id: str) -> bool:
        """Whether something of a sandbox's network is still there, on its way to be gone."""
        return sandbox_id in self._ending

    def _ended(self, sandbox_id: str, ending: Ending) -> None:
        if ending.pids:
            return
        del self._ending[sandbox_id]
        if ending.answer is not None:
            self._tell(sandbox_id, *ending.answer)
        self._closed(sandbox_id)

    def reaped(self, pid: int, status: int) -> bool:
        """Take note of the end of a process; False if it is none of these."""
        for sandbox_id, ending in self._ending.items():
            if pid in ending.pids:
                ending.pids.remove(pid)
                self._ended(sandbox_id, ending)
                return True
        for sandbox_id, link in self._links.items():
            if pid == link.pasta:
                link.pasta = 0
                begun = not link.sender and time.monotonic() - link.tried_at > EARLY
                if not begun and link.tries < TRIES and os.WIFEXITED(status):
                    self._carry(link)
                else:
                    self._fail(sandbox_id, link, "pasta ended")
                return True
            if pid == link.sender:
                link.sender = 0
                if status != 0:
                    self._fail(sandbox_id, link, "pasta ended")
                return True
            if pid == link.keeper:
                link.keeper = 0
                self._kept(sandbox_id, link, status)
                return True
        return False

    def host_changed(self) -> None:
        """The host's addresses may have changed: close the new ones to all sandboxes."""
        before, self._local = self._local, host_addresses.local()
        if self._local != before:
            for link in self._links.values():
                self._filter_again(link)

    def _kept(self, sandbox_id: str, link: Link, status: int) -> None:
        if status == 0:
            self._settle(sandbox_id, link)
        else:
            self._fail(sandbox_id, link, "it cannot be made")

    def _take_over(self, sandbox_id: str, link: Link) -> None:
        """The filter stands and the interface's other end is here, or neither ever will be."""
        assert link.handover is not None
        fds = socket.recv_fds(link.handover, 1, 1)[1]
        if not fds:
            self._fail(sandbox_id, link, "it cannot be made")
            return
        os.set_inheritable(fds[0], False)  # the flag that asks for this is ignored by some Pythons
        self._unwatch(link.handover.fileno())
        link.handover.close()
        link.handover, link.tap = None, fds[0]
        self._watch(link.tap, sandbox_id)
        self._settle(sandbox_id, link)

    def _settle(self, sandbox_id: str, link: Link) -> None:
        """Something was done: begin what is left to do, or tell that nothing is."""
        if link.keeper or link.handover is not None:
            return
        if link.stale:
            self._filter_again(link)
        elif link.asked:
            link.asked = False
            self._tell(sandbox_id, True, "")

    def _fail(self, sandbox_id: str, link: Link, what: str) -> None:
        """A filter that does not stand, or no way out: then there must be none."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            text = os.read(link.log, MAX_REASON)
        # pasta complains of other things, too
        lines = [line for line in text.decode(errors="replace").splitlines() if not any(word in line for word in NOISE)]
        reason = ": ".join([what, *lines[-1:]])
        self.close(sandbox_id, (False, reason))

    def _filter_again(self, link: Link) -> None:
        if link.keeper or link.handover is not None or not link.first:
            link.stale = True
        else:
            self._filter(link)

    def serve(self, ready: Iterable[int]) -> None:
        """Take interfaces over, and start pasta for those from which packets want to leave."""
        for fd, sandbox_id in [(fd, self._watched[fd]) for fd in ready if fd in self._watched]:
            link = self._links.get(sandbox_id)
            if link is None:  # lost with one before it
                continue
            if link.handover is not None:
                self._take_over(sandbox_id, link)
            elif frames := taps.take(fd):
                self._wake(link, frames)

    def _wake(self, link: Link, frames: list[bytes]) -> None:
        self._unwatch(link.tap)
        taps.let_go(link.tap)
        link.tap = -1
        self._carry(link)
        link.sender = self._fork(link.errors, lambda: _send_again(link, frames))

    def _filter(self, link: Link, handover: socket.socket | None = None) -> None:
        link.stale = False
        transaction = self._compiled(link.order)
        link.keeper = self._fork(link.errors, lambda: _keep(link, transaction, handover))

    def _compiled(self, order: Order) -> bytes:
        resolvers = () if netfilter.EVERYTHING in order.deny and not order.lookups else order.resolvers
        closed = (*self._local, f"{GATEWAY}/32", f"{FORWARDER}/32")  # pasta's own, behind which a host may be
        return netfilter.compiled(netfilter.Policy(resolvers, closed, order.allow, order.deny))

    def _fork(self, errors: int, run: Callable[[], None]) -> int:
        def alone() -> None:
            self.forget()
            run()

        return _fork(errors, alone)

    def _carry(self, link: Link) -> None:
        pause = min(LONGEST_PAUSE, 0.01 * 2**link.tries) if link.tries else 0.0
        link.tries += 1
        link.tried_at = time.monotonic() + pause
        link.pasta = self._fork(link.errors, lambda: self._become_pasta(link, pause))

    def _become_pasta(self, link: Link, pause: float) -> None:
        time.sleep(pause)
        launcher = os.getppid()
        groups.work_for(link.order.groups)
        os.setgroups([])
        os.setresgid(link.owner, link.owner, link.owner)
        os.setresuid(link.owner, link.owner, link.owner)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of ids took it away
        if os.getppid() != launcher:
            return
        os.execve(self._pasta, arguments(link.first, FORWARDER in link.order.resolvers), {})  # noqa: S606 - no shell is what we want


def arguments(first: int, forward_names: bool) -> list[str]:
    """Return pasta's command line for the namespaces of a process: a way out, no way in, none to the host itself."""
    space = f"/proc/{first}/ns"
    way = ["-I", INTERFACE, "-a", ADDRESS, "-n", MASK, "-g", GATEWAY]
    # Only where it is used: answers of the host's resolver seem to come from there, then.
    names = ["--dns-forward", FORWARDER] if forward_names else []
    ports = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
    silent = ["--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]
    return [
        "pasta",
        "-f",
        "-q",
        "-4",
        "--no-netns-quit",  # it may not look at where its namespace is, and newer ones end then
        "--userns",
        f"{space}/user",
        "--netns",
        f"{space}/net",
        *way,
        *names,
        *ports,
        *silent,
    ]


def _fork(errors: int, run: Callable[[], None]) -> int:
    """Run something in a process of its own, which succeeds if it returns."""
    launcher = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):  # pasta refuses an ignored SIGPIPE
            signal.signal(number, signal.SIG_DFL)
        os.dup2(errors, 2)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == launcher:
            run()
            status = 0
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into the launcher's loop
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _enter(first: int, owner: int) -> None:
    namespace = os.open(f"/proc/{first}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if syscalls.namespace_owner(namespace) != owner:  # its number is another process's by now, perhaps the host's
        raise OSError("the sandbox is gone")
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    os.close(namespace)


def _keep(link: Link, transaction: bytes, handover: socket.socket | None) -> None:
    """Set the filter of a sandbox; then, if there is no interface yet, make it, and hand its other end over."""
    _enter(link.first, link.owner)
    netfilter.apply(transaction)
    if handover is not None:
        _hand_over(handover)


def _hand_over(handover: socket.socket) -> None:
    socket.send_fds(handover, [b"+"], [taps.make(ADDRESS, MASK, GATEWAY)])


def _send_again(link: Link, frames: list[bytes]) -> None:
    _enter(link.first, link.owner)
    taps.send_again(frames)


def _remove(link: Link) -> None:
    _enter(link.first, link.owner)
    taps.remove()


def open_tun() -> None:
    """Let every user have the device for tunnels, in the launcher's own mount namespace; others see no change.

    Harmless, since opening it gives nothing without the right to change a network namespace, and usual: only systems
    without a device manager leave it to root.
    """
    with contextlib.suppress(OSError):
        if os.stat(TUN).st_mode & 0o666 != 0o666:
            syscalls.mount("tun", "/dev/net", "tmpfs", syscalls.MS_NOSUID, "mode=755,size=4k")
            os.mknod(TUN, 0o020666, os.makedev(*TUN_DEVICE))
            os.chmod(TUN, 0o666)  # noqa: S103 - what udev gives it


def probe(pasta: str) -> str:
    """Return what keeps sandboxes from having a way out on this machine, or nothing."""
    if not pasta:
        return "pasta is not installed"
    try:
        if os.stat(TUN).st_mode & 0o006 != 0o006:
            return f"{TUN} is not open to all users"
    except OSError:
        return f"there is no {TUN}"
    read, write = os.pipe()
    pid = _fork(write, _try_filter)
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as errors:
        reason = errors.read().strip()
    return "" if os.waitpid(pid, 0)[1] == 0 else reason or "nf_tables cannot be used"


def _try_filter() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    netfilter.apply(netfilter.compiled(netfilter.Policy((), (), (), ())))
