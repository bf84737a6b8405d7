"""The launcher: a small single-threaded process that forks sandboxes for the engine and buries them.

The engine has threads, an event loop and much memory; forking it would be slow and unsafe. The launcher has none of
these. It speaks JSON over a sequenced-packet socket, one message a packet, and ends when the engine does: then every
sandbox dies with it.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import cast

from . import base, disks, host_addresses, network, sandbox, syscalls, trees, volumes
from .children import Child, Config, Launch, WantedNetwork, kill_child, order_of, parent_of, read_info
from .layers import Layers
from .namespaces import DATA, IDS, ROOT_BASE, IdMap, fork_mapped, prepare_stage

MAX_MESSAGE = 64 << 10
OWNER_TRIES = 64
Json = dict[str, object]


class Launcher:
    """The loop between the engine's socket and the ends of children."""

    def __init__(self, control: socket.socket, config: Config, ids: IdMap, bwrap: int, helper: int) -> None:
        self._control = control
        self._bwrap = bwrap
        self._helper = helper
        self._config = config
        self._ids = ids
        self._children: dict[str, Child] = {}
        self._removers: dict[int, str] = {}
        self._removed: dict[str, bool] = {}
        self._layers = Layers(ids, self._tell_layer, self._leave)
        self._keepers = volumes.Keepers(ids, self._leave)
        self._poller = select.epoll()
        self._infos: dict[int, str] = {}
        self._networks = network.Networks(self._poller, config["pasta"], self._tell_network, self._network_closed)
        self._changes = host_addresses.watch()
        self._engine = os.getppid()

    def serve(self) -> None:
        """Serve until the engine is gone; then leave nothing alive."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for source in (self._control, self._changes, wake_read):
            self._poller.register(source, select.EPOLLIN)
        try:
            while True:
                ready = {fd for fd, _ in self._poller.poll()}
                if wake_read in ready and signal.SIGTERM in os.read(wake_read, 4096) and os.getppid() != self._engine:
                    return  # while there is an engine it says when: it was told to stop as well, and needs us for that
                self._reap()
                for info in ready & self._infos.keys():
                    self._meet(self._infos[info])
                self._networks.serve(ready)
                if self._changes.fileno() in ready:
                    host_addresses.forget_changes(self._changes)
                    self._networks.host_changed()
                if self._control.fileno() in ready and not self._receive():
                    return
        finally:
            self._end()

    def _meet(self, sandbox_id: str) -> None:
        """Bubblewrap tells of the first process."""
        child = self._children[sandbox_id]
        if child.alive and not read_info(child) and not child.first:
            return
        self._poller.unregister(child.info)
        del self._infos[child.info]
        if child.first:
            self._networks.met(sandbox_id, child.first)

    def _set_network(self, sandbox_id: str, wanted: WantedNetwork | None) -> None:
        child = self._children.get(sandbox_id)
        if child is None or not child.alive or not child.first:
            self._tell_network(sandbox_id, False, "the sandbox is gone")
        elif wanted is None:
            self._networks.close(sandbox_id, (True, ""))
        else:
            self._networks.open(sandbox_id, child.first, child.owner, order_of(wanted, child.cgroups))

    def _files_done(self, sandbox_id: str, *, clean: bool) -> None:
        self._removed[sandbox_id] = clean
        if not self._networks.is_ending(sandbox_id):
            self._network_closed(sandbox_id)

    def _network_closed(self, sandbox_id: str) -> None:
        """Nothing of a network is left; if nothing of the files is, either, the sandbox is gone."""
        clean = self._removed.pop(sandbox_id, None)
        if clean is not None:
            del self._children[sandbox_id]
            self._send({"event": "gone", "id": sandbox_id, "clean": clean})

    def _tell_layer(self, name: str, done: bool) -> None:
        self._send({"event": "layer", "id": name, "clean": done})

    def _leave(self) -> None:
        """In a forked process: be the launcher no more."""
        signal.set_wakeup_fd(-1)
        self._control.close()
        self._networks.forget()

    def _tell_network(self, sandbox_id: str, done: bool, reason: str) -> None:
        self._send({"event": "network", "id": sandbox_id, "clean": done, "reason": reason})

    def _receive(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
        if not data:
            return False
        message = json.loads(data)
        try:
            if message["op"] == "launch":
                self._launch(cast("Launch", message), fds[0], fds[1])
            elif message["op"] == "kill":
                self._kill(message["id"], keep=message["keep"])
            elif message["op"] == "copy_layer":
                self._layers.copy(message["sandbox"], message["id"])
            elif message["op"] == "unpack_layer":
                self._layers.unpack(message["id"], fds[0], fds[1], message["limit"], message["digest"])
            elif message["op"] == "remove_layer":
                self._layers.remove(message["id"])
            elif message["op"] in ("volumes", "gauge"):
                self._keepers.start(message["op"], fds[0])
            elif message["op"] == "network":
                self._set_network(message["id"], message["network"])
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _send(self, message: Json) -> None:
        with contextlib.suppress(OSError):  # the engine is gone; the next receive tells
            self._control.send(json.dumps(message).encode())

    def _fresh_owner(self) -> int:
        """An id that owns no other sandbox, and that nobody can foresee: those inside may be able to take it on."""
        taken = {child.owner for child in self._children.values()}
        for _ in range(OWNER_TRIES):
            owner = self._ids.owner(1 + int.from_bytes(os.urandom(4)) % self._ids.slots)
            if owner not in taken:
                break
        return owner

    def _launch(self, request: Launch, link: int, stderr: int) -> None:
        owner = self._fresh_owner()
        plan = sandbox.Plan(
            sandbox_id=request["id"],
            layers=request["layers"],
            on_host_usr=request["on_host_usr"],
            hostname=request["hostname"],
            cgroups=request["cgroups"],
            max_pids=request["max_pids"],
            max_data=request["max_data"],
            shm_bytes=request["shm_bytes"],
            disk_bytes=request["disk_bytes"],
            resolv_conf=request["resolv_conf"],
            mounts=request["mounts"],
            bwrap=self._bwrap,
            command=self._config["command"],
            keeper=self._ids.keeper(owner),
        )
        info_read, info_write = os.pipe()
        os.set_blocking(info_read, False)
        wanted = request["network"]
        way = None
        if wanted is not None:
            order = order_of(wanted, plan.cgroups)
            way = self._networks.announce(plan.sandbox_id, owner, self._ids.keeper(owner), order)
        me = os.getpid()

        def prepare() -> None:
            gc.disable()  # what lies here is the launcher's, and is copied as soon as it is touched
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            sandbox.prepare(plan, link, stderr, info_write)

        pid = fork_mapped(self._ids, owner, prepare, lambda: sandbox.enter(plan, me, way), syscalls.CLONE_NEWNET)
        os.close(info_write)
        if way is not None:
            way.handover.close()
        self._children[plan.sandbox_id] = Child(pid, info_read, request["cgroups"], owner)
        self._poller.register(info_read, select.EPOLLIN)
        self._infos[info_read] = plan.sandbox_id

    def _kill(self, sandbox_id: str, *, keep: bool) -> None:
        child = self._children.setdefault(sandbox_id, Child(0, -1, [], alive=False))
        if child.removing:
            return
        child.removing, child.keep = True, keep
        if child.alive:
            kill_child(child)
        else:
            self._remove(sandbox_id)

    def _remove(self, sandbox_id: str) -> None:
        """Remove the files in a process of its own: a hostile tree may take long, and others wait here."""
        keep = self._children[sandbox_id].keep
        if keep and disks.home_of(sandbox_id) == disks.place_of(sandbox_id):
            self._files_done(sandbox_id, clean=True)
            return
        pid = os.fork()
        if pid == 0:
            self._leave()
            try:
                disks.detach(sandbox_id)
                if not keep:
                    trees.remove(disks.place_of(sandbox_id))
                os._exit(0)
            finally:
                os._exit(1)
        self._removers[pid] = sandbox_id

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._removers:
                sandbox_id = self._removers.pop(pid)
                self._files_done(sandbox_id, clean=status == 0)
                continue
            if self._networks.reaped(pid, status) or self._layers.reaped(pid, status) or self._keepers.reaped(pid):
                continue
            for sandbox_id, child in self._children.items():
                if child.pid == pid and child.alive:
                    self._bury(sandbox_id, child, status)
                    break

    def _bury(self, sandbox_id: str, child: Child, status: int) -> None:
        child.alive = False
        self._networks.close(sandbox_id)
        if os.WIFSIGNALED(status):  # bubblewrap had no time to bury its own
            self._kill_orphans()
        if self._infos.pop(child.info, None):  # else it told all that it had to tell
            self._poller.unregister(child.info)
        os.close(child.info)
        child.info = -1
        remove_cgroups(child.cgroups)
        self._send({"event": "exited", "id": sandbox_id, "status": status})
        if child.removing:
            self._remove(sandbox_id)

    def _kill_orphans(self) -> None:
        """Kill what bubblewrap left when it was killed itself, perhaps before it had tied its child to its own life.

        All other children are known, so one that is not can only be a sandbox's first process.
        """
        known = {child.pid for child in self._children.values()} | set(self._removers)
        known |= self._networks.pids | self._layers.pids | self._keepers.pids | {self._helper}
        for pid in child_pids() - known:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _end(self) -> None:
        self._layers.end()
        self._keepers.end()
        living = [child for child in self._children.values() if child.alive]
        for sandbox_id in list(self._children):
            self._networks.close(sandbox_id)
        for child in living:
            kill_child(child)
        for child in living:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        for pid in self._networks.pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._kill_orphans()
        for child in living:
            remove_cgroups(child.cgroups)
        remove_cgroups(self._config["cgroup_homes"])  # an engine that was killed could not
        if not self._ids.privileged:  # who runs the engine could not remove it
            with contextlib.suppress(OSError):
                base.remove()


def child_pids() -> set[int]:
    """Return the children of this process."""
    me, found = os.getpid(), set()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if int(name) != me and parent_of(int(name)) == me:
                found.add(int(name))
    return found


def remove_cgroups(paths: list[str]) -> None:
    """Remove the cgroups of a dead sandbox."""
    for path in paths:
        with contextlib.suppress(OSError):  # the next start tries again
            os.rmdir(path)


def remove_leftovers(keep: list[str]) -> int:
    """Remove all sandboxes and layers but some of an engine that ended, in a process of its own.

    Returns:
        Its pid, or 0 if there is nothing to do.
    """
    trash = f"{DATA}/host/trash"
    os.makedirs(trash, exist_ok=True)
    for home in (f"{DATA}/host/sandboxes", f"{DATA}/host/layers"):
        for name in set(os.listdir(home)) - set(keep):
            os.rename(f"{home}/{name}", f"{trash}/{name}.{time.monotonic_ns()}")
    if not os.listdir(trash):
        return 0
    if pid := os.fork():
        return pid
    try:
        trees.remove(trash)
    finally:
        os._exit(0)


def _join_namespace(control: socket.socket) -> IdMap:
    """Without root: become root of a namespace that the engine maps with newuidmap, for all sandboxes."""
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    control.send(json.dumps({"event": "unshared"}).encode())
    answer = json.loads(control.recv(MAX_MESSAGE))
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    return IdMap(0, answer["uids"], answer["gids"], privileged=False)


def main() -> None:
    """Run the launcher with the JSON configuration of its first argument."""
    config: Config = json.loads(sys.argv[1])
    control = socket.socket(fileno=config["control"])
    control.set_inheritable(False)
    while os.open("/dev/null", os.O_RDWR) < sandbox.RESERVED_FDS:  # a sandbox's child puts its own there
        pass
    os.setsid()  # Ctrl-C in the engine's terminal is the engine's business
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    ids = IdMap(ROOT_BASE, IDS, IDS, privileged=True) if config["privileged"] else _join_namespace(control)
    try:
        bwrap = os.open(config["bwrap"], os.O_PATH | os.O_CLOEXEC)
        owners_shown = prepare_stage(config["data_dir"], config["runtime_dir"], ids)
        base.build(ids, config["command"])
        helper = remove_leftovers(config["keep"])
        network.open_tun()
        no_network = network.probe(config["pasta"])
    except (OSError, RuntimeError) as error:
        control.send(json.dumps({"event": "failed", "reason": str(error)}).encode())
        return
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    control.send(json.dumps({"event": "ready", "owners_shown": owners_shown, "no_network": no_network}).encode())
    gc.freeze()
    Launcher(control, config, ids, bwrap, helper).serve()
