"""More ways out of a sandbox, and from one into another. Each test tries one door, named in its comment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator

import anyio
import pytest

from grotte.engine.host import Guest, SandboxHost, SandboxSpec, SpawnRequest
from grotte.engine.host.standalone.children import signal_process
from tests.host.support import SECONDS, python, run, shell
from tests.host.test_attacks import CALL


@pytest.fixture
async def neighbour(host: SandboxHost) -> AsyncIterator[Guest]:
    guest = await host.launch(SandboxSpec("neighbour"))
    yield guest
    await guest.kill()


@contextlib.asynccontextmanager
async def background(guest: Guest, script: str) -> AsyncIterator[None]:
    """A Python program of root's that runs until the block ends; the block begins when it has printed a line."""
    process = await guest.spawn(SpawnRequest("python3", ("-uc", script), {"PATH": "/usr/bin:/bin"}, user="root"))
    try:
        with anyio.fail_after(SECONDS):
            await anyio.wait_readable(process.stdout)
        assert os.read(process.stdout, 100), os.read(process.stderr or -1, 4096)
        yield
    finally:
        await guest.kill_tree(process.pid)
        os.close(process.stdout)
        os.close(process.stderr or -1)


async def test_the_program_that_runs_cannot_be_overwritten(pybox: Guest) -> None:
    # Door: /proc/<pid>/exe of a process that runs the engine's interpreter: `sudo` is one that belongs to the user.
    out = await python(pybox, """
        import glob, os, subprocess, time
        client = subprocess.Popen(["sudo", "-u", "user", "sleep", "5"], stdout=subprocess.DEVNULL)
        while b"standalone.sudo" not in open(f"/proc/{client.pid}/cmdline", "rb").read(): time.sleep(0.01)
        runtime = glob.glob("/run/grotte/runtime/lib/**/*.py", recursive=True)[0]
        for target in (f"/proc/{client.pid}/exe", "/proc/1/exe", "/run/grotte/runtime/libs/libc.so.6", runtime):
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                try: os.open(target, flags); print("opened", target)
                except OSError: pass
        try: os.replace("/tmp", "/run/grotte/runtime/bin"); print("moved")
        except OSError: pass
        client.kill()
    """)  # fmt: skip
    assert out == ""


async def test_the_roots_of_all_processes_are_the_sandbox(pybox: Guest) -> None:
    # Door: /proc/<pid>/root and cwd of whatever process is visible, and `..` above them.
    out = await python(pybox, """
        import os
        me = os.stat("/")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for link in ("root", "root/..", "cwd/../../../../../../.."):
                try: found = os.stat(f"/proc/{pid}/{link}/")
                except OSError: continue
                if (found.st_dev, found.st_ino) != (me.st_dev, me.st_ino): print(pid, link)
    """)  # fmt: skip
    assert out == ""


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2", "sysfs", "debugfs", "tracefs", "securityfs", "bpf", "overlay"])
async def test_file_systems_of_the_kernel(box: Guest, kind: str) -> None:
    # Door: a cgroup hierarchy with its release agent, and all other file systems that give orders to the kernel.
    result = await shell(box, f"mkdir -p /mnt/x; mount -t {kind} none /mnt/x", "root")
    assert result.status.code != 0
    assert (await shell(box, "ls -A /mnt/x /sys", "root")).out == "/mnt/x:\n\n/sys:\n"


async def test_devices_of_the_kernel(pybox: Guest) -> None:
    # Door: userfaultfd, kvm, the kernel's log, memory, disks, fuse and tunnels by their devices, made by hand, too.
    out = await python(pybox, """
        import os, stat
        for name in ("userfaultfd", "kvm", "kmsg", "mem", "port", "vda", "sda", "loop-control", "fuse", "net/tun"):
            if os.path.exists(f"/dev/{name}"): print(name)
        for major, minor in ((1, 1), (1, 11), (7, 0), (10, 200), (10, 229), (10, 232), (254, 0)):
            for kind in (stat.S_IFCHR, stat.S_IFBLK):
                try: os.mknod("/tmp/device", kind | 0o666, os.makedev(major, minor))
                except PermissionError: continue
                print("made", major, minor)
    """)  # fmt: skip
    assert out == ""


async def test_abstract_sockets_of_a_neighbour(pybox: Guest, neighbour: Guest) -> None:
    # Door: unix sockets without a file, and TCP and UDP on the loopback, which are all named in a network namespace.
    listen = """
import socket, time
names = [(socket.AF_UNIX, "\\0door"), (socket.AF_INET, ("127.0.0.1", 7001))]
held = [socket.socket(family) for family, _ in names]
for one, (_, name) in zip(held, names): one.bind(name); one.listen()
print("ready"); time.sleep(100)
"""
    connect = """
import socket
for family, name in [(socket.AF_UNIX, "\\0door"), (socket.AF_INET, ("127.0.0.1", 7001))]:
    with socket.socket(family) as one: print(one.connect_ex(name) == 0)
"""
    async with background(neighbour, listen):
        assert (await python(neighbour, connect)).split() == ["True"] * 2
        assert (await python(pybox, connect)).split() == ["False"] * 2


async def test_shared_memory_of_a_neighbour(pybox: Guest, neighbour: Guest) -> None:
    # Door: System V shared memory and message queues, POSIX ones, and files in memory.
    make = """
import ctypes, time
libc = ctypes.CDLL(None)
made = [libc.shmget(77, 4096, 0o1666), libc.msgget(77, 0o1666), libc.semget(77, 1, 0o1666)]
open("/dev/shm/door", "w").close()
assert min(made) >= 0
print("ready"); time.sleep(100)
"""
    look = """
import ctypes, os
libc = ctypes.CDLL(None)
print([call(77, *rest) >= 0 for call, rest in ((libc.shmget, (4096, 0)), (libc.msgget, (0,)), (libc.semget, (1, 0)))],
      os.path.exists("/dev/shm/door"))
"""
    async with background(neighbour, make):
        assert await python(neighbour, look) == "[True, True, True] True"
        assert await python(pybox, look) == "[False, False, False] False"


async def test_names_and_clocks(pybox: Guest) -> None:
    # Door: the host's name, clock and timers, which a program that trusts them would believe.
    before = os.uname().nodename
    out = await python(pybox, CALL + """
import time
for name in ("sethostname", "setdomainname"): print(getattr(libc, name)(b"other", 5) == 0)
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME):
    try: time.clock_settime(clock, 1.0); print(True)
    except OSError: print(False)
""")  # fmt: skip
    assert out.split() == ["False"] * 5
    assert os.uname().nodename == before


async def test_keys_are_not_shown(box: Guest) -> None:
    # Door: the keyrings of the engine's user, by what the kernel tells of them.
    assert (await shell(box, "cat /proc/keys", "root")).out == ""


async def test_flags_that_would_keep_files_for_ever(pybox: Guest) -> None:
    # Door: immutable files, which the engine could not remove when the sandbox goes.
    out = await python(pybox, """
        import array, fcntl, os
        flags = array.array("l", [0x10])
        fd = os.open("/tmp/stays", os.O_CREAT | os.O_RDONLY)
        try: fcntl.ioctl(fd, 0x40086602, flags); print("set")
        except OSError: print("refused")
    """)  # fmt: skip
    assert out == "refused"


async def test_capabilities_cannot_be_had_again(box: Guest) -> None:
    # Door: a file with capabilities, or an inherited set, that gives more than what the engine left.
    lines = (await shell(box, "grep ^Cap /proc/self/status", "root")).out.split()
    sets = {name[:-1]: int(bits, 16) for name, bits in zip(lines[::2], lines[1::2], strict=True)}
    assert sets["CapBnd"] == sets["CapPrm"] == sets["CapEff"]
    assert sets["CapAmb"] == 0
    user = (await shell(box, "grep -E '^Cap(Prm|Eff|Amb|Inh)' /proc/self/status")).out.split()
    assert {int(bits, 16) for bits in user[1::2]} == {0}


async def test_packets_of_ones_own_making(pybox: Guest) -> None:
    # Door: raw sockets of both versions of IP, packet sockets, and netlink beyond addresses and routes.
    out = await python(pybox, """
        import socket
        for family, kind, protocol in [(2, 3, 1), (2, 3, 255), (10, 3, 58), (10, 3, 255), (17, 2, 768), (17, 3, 768),
                                       *((16, 3, number) for number in range(1, 23))]:
            try: socket.socket(family, kind, protocol); print(family, kind, protocol)
            except OSError: pass
    """)  # fmt: skip
    assert out == ""


async def test_a_core_is_not_left_to_the_host(pybox: Guest) -> None:
    # Door: a crash, for which the kernel starts a program of the host's choice outside of the sandbox.
    result = await run(pybox, "python3", "-c", "import os; os.abort()", cwd="/tmp")
    assert result.status.signal == signal.SIGABRT
    assert not result.status.core_dumped
    assert (await shell(pybox, "ls /tmp")).out == ""


async def test_a_pid_that_is_somebody_elses_by_now(box: Guest) -> None:
    # Door: a process that ends, and another that gets its pid before a signal is sent to the first.
    ended = await box.spawn(SpawnRequest("/bin/true"))
    await ended.wait()
    for fd in (ended.stdout, ended.stderr):
        os.close(fd or -1)
    assert not await box.signal(ended.pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "100"]) as stranger:
        assert not signal_process(stranger.pid, parent=1)
        assert stranger.poll() is None
        assert signal_process(stranger.pid, parent=os.getpid())
        assert stranger.wait() == -signal.SIGKILL


async def test_files_of_sandboxes_are_closed_to_others(host: SandboxHost, box: Guest) -> None:
    # Door: a setuid program that root inside made, for an accomplice on the host to run.
    assert (await shell(box, "cp /bin/sh /tmp/s; chmod 4755 /tmp/s", "root")).status.code == 0
    assert not (host.data_dir.stat().st_mode & 0o007)
    assert not ((host.data_dir / "host").stat().st_mode & 0o007)


async def test_descriptors_on_their_way_are_counted_apart(pybox: Guest, neighbour: Guest) -> None:
    # Door: the kernel counts descriptors in sockets by user, for all sandboxes together; a neighbour could send none.
    hold = """
import array, socket, time
kept, sent = [], 0
try:
    while sent < 200_000:
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))]
        try:
            while True: sent += 250 * kept[-1][0].sendmsg([b"x"], rights)
        except BlockingIOError: pass
except OSError: print("no more"); time.sleep(100)
"""
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 80)); print('ready'); time.sleep(100)"
    async with background(pybox, hold):
        for guest in (neighbour, pybox):
            os.close((await guest.open_read("/etc/hostname", "user")).fd)
            async with background(guest, listen):
                (await guest.connect(80)).close()


async def test_what_of_proc_can_be_written(pybox: Guest) -> None:
    # Door: an order to the kernel that is not for the sandbox's own namespaces alone.
    out = await python(pybox, """
        import os
        for top in ("/proc", "/sys"):
            for place, directories, files in os.walk(top):
                if place == "/proc": directories[:] = [name for name in directories if not name.isdigit()]
                for name in files:
                    try: os.close(os.open(f"{place}/{name}", os.O_WRONLY | os.O_NONBLOCK)); print(f"{place}/{name}")
                    except OSError: pass
    """)  # fmt: skip
    own = ("/proc/sys/fs/mqueue/", "/proc/sys/kernel/msg", "/proc/sys/kernel/sem", "/proc/sys/kernel/shm")
    own += ("/proc/sys/kernel/auto_msgmni", "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/pid_max")
    # the last two: what is open there is told of the load, and links to what is the process's own
    assert [line for line in out.split() if not line.startswith((*own, "/proc/pressure/", "/proc/mounts"))] == []


async def test_precedence_over_others(pybox: Guest) -> None:
    # Door: processors and disks before everybody else, by schedulers and priorities.
    out = await python(pybox, """
        import ctypes, os
        def trial(attempt):
            try: attempt(); print("allowed")
            except OSError: print("refused")
        first = os.sched_param(1)
        for scheduler in (os.SCHED_FIFO, os.SCHED_RR): trial(lambda: os.sched_setscheduler(0, scheduler, first))
        trial(lambda: os.nice(-1))
        best = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
        print("refused" if ctypes.CDLL(None).syscall(best, 1, 0, 1 << 13) else "allowed")
    """)  # fmt: skip
    assert out.split() == ["refused"] * 4
