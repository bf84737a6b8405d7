"""A sandbox's way out: pasta, which carries its packets by ordinary sockets of the host, and the filter before it.

Two processes of the launcher work on it. The keeper enters the sandbox's network namespace, sets the filter and waits
until there is a way out; pasta starts once the filter stands. Pasta speaks with untrusted packets, so it runs as the
nameless user that owns the sandbox's user namespace, with rights in there and nowhere else, and ends with the launcher.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import netfilter, syscalls
from .namespaces import Gate

ADDRESS, PREFIX, GATEWAY, FORWARDER = "10.0.2.100", "24", "10.0.2.2", "10.0.2.3"
INTERFACE = "eth0"
UP_SECONDS = 10
NOISE = ("Failed to send", "won't quit once netns is gone")
MAX_REASON = 16 << 10
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
SIOCGIFFLAGS, IFF_UP = 0x8913, 1
RTM_NEWROUTE = 24
# Whether it is as was asked for, and the reason if it is not.
Answer = tuple[bool, str]
TUN, TUN_DEVICE = "/dev/net/tun", (10, 200)


@dataclass(frozen=True)
class Order:
    """What the engine wants of a sandbox's network.

    Attributes:
        resolvers: Addresses that may be asked for names.
        allow: Ranges that may be reached.
        deny: Ranges that may not be reached, unless they are allowed.
    """

    resolvers: tuple[str, ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass
class Link:
    """One sandbox's way out.

    Attributes:
        first: The first process inside.
        order: What was asked for last.
        log: Where errors of both processes can be read.
        errors: Where they are written.
        keeper: The process that sets the filter, or 0.
        pasta: The process that carries packets, or 0.
        asked: The engine waits to hear.
        stale: What the keeper is setting has been overtaken.
    """

    first: int
    order: Order
    log: int
    errors: int
    keeper: int = 0
    pasta: int = 0
    asked: bool = True
    stale: bool = False


@dataclass
class Ending:
    """What is left of a way out that was closed, and what to tell when nothing is."""

    pids: set[int] = field(default_factory=set)
    answer: Answer | None = None


class Networks:
    """The ways out of all sandboxes.

    Args:
        pasta: The program, or nothing where there is none.
        tell: Called with a sandbox's id, whether its network is as was asked for, and the reason if it is not.
        closed: Called with a sandbox's id when nothing of its network is left.
    """

    def __init__(self, pasta: str, tell: Callable[[str, bool, str], None], closed: Callable[[str], None]) -> None:
        self._pasta = pasta
        self._tell = tell
        self._closed = closed
        self._links: dict[str, Link] = {}
        self._ending: dict[str, Ending] = {}
        self._local = local_addresses()

    @property
    def pids(self) -> set[int]:
        """The processes that belong to networks."""
        living = {pid for link in self._links.values() for pid in (link.keeper, link.pasta) if pid}
        return living.union(*(ending.pids for ending in self._ending.values()))

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
        log, errors = os.pipe()
        for end in (log, errors):  # pasta never waits for a reader, and what it says is bounded
            os.set_blocking(end, False)
        link = self._links[sandbox_id] = Link(first, order, log, errors)
        filtered = Gate()
        link.pasta = _fork(errors, lambda: self._carry(link, owner, filtered))
        self._filter(link, filtered)
        filtered.close()

    def close(self, sandbox_id: str, answer: Answer | None = None) -> None:
        """Begin to take the way out of a sandbox away; the engine is told the answer when it is gone.

        The kernel takes its time to remove an interface, and others wait here.
        """
        link = self._links.pop(sandbox_id, None)
        ending = self._ending.setdefault(sandbox_id, Ending())
        ending.answer = answer
        if link is not None:
            ending.pids |= {pid for pid in (link.keeper, link.pasta) if pid}
            for pid in ending.pids:
                os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so it is this one
            os.close(link.log)
            os.close(link.errors)
        self._ended(sandbox_id, ending)

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
                self._fail(sandbox_id, link)
                return True
            if pid == link.keeper:
                link.keeper = 0
                self._kept(sandbox_id, link, status)
                return True
        return False

    def host_changed(self) -> None:
        """The host's addresses may have changed: close the new ones to all sandboxes."""
        before, self._local = self._local, local_addresses()
        if self._local != before:
            for link in self._links.values():
                self._filter_again(link)

    def _kept(self, sandbox_id: str, link: Link, status: int) -> None:
        if status != 0:
            self._fail(sandbox_id, link)
        elif link.stale:
            self._filter(link)
        elif link.asked:
            link.asked = False
            self._tell(sandbox_id, True, "")

    def _fail(self, sandbox_id: str, link: Link) -> None:
        """A filter that does not stand, or no way out: then there must be none."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            text = os.read(link.log, MAX_REASON)
        # pasta complains of other things, too
        lines = [line for line in text.decode(errors="replace").splitlines() if not any(word in line for word in NOISE)]
        reason = " ".join(["pasta ended:", *lines[-1:]]) if lines else "pasta ended"
        self.close(sandbox_id, (False, reason))

    def _filter_again(self, link: Link) -> None:
        if link.keeper:
            link.stale = True
        else:
            self._filter(link)

    def _filter(self, link: Link, filtered: Gate | None = None) -> None:
        link.stale = False
        resolvers = () if netfilter.EVERYTHING in link.order.deny else link.order.resolvers
        closed = (*self._local, f"{GATEWAY}/32", f"{FORWARDER}/32")  # pasta's own, behind which a host may be
        policy = netfilter.Policy(resolvers, closed, link.order.allow, link.order.deny)
        link.keeper = _fork(link.errors, lambda: _keep(link.first, policy, filtered))

    def _carry(self, link: Link, owner: int, filtered: Gate) -> None:
        if not filtered.wait():
            return
        launcher = os.getppid()
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of ids took it away
        if os.getppid() != launcher:
            return
        os.execve(self._pasta, arguments(link.first, FORWARDER in link.order.resolvers), {})  # noqa: S606 - no shell is what we want


def arguments(first: int, forward_names: bool) -> list[str]:
    """Return pasta's command line for the namespaces of a process: a way out, no way in, none to the host itself."""
    space = f"/proc/{first}/ns"
    way = ["--config-net", "-I", INTERFACE, "-a", ADDRESS, "-n", PREFIX, "-g", GATEWAY]
    # Only where it is used: answers of the host's resolver seem to come from there, then.
    names = ["--dns-forward", FORWARDER] if forward_names else []
    ports = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
    silent = ["--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]
    return [
        "pasta",
        "-f",
        "-q",
        "-4",
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


def _keep(first: int, policy: netfilter.Policy, filtered: Gate | None) -> None:
    """Set the filter of a sandbox; then, if there is no way out yet, wait for it."""
    namespace = os.open(f"/proc/{first}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    changes, routes = subscribe(RTMGRP_LINK), subscribe(RTMGRP_IPV4_ROUTE)
    netfilter.apply(policy)
    if filtered is not None:
        _wait_for_loopback(changes)
        filtered.open()
        _wait_for_route(routes)


def _wait_for_loopback(changes: socket.socket) -> None:
    """Bubblewrap sets it up, and gives up if somebody else did so first, as pasta would."""
    end = time.monotonic() + UP_SECONDS
    with socket.socket() as sock:
        request = struct.pack("16sh22x", b"lo", 0)
        while not struct.unpack_from("=16sh", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1] & IFF_UP:
            if not select.select([changes], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the loopback interface does not come up")
            changes.recv(1 << 16)


def _wait_for_route(routes: socket.socket) -> None:
    end = time.monotonic() + UP_SECONDS
    while (left := end - time.monotonic()) > 0 and select.select([routes], [], [], left)[0]:
        message = routes.recv(1 << 16)
        kind, destination_bits = struct.unpack_from("=H", message, 4)[0], message[17]
        if kind == RTM_NEWROUTE and destination_bits == 0:
            return
    raise TimeoutError("there was no way out in time")


def subscribe(groups: int) -> socket.socket:
    """Return a socket that hears of changes in the calling process's network namespace."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    netlink.bind((0, groups))
    return netlink


def watch_host() -> socket.socket:
    """Return a socket that becomes readable when the host's addresses change."""
    return subscribe(RTMGRP_IPV4_IFADDR)


def forget_changes(changes: socket.socket) -> None:
    """Take what a subscription has to say."""
    with contextlib.suppress(OSError):  # none left, or more than fit: it is looked at afresh anyway
        while changes.recv(1 << 16):
            pass


def local_addresses() -> tuple[str, ...]:
    """Return the ranges that are this host itself."""
    found, address = set[str](), ""
    with contextlib.suppress(OSError), open("/proc/net/fib_trie", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] in ("|--", "+--"):
                address = words[1]
            elif words[1:] == ["host", "LOCAL"]:
                found.add(address + words[0])
    return tuple(sorted(found))


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
    netfilter.apply(netfilter.Policy((), (), (), ()))
