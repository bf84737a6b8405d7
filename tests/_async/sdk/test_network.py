"""What a sandbox reaches, and how it is reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grotte import AsyncSandbox, SandboxException, SandboxNotFoundException
from grotte._core import _aio
from grotte._proto.http import split_url
from grotte.models import ALL_TRAFFIC
from tests.support.engine import Engine
from tests.support.peer import Peer, running_peer

PORT = 8123
SECONDS = 10.0
SERVE = f"python3 -m http.server {PORT} --bind 127.0.0.1"


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as made:
        yield made


async def reaches(sandbox: AsyncSandbox, address: str, port: int) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), 5).recv(4)"
    result = await sandbox.commands.run(f'python3 -c "{script}"', check=False)
    return result.exit_code == 0


async def test_egress_is_on_unless_it_is_not_wanted(engine: Engine, sandbox: AsyncSandbox, peer: Peer) -> None:
    assert await reaches(sandbox, peer.first, peer.port)
    assert (await sandbox.get_info()).allow_internet_access is True
    async with await AsyncSandbox.create(allow_internet_access=False, **engine.options) as closed:
        assert not await reaches(closed, peer.first, peer.port)
        assert (await closed.get_info()).allow_internet_access is False


async def test_set_network_takes_it_away_and_gives_it_back(engine: Engine, sandbox: AsyncSandbox, peer: Peer) -> None:
    await sandbox.set_network(internet_access=False)
    assert not await reaches(sandbox, peer.first, peer.port)
    await AsyncSandbox.set_network(sandbox.sandbox_id, True, **engine.options)
    assert await reaches(sandbox, peer.first, peer.port)


async def test_lists(sandbox: AsyncSandbox, peer: Peer) -> None:
    await sandbox.set_network(network={"allow_out": [peer.first], "deny_out": [ALL_TRAFFIC]})
    assert await reaches(sandbox, peer.first, peer.port)
    assert not await reaches(sandbox, peer.second, peer.port)
    await sandbox.set_network()
    assert await reaches(sandbox, peer.second, peer.port)
    with pytest.raises(SandboxException, match="cannot be looked up"):
        await sandbox.set_network(network={"deny_out": ["nowhere.invalid"]})


async def test_an_unknown_sandbox_has_no_network(engine: Engine) -> None:
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.set_network("i" + "z" * 20, False, **engine.options)


async def test_a_url_leads_to_what_listens(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/home/user/index.html", "hello from inside")
    handle = await sandbox.commands.run(SERVE, background=True)
    answer = b""
    while not answer.endswith(b"hello from inside"):
        answer = await get(sandbox.get_url(PORT))
        assert b"port is not open" in answer or answer.startswith(b"HTTP/1.1 200")
    await handle.kill()
    await handle.disconnect()


async def get(url: str) -> bytes:
    """The answer as it came; names below ``localhost`` need no resolver."""
    origin, target = split_url(url)
    sock = await _aio.connect_tcp(origin.host, origin.port, _aio.clock() + SECONDS)
    with sock:
        sock.settimeout(SECONDS)
        sock.sendall(f"GET {target} HTTP/1.1\r\nhost: {origin.authority}\r\nconnection: close\r\n\r\n".encode())
        with sock.makefile("rb") as file:
            return file.read()
