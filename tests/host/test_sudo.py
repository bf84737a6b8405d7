"""``sudo`` inside: what it runs, as whom, where, with what, and how that ends."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from grotte.engine.host import ExitStatus, Guest, SandboxHost, SandboxSpec, SpawnRequest
from tests.host.support import SECONDS, python, run, shell
from tests.host.test_terminals import read_all, read_until, terminal, write


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("sudo id -u", "0\n"),
        ("sudo -n -- id -un", "root\n"),
        ("sudo -u user id -un", "user\n"),
        ("sudo -u '#1000' id -un; sudo --user=user id -un; sudo -uuser id -un", "user\n" * 3),
        ("sudo -u nobody -g daemon id -gn", "daemon\n"),
        ("sudo sudo -u user sudo id -un", "root\n"),
        ("cd /tmp; sudo pwd; sudo -D /etc pwd; sudo -i pwd", "/tmp\n/etc\n/root\n"),
        ("sudo sh -c 'echo $HOME $USER $LOGNAME $SUDO_USER $SUDO_UID'", "/root root root user 1000\n"),
        ("A=1 sudo sh -c 'echo [$A]'; A=1 sudo -E sh -c 'echo [$A]'", "[]\n[1]\n"),
        ("A=1 B=2 sudo --preserve-env=A sh -c 'echo [$A$B]'; sudo A=3 sh -c 'echo [$A]'", "[1]\n[3]\n"),
        ("sudo -E sh -c 'echo $HOME'; sudo -EH sh -c 'echo $HOME'", "/home/user\n/root\n"),
        ("sudo -i echo 'two  words' '$HOME'; sudo -s echo 'a;b'", "two  words /root\na;b\n"),
        ("echo in | sudo cat; sudo sh -c 'echo err >&2' 2>&1", "in\nerr\n"),
        ("sudo -v && sudo -k && sudo -l | tail -1", "    (ALL : ALL) NOPASSWD: ALL\n"),
        ("sudo sh -c 'exit 7'; echo $?", "7\n"),
        ("sudo sh -c 'kill -TERM $$'; echo $?; sudo sh -c 'kill -9 $$'; echo $?", "143\n137\n"),
        ("sudo touch /root/x && sudo ls /root/x && sudo stat -c %U /root/x", "/root/x\nroot\n"),
        ("mkdir d; cd d; rmdir ../d; sudo id -u", "0\n"),
        ("chmod 700 .; mkdir d; cd d; sudo -u nobody id -un", "nobody\n"),
        ("seq 30000 | xargs -s 1000000 sudo sh -c 'echo $#' x", "30000\n"),
    ],
)
async def test_what_runs(box: Guest, script: str, out: str) -> None:
    result = await shell(box, script)
    assert (result.out, result.status) == (out, ExitStatus(0, None)), result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-u nobody-knows id", "unknown user nobody-knows"),
        ("-g nothing id", "unknown group nothing"),
        ("no-such-command", "no-such-command: command not found"),
        ("-D /nowhere id", "unable to change directory to /nowhere"),
        ("", "usage: "),
        ("-u", "option -u needs a value"),
        ("-e /etc/passwd", "option -e is not offered here"),
        ("--chroot=/ id", "option --chroot is not offered here"),
        ("/etc/passwd", "/etc/passwd: Permission denied"),
    ],
)
async def test_what_does_not_run(box: Guest, arguments: str, said: str) -> None:
    result = await shell(box, f"sudo {arguments}")
    assert result.err.startswith(f"sudo: {said}")
    assert result.status == ExitStatus(1, None)


async def test_who_may(box: Guest) -> None:
    # Door: a service of the sandbox that should stay without rights.
    result = await run(box, "sudo", "id", user="nobody", HOME="/")
    assert result.err == "sudo: nobody may not use sudo\n"
    assert (await shell(box, "echo wheel:x:77:nobody >> /etc/group", "root")).status.code == 0
    assert (await run(box, "sudo", "id", "-u", user="nobody", HOME="/")).out == "0\n"


async def test_root_inside_is_all_that_it_gives(box: Guest) -> None:
    # Door: more than what a command of the engine's has as root.
    for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
        script = f"grep {name} /proc/self/status"
        assert (await shell(box, f"sudo {script}")).out == (await shell(box, script, "root")).out
    assert (await shell(box, "sudo sh -c 'ls /proc/$$/fd'")).out.split() == ["0", "1", "2"]


async def until_nobody_sleeps(box: Guest) -> None:
    with anyio.fail_after(SECONDS):
        while (await shell(box, "grep -l sleep /proc/[0-9]*/comm | wc -l", "root")).out != "0\n":
            await anyio.sleep(0.02)


@pytest.mark.parametrize(("number", "seen"), [(signal.SIGTERM, "got TERM\n"), (signal.SIGUSR1, "got USR1\n")])
async def test_signals_are_passed_on(box: Guest, number: signal.Signals, seen: str) -> None:
    trap = 'for s in TERM USR1; do trap "echo got $s; exit 5" $s; done; echo ready; while :; do sleep 0.02; done'
    process = await box.spawn(SpawnRequest("sudo", ("sh", "-c", trap), {"PATH": "/usr/bin:/bin"}))
    with anyio.fail_after(SECONDS):
        await anyio.wait_readable(process.stdout)
        assert os.read(process.stdout, 100) == b"ready\n"
        assert await box.signal(process.pid, number)
        assert await process.wait() == ExitStatus(5, None)
    assert os.read(process.stdout, 100).decode() == seen
    os.close(process.stdout)
    os.close(process.stderr or -1)


@pytest.mark.parametrize("way", ["signal", "kill_tree"])
async def test_a_killed_sudo_takes_its_command_along(box: Guest, way: str) -> None:
    daemon = "(setsid sleep 96 >/dev/null 2>&1 &); echo ready; exec sleep 96"
    process = await box.spawn(SpawnRequest("/bin/sh", ("-c", f"exec sudo sh -c '{daemon}'"), {"PATH": "/usr/bin:/bin"}))
    with anyio.fail_after(SECONDS):
        await anyio.wait_readable(process.stdout)
        await (box.signal(process.pid, signal.SIGKILL) if way == "signal" else box.kill_tree(process.pid))
        assert await process.wait() == ExitStatus(None, signal.SIGKILL)
        await until_nobody_sleeps(box)
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_a_command_whose_sudo_ended_belongs_to_the_whole(box: Guest) -> None:
    script = "sudo sh -c '(setsid sleep 95 >/dev/null 2>&1 &)'; echo ready; sleep 95"
    process = await box.spawn(SpawnRequest("/bin/sh", ("-c", script), {"PATH": "/usr/bin:/bin"}))
    with anyio.fail_after(SECONDS):
        await anyio.wait_readable(process.stdout)
        await box.kill_tree(process.pid)
        await until_nobody_sleeps(box)
    os.close(process.stdout)
    os.close(process.stderr or -1)


async def test_on_a_terminal(box: Guest) -> None:
    async with terminal(box, "/bin/bash", "--norc", "-i") as process:
        write(process, b"sudo sh -c 'stty size; tty; ps -o tty= -p $$; read x; echo got $x >/dev/tty'\n")
        await read_until(process, b"24 80\r\n")
        write(process, b"keys\n")
        await read_until(process, b"got keys\r\n> ")
        write(process, b"sudo sleep 94\n")
        with anyio.fail_after(SECONDS):
            while (await shell(box, "pgrep -x sleep")).status.code != 0:
                await anyio.sleep(0.02)
        write(process, b"\x03")
        with anyio.fail_after(SECONDS):
            while (await shell(box, "pgrep -f '[s]tandalone.sudo'")).status.code == 0:
                await anyio.sleep(0.02)
        write(process, b"stty -a | grep -o ' echo '; sudo sh -c 'exit 3'; echo $?; exit\n")
        assert b" echo \r\n3\r\n" in await read_all(process)


async def test_much_output_on_a_terminal(box: Guest) -> None:
    async with terminal(box, "sudo", "seq", "100000") as process:
        lines = (await read_all(process)).decode().split("\r\n")
    assert lines[:-1] == [str(number) for number in range(1, 100_001)]


async def test_an_image_has_it_without_bringing_it(host: SandboxHost) -> None:
    layer = host.layer("image")
    (layer / "fs" / "etc").mkdir(parents=True)
    (layer / "fs" / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    guest = await host.launch(SandboxSpec("image", layers=(layer,), on_host_usr=False))
    for path in ("/usr/bin/sudo", "/usr/local/bin/sudo"):
        assert (await guest.stat(path, "user")).mode == 0o755
    await guest.kill()


FORGE = """
import fcntl, json, os, socket
GOOD = {"program": "/usr/bin/id", "arguments": ["id"], "envs": {}, "uid": 0, "group": "", "terminals": [False] * 3,
        "size": [0, 0]}
def sealed(data, seals=14):
    file = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(file, data)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file
def ask(data, fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(5)
        link.connect("/run/grotte/sudo")
        try:
            if fds: socket.send_fds(link, [data], fds)
            else: link.send(data)
            return link.recv(100)
        except OSError as error: return str(error).encode()
null = os.open("/dev/null", os.O_RDWR)
here = os.open("/", os.O_PATH)
def request(changes, fds=(here, null, null, null)):
    return ask(b"run", [sealed(json.dumps(GOOD | changes).encode()), *fds])
"""


async def test_forged_requests(pybox: Guest) -> None:
    # Door: the first process, by messages that no honest client sends.
    out = await python(pybox, FORGE + """
answers = [
    request({"uid": -1}), request({"uid": 2**40}), request({"uid": "0"}), request({"uid": True}),
    request({"envs": []}), request({"envs": {"A": 1}}), request({"envs": {"A=B": "x"}}), request({"arguments": "id"}),
    request({"arguments": []}), request({"arguments": ["a\\0b"]}), request({"program": None}), request({"size": [1]}),
    request({"size": [1, 70000]}), request({"terminals": []}), request({"group": 3}), request({"program": ""}),
    request({"terminals": [True] * 3, "size": [-1, 0]}), request({"arguments": ["\\ud800"]}),
    ask(b"run", [sealed(b"[" * 100000), here, null, null, null]),
    ask(b"run", [sealed(b"{}"), here, null, null, null]),
    ask(b"run", [sealed(b"x", 0), here, null, null, null]), ask(b"run", [null] * 5), ask(b"run", [here] * 5),
    ask(b"run", [sealed(b" " * (5 << 20)), here, null, null, null]), request({}, (null, null, null, null)),
    request({}, (here, null)), ask(b"run", []), ask(b"", []), ask(b"x" * 50000, []), ask(b"run", [null] * 200),
]
ends = [socket.socketpair() for _ in range(3)]
request({}, (here, ends[0][0].fileno(), ends[1][0].fileno(), here))
print(sum(answer.startswith(b"+") for answer in answers))
links = []
for _ in range(2000):
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.setblocking(False)
    try: link.connect("/run/grotte/sudo")
    except BlockingIOError: break
    links.append(link)
""")  # fmt: skip
    assert out == "0"
    assert (await shell(pybox, "sudo id -u")).out == "0\n"
