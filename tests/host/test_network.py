"""The way out of a sandbox: where it leads, where it must not, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from grotte.engine.host import Egress, Guest, HostError, SandboxHost, SandboxSpec
from grotte.engine.host.standalone import host_addresses, network
from grotte.engine.host.standalone.namespaces import OWNER_BASE
from grotte.engine.host.standalone.network import ADDRESS, FORWARDER, GATEWAY
from tests.host.support import SECONDS, children, python, shell
from tests.host.test_leaks import ENGINE, remains
from tests.support.peer import Peer, running_peer

TRY = """
import errno, socket, struct
def tcp(host, port):
    try:
        with socket.create_connection((host, int(port)), 5) as sock: return sock.recv(99).decode() or "open"
    except OSError as error: return errno.errorcode.get(error.errno, "timeout")
"""


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as made:
        yield made


@pytest.fixture
async def online(host: SandboxHost) -> AsyncIterator[Guest]:
    if host.no_internet and os.getuid() != 0:
        pytest.skip(host.no_internet)
    assert host.no_internet == ""
    guest = await host.launch(SandboxSpec("online", egress=Egress()))
    assert guest.network.egress == Egress(), guest.network.problem
    yield guest
    await guest.kill()


async def tcp(guest: Guest, address: str, port: int) -> str:
    return await python(guest, f"{TRY}\nprint(tcp('{address}', {port}))", user="user")


def pastas(host: SandboxHost) -> set[int]:
    assert host.launcher_pid is not None
    return {pid for pid in children(host.launcher_pid) if _name(pid).startswith("pasta")}


SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"


async def wake(guest: Guest, host: SandboxHost) -> set[int]:
    """Have a sandbox send its first packet; return what carries it."""
    before = pastas(host)
    assert (await shell(guest, f'python3 -c "{SEND}"')).status.code == 0
    with anyio.fail_after(SECONDS):  # one that does not get the interface yet ends, and is followed by another
        while not (found := {pid for pid in pastas(host) - before if _works(pid)}):
            await anyio.sleep(0.01)
    return found


def _works(pid: int) -> bool:
    """Whether it has given up its rights, which comes after everything that can fail."""
    try:
        return _status(pid)["Seccomp"] == "2"
    except OSError:
        return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()  # empty for those that are dead
    except OSError:
        return ""


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


# -- where it leads ------------------------------------------------------------------------------------------------


async def test_it_reaches_another_machine(online: Guest, peer: Peer) -> None:
    assert await tcp(online, peer.first, peer.port) == "peer"
    out = await python(online, f"""
        import socket
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.settimeout(5)
        sock.sendto(b"there", ("{peer.first}", {peer.port})); print(sock.recv(99).decode())
    """, user="user")  # fmt: skip
    assert out == "there"


async def test_without_egress_there_is_nothing(box: Guest, peer: Peer) -> None:
    assert await tcp(box, peer.first, peer.port) == "ENETUNREACH"
    assert (await shell(box, "tail -n +2 /proc/net/route")).out == ""


async def test_nobody_carries_packets_until_there_is_one(online: Guest, host: SandboxHost, peer: Peer) -> None:
    assert pastas(host) == set()
    retransmitted = "awk '/^Tcp: [0-9]/ { print $13 }' /proc/net/snmp"
    assert (await shell(online, f"sleep 0.2; {retransmitted}")).out == "0\n"
    assert pastas(host) == set()
    assert await tcp(online, peer.first, peer.port) == "peer"
    assert len(pastas(host)) == 1
    assert (await shell(online, retransmitted)).out == "0\n"  # no packet was lost on the way


async def test_many_first_packets_at_once(online: Guest, peer: Peer) -> None:
    out = await python(online, f"""
        import socket
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(40)]
        for sock in socks: sock.settimeout(5); sock.sendto(b"there", ("{peer.first}", {peer.port}))
        print(socks[0].recv(99).decode())
    """, user="user")  # fmt: skip
    assert out == "there"  # later ones may be lost
    assert await tcp(online, peer.second, peer.port) == "peer"


async def test_off_and_on_again(online: Guest, host: SandboxHost, peer: Peer) -> None:
    await wake(online, host)
    before = pastas(host)
    await online.network.change(None)
    assert len(pastas(host)) == len(before) - 1
    assert await tcp(online, peer.first, peer.port) == "ENETUNREACH"
    await online.network.change(None)
    await online.network.change(Egress())
    assert await tcp(online, peer.first, peer.port) == "peer"
    assert len(pastas(host)) == len(before)


async def test_lists(online: Guest, peer: Peer) -> None:
    first, second = f"{peer.first}/32", f"{peer.second}/32"
    for egress, reached in (
        (Egress(deny=("198.18.0.0/15",)), "EHOSTUNREACH EHOSTUNREACH"),
        (Egress(deny=("0.0.0.0/0",), allow=(first,)), "peer EHOSTUNREACH"),
        (Egress(deny=("198.18.0.0/15",), allow=(second,)), "EHOSTUNREACH peer"),
        (Egress(allow=(first,)), "peer peer"),
        (Egress(deny=(second,), allow=("198.18.0.0/15",)), "peer peer"),
        (Egress(), "peer peer"),
    ):
        await online.network.change(egress)
        script = f"{TRY}\nprint(tcp('{peer.first}', {peer.port}), tcp('{peer.second}', {peer.port}))"
        assert await python(online, script, user="user") == reached, egress


async def test_names_have_somebody_to_ask(online: Guest) -> None:
    lines = (await shell(online, "cat /etc/resolv.conf")).out.splitlines()
    assert lines
    assert all(line.startswith("nameserver ") for line in lines)
    assert not any(line.split()[1].startswith(("127.", "169.254.")) for line in lines)


# -- where it must not lead ----------------------------------------------------------------------------------------


@pytest.fixture
def host_port() -> Iterator[int]:
    """A server of the host, open to everybody who gets there."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


async def test_the_host_is_out_of_reach(online: Guest, host_port: int, peer: Peer) -> None:
    # Door: every address of the host, its loopback, the gateway, and the tricks that lead around a routing table.
    own = [cidr.split("/")[0] for cidr in host_addresses.local()]
    assert peer.ours in own
    with socket.create_connection((peer.ours, host_port), 5):  # it is open to the host itself
        pass
    targets = [*own, "127.0.0.2", GATEWAY, FORWARDER, ADDRESS, "0.0.0.0", "255.255.255.255", "localhost"]
    out = await python(online, f"{TRY}\nfor host in {targets!r}: print(tcp(host, {host_port}))")
    assert not {"open", "peer"} & set(out.split()), dict(zip(targets, out.split(), strict=True))


async def test_an_address_that_the_host_gets_later(online: Guest, host_port: int, peer: Peer) -> None:
    # Door: an address that was nobody's when the filter was made.
    if os.getuid() != 0:
        pytest.skip("only root can give the host an address")
    late = "198.19.78.1"
    subprocess.run(["ip", "address", "add", f"{late}/32", "dev", peer.cable], check=True, timeout=SECONDS)
    try:
        with anyio.fail_after(SECONDS):
            while await tcp(online, late, host_port) != "EHOSTUNREACH":
                await anyio.sleep(0.05)
    finally:
        subprocess.run(["ip", "address", "delete", f"{late}/32", "dev", peer.cable], check=True, timeout=SECONDS)


async def test_datagrams_that_choose_their_way(online: Guest, peer: Peer) -> None:
    # Door: IP_PKTINFO and SO_BINDTODEVICE name the interface, which skips routes that say "unreachable".
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        targets = [(peer.ours, port), ("169.254.169.254", port), (peer.first, peer.port)]
        out = await python(online, f"""
            import socket, struct
            info = struct.pack("=I4s4s", socket.if_nametoindex("eth0"), bytes(4), bytes(4))
            for target in {targets!r}:
                for bind in (False, True):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.settimeout(2)
                    try:
                        if bind: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
                        sock.sendmsg([b"x"], [] if bind else [(0, 8, info)], 0, target)
                        print(sock.recv(9).decode())
                    except OSError as error: print("no")
        """)  # fmt: skip
        assert out.split() == ["no"] * 4 + ["x"] * 2
        with pytest.raises(BlockingIOError):
            listener.recv(9)


async def test_link_local_is_refused_at_once(online: Guest) -> None:
    # Door: the metadata service of a cloud, which hands out the machine's credentials.
    assert await tcp(online, "169.254.169.254", 80) == "EHOSTUNREACH"
    await online.network.change(Egress(allow=("169.254.0.0/16", "0.0.0.0/0")))
    assert await tcp(online, "169.254.169.254", 80) == "EHOSTUNREACH"


async def test_ipv6_does_not_lead_around_the_filter(online: Guest) -> None:
    # Door: the other protocol, which the lists say nothing about.
    for address in ("2001:db8::1", "fe80::1%eth0", "ff02::1%eth0", "::ffff:169.254.169.254"):
        assert await tcp(online, address, 80) not in ("open", "timeout"), address


async def test_a_neighbour_is_out_of_reach(online: Guest, host: SandboxHost) -> None:
    # Door: the ports of another sandbox, which has the same address.
    other = await host.launch(SandboxSpec("neighbour2", egress=Egress()))
    try:
        await shell(other, "python3 -m http.server 8642 >/dev/null 2>&1 & sleep 0.5", "root")
        assert await tcp(other, "127.0.0.1", 8642) in ("open", "timeout")
        own = [cidr.split("/")[0] for cidr in host_addresses.local()]
        out = await python(online, f"{TRY}\nfor host in {[*own, ADDRESS, GATEWAY]!r}: print(tcp(host, 8642))")
        assert not {"open", "timeout"} & set(out.split()[:-1])
        assert out.split()[-1] != "open"
    finally:
        await other.kill()


async def test_the_filter_and_routes_cannot_be_changed(online: Guest) -> None:
    # Door: the sockets with which a network is set up.
    out = await python(online, """
        import errno, socket, struct
        def attempt(make):
            try: make(); return "allowed"
            except OSError as error: return errno.errorcode[error.errno]
        print(attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)))
        print(attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)))
        print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)))
        route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0) + struct.pack("=HHI", 8, 4, 1)
        route.send(struct.pack("=IHHII", 16 + len(body), 24, 0x605, 1, 0) + body)
        print(errno.errorcode[-struct.unpack_from("=i", route.recv(999), 16)[0]])
        print(attempt(lambda: open("/proc/sys/net/ipv4/conf/eth0/route_localnet", "w").write("1")))
    """)  # fmt: skip
    assert out.split()[:4] == ["EAFNOSUPPORT", "EAFNOSUPPORT", "EPERM", "EPERM"]
    assert out.split()[4] in ("EROFS", "EACCES", "EPERM")


async def test_carrying_packets_is_the_sandboxs_own_work(online: Guest, host: SandboxHost, peer: Peer) -> None:
    # Door: processors beyond the limit, by packets without end, which a process outside of the sandbox carries.
    if "cpu" not in host.limited:
        pytest.skip("nothing limits processors here")
    assert await tcp(online, peer.first, peer.port) == "peer"
    (pasta,) = pastas(host)
    assert [line for line in Path(f"/proc/{pasta}/cgroup").read_text().splitlines() if line.endswith("/online")]


async def test_pasta_is_out_of_reach(online: Guest, host: SandboxHost, peer: Peer) -> None:
    # Door: the process that carries the packets, and the device that it holds.
    before = await wake(online, host)
    await shell(online, "kill -9 -1; ls /dev/net/tun", "root")
    assert (await shell(online, "grep -l pasta /proc/[0-9]*/comm", "root")).out == ""
    assert pastas(host) == before
    assert await tcp(online, peer.first, peer.port) == "peer"


async def test_pasta_has_rights_nowhere_else(online: Guest, host: SandboxHost) -> None:
    # Door: a break-out from pasta, which reads what the sandbox writes.
    for pid in await wake(online, host):
        status = _status(pid)
        assert os.getuid() not in map(int, status["Uid"].split())
        assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")


# -- what stays ----------------------------------------------------------------------------------------------------


async def test_nothing_stays(tmp_path: Path) -> None:
    async with SandboxHost(tmp_path / "data") as host:
        if host.no_internet:
            pytest.skip(host.no_internet)

        async def use(name: str) -> None:
            guest = await host.launch(SandboxSpec(name, egress=Egress()))
            assert guest.network.egress is not None, guest.network.problem
            if name.endswith(("1", "2", "3")):
                await shell(guest, f'python3 -c "{SEND}"')
            await guest.network.change(Egress(deny=("1.2.3.0/24",)))
            if name.endswith("1"):
                await guest.network.change(None)
            await guest.kill()

        await use("warm")
        before = remains(host)
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(use, f"n{number}")
        assert remains(host) == before
        for turn in range(8):
            with anyio.move_on_after(turn * 0.01):
                await use(f"c{turn}")
            async with anyio.create_task_group() as group:
                for guest in host.guests:
                    group.start_soon(guest.kill)
        assert remains(host) == before


async def test_no_process_of_a_sandbox_has_an_end_of_an_interface(host: SandboxHost) -> None:
    # Door: a descriptor of another sandbox's interface, inherited from the launcher.
    if host.no_internet:
        pytest.skip(host.no_internet)
    guests = [await host.launch(SandboxSpec(f"tap{number}", egress=Egress())) for number in range(3)]
    try:
        assert host.launcher_pid is not None
        assert _interfaces(host.launcher_pid) == len(guests)
        assert sum(_interfaces(pid) for pid in children(host.launcher_pid)) == 0
    finally:
        for guest in guests:
            await guest.kill()


def _interfaces(pid: int) -> int:
    try:
        return sum(os.readlink(entry) == "/dev/net/tun" for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has just ended, as those do that remove files
        return 0


async def test_a_killed_engine_leaves_no_pasta(tmp_path: Path, host: SandboxHost) -> None:
    if host.no_internet:
        pytest.skip(host.no_internet)
    source = ENGINE.replace("SandboxSpec(name)", "SandboxSpec(name, egress=Egress())")
    source = source.replace("import SandboxHost", "import Egress, SandboxHost")
    source = source.replace('"/bin/sleep", ("1000",)', f'"/bin/sh", ("-c", "python3 -c \\"{SEND}\\"; sleep 1000")')
    for victims in ("engine", "launcher"):
        with subprocess.Popen(
            [sys.executable, "-c", source, str(tmp_path / victims)], stdout=subprocess.PIPE
        ) as engine:
            assert engine.stdout is not None
            launcher = int(engine.stdout.readline().split()[0])
            for _ in range(1000):
                family = children(launcher)
                carriers = [pid for pid in family if _name(pid).startswith("pasta")]
                if len(carriers) == 3:
                    break
                await anyio.sleep(0.01)
            os.kill(launcher if victims == "launcher" else engine.pid, signal.SIGKILL)
            assert len(carriers) == 3
            try:
                with anyio.fail_after(SECONDS):
                    while any(_name(pid) for pid in family):
                        await anyio.sleep(0.01)
            finally:
                engine.kill()


async def test_pasta_that_dies_is_told(online: Guest, host: SandboxHost) -> None:
    for pid in await wake(online, host):
        os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(SECONDS):
        while online.network.egress is not None:
            await anyio.sleep(0.01)
    assert "pasta" in online.network.problem
    await online.network.change(Egress())
    assert online.network.egress == Egress()


async def test_a_machine_without_pasta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for name in ("bwrap", "newuidmap", "newgidmap", "mount"):
            if os.access(f"{folder}/{name}", os.X_OK) and not (programs / name).exists():
                (programs / name).symlink_to(f"{folder}/{name}")
    monkeypatch.setenv("PATH", str(programs))
    async with SandboxHost(tmp_path / "data") as host:
        assert host.no_internet == "pasta is not installed"
        guest = await host.launch(SandboxSpec("offline", egress=Egress()))
        assert guest.network.egress is None
        with pytest.raises(HostError, match="pasta is not installed"):
            await guest.network.change(Egress())
        await guest.network.change(None)
        await guest.kill()


async def test_a_pasta_that_fails_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "pasta"
    fake.write_text("#!/bin/sh\necho 'no way out of here' >&2\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    async with SandboxHost(tmp_path / "data") as host:
        if host.no_internet:
            pytest.skip(host.no_internet)
        guest = await host.launch(SandboxSpec("stuck", egress=Egress()))
        await shell(guest, f'python3 -c "{SEND}"')
        with anyio.fail_after(SECONDS):
            while guest.network.egress is not None:
                await anyio.sleep(0.01)
        assert guest.network.problem
        assert (await shell(guest, "echo alive")).out == "alive\n"
        await guest.kill()


def test_a_number_that_is_another_processs_by_now() -> None:
    # Door: a sandbox that ends while its filter is about to be set, and a process of the host that gets its number.
    before = os.stat("/proc/self/ns/net").st_ino
    with pytest.raises(OSError):
        network._enter(os.getpid(), OWNER_BASE)
    assert os.stat("/proc/self/ns/net").st_ino == before
