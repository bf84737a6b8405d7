"""What template ``base`` is: what people expect of such a computer, and nothing that tells about the host."""

from __future__ import annotations

import os
import socket

import pytest

from grotte.engine.host import Egress, Guest, SandboxHost, SandboxSpec
from tests.host.support import run, shell


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("for p in bash ls curl git python3 tput sudo; do command -v $p >/dev/null || echo no $p; done", ""),
        ("python -c 'import sys; print(sys.version_info.major)'", "3\n"),
        ("bash -lc 'echo $LANG; echo grüße | grep -c .....$'", "C.UTF-8\n1\n"),
        ("python3 -c 'import locale; locale.setlocale(locale.LC_ALL, \"C.UTF-8\"); print(1)'", "1\n"),
        ("TERM=xterm-256color tput colors; TERM=xterm tput cols | grep -c .", "256\n1\n"),
        ("python3 -c 'import ssl; print(ssl.create_default_context().cert_store_stats()[\"x509_ca\"] > 50)'", "True\n"),
        ("hostname; cat /etc/hostname; getent hosts localhost box | wc -l", "box\nbox\n2\n"),
        ("date +%Z; cat /etc/timezone; readlink /etc/localtime", "UTC\nEtc/UTC\n/usr/share/zoneinfo/Etc/UTC\n"),
        ("for d in . bin lib share; do touch /usr/local/$d/mine && echo ok; done", "ok\n" * 4),
        ("touch /opt/x 2>/dev/null || sudo touch /opt/x /usr/bin/x /etc/x && echo ok", "ok\n"),
        ("touch ~/f /tmp/f /var/tmp/f /dev/shm/f && echo ok", "ok\n"),
        ("sudo su user -c 'id -un'; sudo su - user -c pwd", "user\n/home/user\n"),
        ("grep -c ^user: /etc/passwd; getent passwd 1000 | cut -d: -f1", "1\nuser\n"),
        ("sleep 0.01 && echo 'a b' | awk '{print $2}' | sed s/b/c/ | tr c d | sort | uniq -c | xargs", "1 d\n"),
        ("ulimit -c", "0\n"),
    ],
)
async def test_what_it_has(box: Guest, script: str, out: str) -> None:
    result = await shell(box, script)
    assert (result.out, result.status.code) == (out, 0), result


async def test_attributes_of_files(box: Guest) -> None:
    script = "import os; open('f', 'w'); os.setxattr('f', 'user.a', b'1'); print(os.listxattr('f'))"
    for user in ("user", "root"):
        assert (await run(box, "python3", "-c", script, user=user)).out == "['user.a']\n"


async def test_an_environment_of_pythons_own(box: Guest) -> None:
    script = "python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'"
    assert (await shell(box, script)).out == "True\n"


@pytest.mark.skipif(not os.path.exists("/var/lib/dpkg/status"), reason="the host has another package manager")
async def test_packages_are_known(box: Guest) -> None:
    assert int((await shell(box, "dpkg-query -W | wc -l")).out) > 50
    assert (await shell(box, "apt-cache policy bash | grep -c Installed")).out == "1\n"


def reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), 3).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not os.path.exists("/var/lib/dpkg/status"), reason="the host has another package manager")
async def test_a_package_is_installed(box: Guest) -> None:
    build = """
        mkdir -p p/DEBIAN p/usr/share/doc/hello-grotte p/usr/bin
        printf '%s\\n' 'Package: hello-grotte' 'Version: 1' 'Architecture: all' > p/DEBIAN/control
        printf '%s\\n' 'Maintainer: x' 'Description: x' >> p/DEBIAN/control
        printf '#!/bin/sh\\necho hello\\n' > p/usr/bin/hello-grotte; chmod 755 p/usr/bin/hello-grotte
        echo text > p/usr/share/doc/hello-grotte/README
        dpkg-deb --root-owner-group -b p p.deb >/dev/null && sudo apt-get install -y ./p.deb >log 2>&1 || cat log
        hello-grotte && sudo dpkg -r hello-grotte >/dev/null && ! test -e /usr/bin/hello-grotte
    """
    result = await shell(box, build)
    assert (result.out, result.status.code) == ("hello\n", 0), result


async def test_pip_installs_what_can_be_reached(host: SandboxHost) -> None:
    if host.no_internet or not reachable("pypi.org"):
        pytest.skip("PyPI cannot be reached")
    guest = await host.launch(SandboxSpec("pip", egress=Egress()))
    script = "pip3 install --quiet --disable-pip-version-check iniconfig && python3 -c 'import iniconfig; print(1)'"
    result = await shell(guest, script)
    assert result.out == "1\n", result
    await guest.kill()
