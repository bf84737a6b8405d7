"""Internet access of sandboxes, as the control plane gives and takes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import KEY
from tests.engine.wire import OTHER_KEY, Box, Wire, check_error
from tests.support.engine import Engine, running_engine
from tests.support.peer import Peer, running_peer

UNKNOWN_ID = "i" + "z" * 20


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as made:
        yield made


@pytest.fixture
def online(wire: Wire) -> Iterator[Box]:
    with wire.box() as box:
        if not details(box)["allowInternetAccess"]:
            pytest.skip("no sandbox of this machine reaches anything")
        yield box


def details(box: Box) -> dict[str, object]:
    found: dict[str, object] = box.wire.get(f"/sandboxes/{box.id}").json()
    return found


def put(box: Box, **fields: object) -> int:
    answer = box.wire.put(f"/sandboxes/{box.id}/network", json=fields)
    assert answer.status_code == 204, answer.text
    return answer.status_code


def reaches(box: Box, address: str, port: int) -> bool:
    script = f"import socket; print(socket.create_connection(('{address}', {port}), 5).recv(4))"
    return box.start("python3", "-c", script).stdout == b"b'peer'\n"


def both(box: Box, peer: Peer) -> tuple[bool, bool]:
    return reaches(box, peer.first, peer.port), reaches(box, peer.second, peer.port)


# -- at creation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
@pytest.mark.parametrize("allowed", [None, True])
def test_the_first_command_has_internet_access(wire: Wire, peer: Peer, path: str, allowed: bool | None) -> None:
    for _ in range(3):  # a fresh one, and those that stood ready
        with wire.box(path, allow_internet_access=allowed) as box:
            assert reaches(box, peer.first, peer.port)
            assert details(box)["allowInternetAccess"] is True
            assert "network" not in details(box)


@pytest.mark.parametrize(
    "fields",
    [
        {"allow_internet_access": False},
        {"network": {"denyOut": ["0.0.0.0/0"]}},
        {"allow_internet_access": True, "network": {"denyOut": ["10.0.0.0/8", "0.0.0.0/0"]}},
    ],
)
def test_none_at_all(wire: Wire, peer: Peer, fields: dict[str, Any]) -> None:
    with wire.box(**fields) as box:
        assert both(box, peer) == (False, False)
        assert box.sh("tail -n +2 /proc/net/route").stdout == b""
        assert details(box)["allowInternetAccess"] is False


def test_lists_at_creation(wire: Wire, peer: Peer) -> None:
    lists = {"denyOut": ["0.0.0.0/0"], "allowOut": [peer.first]}
    with wire.box(network=lists) as box:
        assert both(box, peer) == (True, False)
        shown = details(box)["network"]
        expected = {"allowOut": [f"{peer.first}/32"], "denyOut": ["0.0.0.0/0"], "allowPublicTraffic": True}
        assert shown == expected
    with wire.box(allow_internet_access=False, network={"allowOut": [f"{peer.second}/32"]}) as box:
        assert both(box, peer) == (False, True)


@pytest.mark.parametrize(
    ("network", "status"),
    [
        ({"allowOut": ["*.example.org"]}, 501),
        ({"denyOut": ["no-such-name.invalid"]}, 400),
        ({"allowOut": ["not a name"]}, 400),
        ({"allowOut": ["a..b"]}, 400),
        ({"allowOut": ["-a.org"]}, 400),
        ({"allowOut": ["a" * 64 + ".org"]}, 400),
        ({"allowOut": [f"n{n}.example.org" for n in range(33)]}, 400),
        ({"allowOut": ["2001:db8::/32"]}, 501),
        ({"egressProxy": {"address": "proxy:1080"}}, 501),
        ({"dnsServers": ["::1"]}, 400),
        ({"dnsServers": ["1.1.1.0/24"]}, 400),
        ({"dnsServers": "1.1.1.1"}, 400),
        ({"dnsServers": [f"10.0.0.{n}" for n in range(9)]}, 400),
        ({"rules": {"example.org": []}}, 501),
        ({"allowOut": ["1.2.3.4/33"]}, 400),
        ({"denyOut": ["1.2.3"]}, 400),
        ({"denyOut": [""]}, 400),
        ({"denyOut": "0.0.0.0/0"}, 400),
        ({"denyOut": [7]}, 400),
        ({"allowOut": [f"10.0.{n // 256}.{n % 256}" for n in range(300)]}, 400),
        ({"maskRequestHost": "a b"}, 400),
    ],
)
def test_what_is_refused(online: Box, network: dict[str, object], status: int) -> None:
    answer = online.wire.post("/v2/sandboxes", json={"templateID": "base", "network": network})
    check_error(answer, status)
    if "maskRequestHost" not in network:
        check_error(online.wire.put(f"/sandboxes/{online.id}/network", json=network), status)


# -- while it runs -------------------------------------------------------------------------------------------------


def test_off_and_on(online: Box, peer: Peer) -> None:
    for _ in range(2):
        put(online, allow_internet_access=False)
        assert both(online, peer) == (False, False)
        assert details(online)["allowInternetAccess"] is False
        put(online, allow_internet_access=True)
        assert both(online, peer) == (True, True)
        assert details(online)["allowInternetAccess"] is True


def test_each_update_replaces_the_last(online: Box, peer: Peer) -> None:
    put(online, denyOut=[peer.first])
    assert both(online, peer) == (False, True)
    put(online, denyOut=["198.18.0.0/15"], allowOut=[f"{peer.first}/32"])
    assert both(online, peer) == (True, False)
    put(online, allow_internet_access=False, allowOut=[f"{peer.second}/32"])
    assert both(online, peer) == (False, True)
    put(online, denyOut=["0.0.0.0/0"])
    assert both(online, peer) == (False, False)
    put(online)
    assert both(online, peer) == (True, True)


@pytest.fixture(scope="module")
def named(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, Path]]:
    """An engine to which both addresses of the peer have names, and the file that says so."""
    if os.getuid() != 0:
        pytest.skip("names for the engine alone need a mount namespace")
    place = tmp_path_factory.mktemp("named")
    hosts = place / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{peer.first} first.test\n{peer.second} second.test\n")
    become = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    with running_engine(place / "data", "--api-key", KEY, become=become) as engine, Wire(engine.url, KEY) as wire:
        yield wire, hosts


def test_names_stand_for_their_addresses(named: tuple[Wire, Path], peer: Peer) -> None:
    wire, _ = named
    lists = {"denyOut": ["0.0.0.0/0"], "allowOut": ["First.TEST", "unknown.invalid"]}
    with wire.box(network=lists) as box:
        if not details(box)["allowInternetAccess"]:
            pytest.skip("no sandbox of this machine reaches anything")
        assert both(box, peer) == (True, False)
        shown = details(box)["network"]
        assert isinstance(shown, dict)
        assert shown["allowOut"] == ["first.test", "unknown.invalid"]
        put(box, denyOut=["first.test"])
        assert both(box, peer) == (False, True)
        put(box, denyOut=["first.test"], allowOut=["first.test"])
        assert both(box, peer) == (True, True)
        assert wire.post(f"/sandboxes/{box.id}/pause", json={"memory": False}).status_code == 204
        put_back = wire.post(f"/sandboxes/{box.id}/resume", json={"timeout": 60})
        assert put_back.status_code == 201
        assert both(box, peer) == (True, True)


ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((sys.argv[1], int(sys.argv[2])))
try: s.send(b"x"); print("open")
except PermissionError: print("closed")
"""


def may_send(box: Box, address: str, port: int) -> bool:
    answer = box.start("python3", "-c", ASK, address, str(port)).stdout
    assert answer in (b"open\n", b"closed\n")
    return answer == b"open\n"


@pytest.mark.parametrize(
    ("allowed", "servers", "machines", "own"),
    [
        (["first.test"], None, True, False),
        (["first.test"], [], False, False),
        (["first.test"], ["198.18.0.53"], False, True),
        (["198.18.0.1"], None, False, False),
        (["198.18.0.1"], ["198.18.0.53"], False, False),
    ],
)
def test_who_may_reach_a_name_may_look_it_up(
    named: tuple[Wire, Path], allowed: list[str], servers: list[str] | None, machines: bool, own: bool
) -> None:
    """Although all is denied: the resolvers of the machine, or those that were named instead."""
    wire, _ = named
    lists = {"denyOut": ["0.0.0.0/0"], "allowOut": allowed, "dnsServers": servers}
    with wire.box(network={"denyOut": ["198.18.0.0/15"]}) as box:
        if not details(box)["allowInternetAccess"]:
            pytest.skip("no sandbox of this machine reaches anything")
        resolver = box.sh("sed -n 's/^nameserver //p' /etc/resolv.conf | head -1").stdout.decode().strip()
        assert (may_send(box, resolver, 53), may_send(box, "198.18.0.53", 99)) == (True, False)
        put(box, **lists)
        assert (may_send(box, resolver, 53), may_send(box, "198.18.0.53", 99)) == (machines, own)
        assert not may_send(box, resolver, 54)
        shown = details(box)["network"]
        assert isinstance(shown, dict)
        assert shown.get("dnsServers") == servers
    with wire.box(network=lists) as box:
        assert (may_send(box, resolver, 53), may_send(box, "198.18.0.53", 99)) == (machines, own)


def test_new_addresses_of_a_name_are_let_in(named: tuple[Wire, Path], peer: Peer) -> None:
    wire, hosts = named
    with wire.box(allow_internet_access=False, network={"allowOut": ["first.test"]}) as box:
        if not details(box)["allowInternetAccess"]:
            pytest.skip("no sandbox of this machine reaches anything")
        assert both(box, peer) == (True, False)
        with hosts.open("a") as file:
            file.write(f"{peer.second} first.test\n")
        deadline = time.monotonic() + 60
        while not reaches(box, peer.second, peer.port):
            assert time.monotonic() < deadline
        assert both(box, peer) == (True, True)


def test_an_ipv6_range_that_is_denied_is_unreachable_anyway(online: Box) -> None:
    put(online, denyOut=["2001:db8::/32"])


def test_ports_work_without_internet_access(online: Box) -> None:
    put(online, allow_internet_access=False)
    online.sh("python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 &")
    answer = online.wire.get("/", headers={"host": f"8080-{online.id}.localhost"})
    assert answer.status_code in (200, 502)


def test_whose_it_is(online: Box, engine: Engine) -> None:
    with Wire(engine.url, OTHER_KEY) as stranger:
        check_error(stranger.put(f"/sandboxes/{online.id}/network", json={"allow_internet_access": False}), 404)
    with Wire(engine.url, None) as nobody:
        check_error(nobody.put(f"/sandboxes/{online.id}/network", json={}), 401)
    check_error(online.wire.put(f"/sandboxes/{UNKNOWN_ID}/network", json={}), 404)
    check_error(online.wire.put("/sandboxes/nope/network", json={}), 400)
    check_error(online.wire.post(f"/sandboxes/{online.id}/network", json={}), 405)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"allow_internet_access": "no"}', b'{"denyOut": {}}'])
def test_malformed(online: Box, body: bytes) -> None:
    check_error(online.wire.put(f"/sandboxes/{online.id}/network", content=body), 400)
    assert details(online)["allowInternetAccess"] is True
