"""Ways out of a sandbox. Each test tries one door, named in its comment, as root inside where that is stronger."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

import anyio
import pytest

from grotte.engine.host import Guest, GuestError, SandboxHost, SandboxSpec, SpawnRequest, TerminalSize
from grotte.engine.host.standalone.base_texts import SYSTEM_USERS
from tests.host.support import SECONDS, python, read_all, run, shell

CALL = """
import ctypes, os, socket, struct, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()]
machine = os.uname().machine
def number(x86, arm): return x86 if machine == "x86_64" else arm
"""


async def test_host_files_are_absent(box: Guest, tmp_path: Path, host: SandboxHost) -> None:
    # Door: the host's own directories, and the engine's data.
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    places = [str(secret), str(host.data_dir), "/work", "/boot", "/lost+found", "/etc/machine-id", "/etc/ssh"]
    for place in places:
        assert (await run(box, "cat", place, user="root")).status.code == 1, place
    assert (await shell(box, "ls -A /root /home /srv /mnt /opt", user="root")).out.split() == [
        "/home:", "user", "/mnt:", "/opt:", "/root:", ".bashrc", ".profile", "/srv:",
    ]  # fmt: skip


async def test_accounts_are_the_sandboxs_own(box: Guest) -> None:
    # Door: the host's password file.
    shadow = (await run(box, "cat", "/etc/shadow", user="root")).out
    assert shadow.startswith("root::")
    assert "$" not in shadow
    assert (await run(box, "cat", "/etc/shadow")).status.code == 1
    names = {line.split(":")[0] for line in (await run(box, "cat", "/etc/passwd")).out.splitlines()}
    assert names == {"root", "user", *SYSTEM_USERS}


@pytest.mark.skipif(os.getuid() != 0, reason="makes a file that only the host's root may read")
async def test_private_files_of_usr_are_masked(tmp_path: Path) -> None:
    # Door: root inside is shown as the owner of the host's files, so it could read private ones.
    secret = Path(f"/usr/local/share/grotte-test-{secrets.token_hex(8)}")
    try:
        secret.write_text("private")
        secret.chmod(0o600)
        async with SandboxHost(tmp_path / "data") as host:
            guest = await host.launch(SandboxSpec("masked"))
            assert (await run(guest, "cat", str(secret), user="root")).status.code == 1
            await guest.kill()
    finally:
        secret.unlink()


async def test_host_processes_are_invisible(box: Guest) -> None:
    # Door: /proc and kill.
    out = (await shell(box, "ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/comm | grep -c pytest", user="root")).out
    visible, engines = out.split()
    assert int(visible) < 10
    assert engines == "0"
    assert (await shell(box, f"kill -9 {os.getpid()}", user="root")).status.code != 0


async def test_other_sandboxes_are_invisible(box: Guest, host: SandboxHost) -> None:
    # Door: a neighbour's files, shared memory, processes and host name.
    other = await host.launch(SandboxSpec("neighbour"))
    try:
        await shell(
            other,
            "echo mine > /home/user/f; echo mine > /dev/shm/f; echo mine > /tmp/f; sleep 96 >/dev/null 2>&1 &",
            "root",
        )
        out = (await shell(box, "ls /home/user /dev/shm /tmp; grep -l sleep /proc/[0-9]*/comm; hostname", "root")).out
        assert "f" not in out.split()
        assert "comm" not in out
        assert out.split()[-1] == "box"
    finally:
        await other.kill()


@pytest.mark.parametrize(
    "path", ["/home/user/../../../../etc/hostname", "link/etc/hostname", "/proc/1/root/etc/hostname"]
)
async def test_paths_stay_inside(box: Guest, path: str) -> None:
    # Door: `..` and symlinks in the paths of file operations.
    await shell(box, "ln -s ../../../../../../.. link")
    assert read_all((await box.open_read(path, "user")).fd) == b"box\n"


async def test_a_link_that_changes_under_the_walk(box: Guest) -> None:
    # Door: a symlink race against a removal that runs as root. All that it could reach is the sandbox's own.
    script = "mkdir -p a/b/c; while :; do mv a x; ln -s /etc a; rm a; mv x a; done 2>/dev/null"
    async with anyio.create_task_group() as group:
        group.start_soon(shell, box, f"timeout 1 sh -c '{script}'")
        for _ in range(50):
            with contextlib.suppress(GuestError):  # "changed while it was removed" is an answer
                await box.remove("a", "user")
    assert (await box.stat("/etc/passwd", "user")).size > 0


async def test_first_process_is_closed(box: Guest) -> None:
    # Door: the guest's memory, environment, descriptors and root directory.
    for name in ("environ", "maps", "mem", "root/etc/passwd", "cwd/etc/passwd", "fd/3", "exe", "map_files", "syscall"):
        result = await run(box, "sh", "-c", f"cat /proc/1/{name} || ls /proc/1/{name}/", user="root")
        assert result.out == "", name
    before = (await shell(box, "ls /proc/1/task | wc -l")).status
    for number in (2, 9, 15, 19):
        await shell(box, f"kill -{number} 1", user="root")
    assert (await shell(box, "ls /proc/1/task | wc -l")).status == before


async def test_interpreter_of_the_guest_cannot_be_changed(pybox: Guest) -> None:
    # Door: overwriting /proc/<guest>/exe or the files that it runs from.
    for target in ("/proc/1/exe", "/run/grotte/runtime/loader", "/run/grotte/runtime/bin/python"):
        assert (await shell(pybox, f"echo x > {target}", user="root")).status.code != 0, target
    assert (await run(pybox, "ls", "/run/grotte")).status.code != 0
    assert (await shell(pybox, "mv /run/grotte/runtime /run/x", user="root")).status.code != 0


async def test_what_the_guest_imports_later_is_what_was_there_at_its_start(box: Guest) -> None:
    # Door: another directory in the place of the guest's, with modules and libraries that it has not loaded yet.
    moved = await shell(box, "mv /run/grotte /run/moved && mkdir -p /run/grotte/runtime && ls /run/moved", user="root")
    assert moved.status.code == 0, moved
    assert (await box.stat("/run/grotte/runtime", "user")).owner == "root"
    watch = await box.watch("/tmp", "user")
    watch.close()
    request = SpawnRequest("/bin/sh", ("-c", "stty size"), {"PATH": "/usr/bin:/bin"}, terminal=TerminalSize(90, 30))
    process = await box.spawn(request)
    with anyio.fail_after(SECONDS):
        assert (await process.wait()).code == 0
    assert os.read(process.stdout, 100).split() == [b"30", b"90"]
    for fd in (process.stdin, process.stdout):
        os.close(fd or -1)
    assert (await box.usage()).memory > 0


async def test_ptrace_of_the_guest(pybox: Guest) -> None:
    # Door: ptrace, and taking descriptors out of a process by pidfd.
    out = await python(pybox, CALL + """
print(call(number(101, 117), 16, 1, 0, 0))
fd = os.pidfd_open(1)
print(call(number(438, 438), fd, 3, 0))
print(call(number(310, 270), 1, 0, 0, 0, 0, 0))
""")  # fmt: skip
    assert out.split()[:2] == ["EPERM", "EPERM"]


async def test_kernel_settings(box: Guest) -> None:
    # Door: /proc/sys, sysrq, and what else the kernel takes orders from.
    for target in (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
        "/proc/sys/kernel/modprobe", "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger",
        "/proc/self/uid_map", "/sys/kernel/uevent_helper", "/proc/sys/net/ipv4/ip_forward", "/proc/kcore",
    ):  # fmt: skip
        result = await shell(box, f"echo 0 > {target}", user="root")
        assert result.status.code != 0, target


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt", "mount --bind / /mnt", "mount -o remount,rw /dev", "umount /proc",
        "umount -l /run/grotte/runtime", "mount -t proc proc /mnt", "pivot_root . .", "unshare -U true",
        "unshare -n true", "unshare -m true", "unshare -p --fork true", "nsenter -t 1 -n true",
        "mknod /tmp/disk b 254 0", "mknod /tmp/mem c 1 1", "hostname other", "date -s 2000-01-01",
        "ip link set lo down", "ip link add d0 type dummy", "swapoff /dev/vda", "dmesg", "chroot /proc/1/root true",
    ],
)  # fmt: skip
async def test_commands_of_root(box: Guest, command: str) -> None:
    # Door: everything that needs a capability of the real root.
    assert (await shell(box, command, user="root")).status.code != 0


async def test_chroot_is_no_door(pybox: Guest) -> None:
    # Door: the classic escape from a chroot, with a directory kept open outside of it.
    out = await python(pybox, """
        import os
        os.makedirs("/tmp/jail", exist_ok=True)
        fd = os.open("/", os.O_RDONLY)
        os.chroot("/tmp/jail")
        os.fchdir(fd)
        for _ in range(50): os.chdir("..")
        os.chroot(".")
        print(open("/etc/hostname").read())
    """)  # fmt: skip
    assert out == "box"


async def test_devices(box: Guest) -> None:
    # Door: device nodes of the host.
    found = set((await shell(box, "find /dev -type b -o -type c | sort", user="root")).out.split())
    names = ["null", "zero", "full", "random", "urandom", "tty", "pts/ptmx", "ptmx", "console"]
    assert found <= {f"/dev/{name}" for name in names}
    assert (await shell(box, "echo x > /dev/new", user="root")).status.code != 0


async def test_setuid_gains_nothing(box: Guest) -> None:
    # Door: a setuid binary, the host's own and one made by root inside.
    await shell(box, "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id", user="root")
    assert (await run(box, "/tmp/id", "-u")).out == "1000\n"
    assert (await shell(box, "grep NoNewPrivs /proc/self/status")).out.split()[1] == "1"
    assert (await shell(box, "grep CapEff /proc/self/status")).out.split()[1] == "0" * 16
    assert (await shell(box, "su -c id root </dev/null")).out.count("uid=0") == 0


async def test_capabilities_of_root(box: Guest) -> None:
    # Door: a capability that root inside does not need.
    effective = int((await shell(box, "grep CapEff /proc/self/status", user="root")).out.split()[1], 16)
    allowed = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18}
    assert {bit for bit in range(64) if effective >> bit & 1} == allowed


async def test_descriptors(box: Guest) -> None:
    # Door: a descriptor left open by the engine, the launcher, bubblewrap or the guest.
    for user in ("user", "root"):
        assert (await shell(box, "ls /proc/$$/fd", user)).out.split() == ["0", "1", "2"]


async def test_environment_of_the_engine(box: Guest, monkeypatch: pytest.MonkeyPatch, host: SandboxHost) -> None:
    # Door: secrets in the engine's environment, before and after the launcher started.
    assert (await shell(box, "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -ci pytest", user="root")).out == "0\n"
    monkeypatch.setenv("GROTTE_SECRET", "key")
    other = await host.launch(SandboxSpec("late"))
    assert "GROTTE_SECRET" not in (await shell(other, "cat /proc/[0-9]*/environ; env", user="root")).out
    await other.kill()


async def test_kernel_interfaces_are_filtered(pybox: Guest) -> None:
    # Door: keyrings, bpf, perf, userfaultfd, io_uring, handles, modules, clone3 and clone with namespaces.
    out = await python(pybox, CALL + """
buffer = ctypes.create_string_buffer(256)
for name, args in {
    "keyctl": (number(250, 219), 0, -3, 1), "add_key": (number(248, 217), b"user", b"x", b"y", 1, -3),
    "bpf": (number(321, 280), 0, buffer, 128), "perf": (number(298, 241), buffer, 0, -1, -1, 0),
    "userfaultfd": (number(323, 282), 0), "open_by_handle_at": (number(304, 265), 3, buffer, 0),
    "init_module": (number(175, 105), buffer, 1, b""), "kexec": (number(246, 104), 0, 0, 0, 0),
    "fsopen": (430, b"tmpfs", 0), "open_tree": (428, -100, b"/", 1), "setns": (number(308, 268), 0, 0),
    "clone_newuser": (number(56, 220), 0x10000000 | 17, 0, 0, 0, 0), "unshare": (number(272, 97), 0x10000000),
    "settime": (number(227, 112), 0, buffer), "process_madvise": (440, 0, 0, 0, 0, 0),
}.items(): print(name, call(*args))
for name, args in {"io_uring": (425, 8, buffer), "clone3": (435, buffer, 88), "landlock": (444, 0, 0, 1)}.items():
    print(name, call(*args))
""")  # fmt: skip
    answers = dict(line.split() for line in out.splitlines())
    absent = {name: answers.pop(name) for name in ("io_uring", "clone3", "landlock")}
    assert set(answers.values()) == {"EPERM"}, answers
    assert set(absent.values()) == {"ENOSYS"}, absent


async def test_socket_families(pybox: Guest) -> None:
    # Door: packet, vsock, raw, alg and privileged netlink sockets.
    out = await python(pybox, """
        import socket
        for family, kind, protocol in [(17, 3, 3), (40, 1, 0), (38, 5, 0), (16, 3, 9), (16, 3, 15), (31, 3, 1),
                                       (2, 3, 1), (2, 1, 0), (10, 2, 0), (1, 1, 0), (16, 3, 0)]:
            try: socket.socket(family, kind, protocol); print("+", end="")
            except OSError: print("-", end="")
        try: socket.socketpair(40, 1); print("+")
        except OSError: print("-")
    """)  # fmt: skip
    assert out == "-------++++-"


async def test_protocols_that_are_modules(pybox: Guest) -> None:
    # Door: SCTP, DCCP, L2TP and the like, and line disciplines, which the kernel loads for whoever asks.
    out = await python(pybox, """
        import errno, fcntl, os, socket
        for family in (2, 10):
            for kind, protocol in [(1, 132), (5, 0), (5, 132), (6, 0), (6, 33), (2, 115), (2, 136), (4, 0), (1, 262),
                                   (1, 6), (2, 17), (1 | 0x80800, 0)]:
                try: socket.socket(family, kind, protocol); print("+", end="")
                except OSError as error: print("-" if error.errno == errno.EPROTONOSUPPORT else error, end="")
        master, slave = os.openpty()
        try: fcntl.ioctl(slave, 0x5423, b"\\x15\\0\\0\\0")
        except PermissionError: print("refused")
    """)  # fmt: skip
    assert out.replace("--------++++", "as it should be ").split() == ["as", "it", "should", "be"] * 2 + ["refused"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only this machine has other calling conventions")
async def test_foreign_calling_conventions(pybox: Guest) -> None:
    # Door: calls by the x32 numbers, which a filter of the plain numbers would not see.
    result = await run(pybox, "python3", "-c", "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 272, 0)")
    assert result.status.signal is not None


async def test_network_of_the_host(pybox: Guest) -> None:
    # Door: a service on the host's loopback, by TCP and by an abstract unix socket.
    name = f"\0grotte-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        out = await python(pybox, f"""
            import socket
            for family, address in [(socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                                    (socket.AF_UNIX, {name!r}), (socket.AF_INET, ("169.254.169.254", 80)),
                                    (socket.AF_INET, ("10.0.0.1", 80))]:
                with socket.socket(family) as s:
                    s.settimeout(2)
                    try: s.connect(address); print("connected")
                    except OSError as error: print("refused")
        """)  # fmt: skip
    assert out.split() == ["refused"] * 4


async def test_loopback_inside_works(pybox: Guest) -> None:
    out = await python(pybox, """
        import socket
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), 2): print("connected")
    """, user="user")  # fmt: skip
    assert out == "connected"


async def test_terminal_injection(pybox: Guest) -> None:
    # Door: pushing characters into the engine's terminal.
    out = await python(pybox, """
        import fcntl, os
        master, slave = os.openpty()
        for request in (0x5412, 0x541C):
            try: fcntl.ioctl(slave, request, b"x"); print("allowed")
            except PermissionError: print("refused")
    """)  # fmt: skip
    assert out.split() == ["refused"] * 2
    assert (await shell(pybox, "echo x > /dev/tty")).status.code != 0


async def test_host_paths_do_not_leak(box: Guest, host: SandboxHost) -> None:
    # Door: what the mount table tells about the host.
    out = (await shell(box, "cat /proc/self/mountinfo /proc/self/cgroup /proc/1/mountinfo", user="root")).out
    assert str(host.data_dir) not in out
    assert all(line.endswith(":/") for line in out.splitlines() if ":" in line and " " not in line)


async def test_cgroups_cannot_be_reached(box: Guest) -> None:
    # Door: the release agent and the limits of the cgroup hierarchy.
    assert (await shell(box, "find / -xdev -name release_agent; find / -name 'cgroup.procs'", user="root")).out == ""
