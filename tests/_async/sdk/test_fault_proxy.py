"""Fifty commands over a network that breaks all the time: nothing is lost, nothing comes twice, nothing hangs."""

from __future__ import annotations

from urllib.parse import urlsplit

from grotte import ApiParams, AsyncGrotte, AsyncSandbox, SandboxNotRunningException, TimeoutException
from grotte._core import _aio
from grotte._core.command_handle import AsyncCommandHandle
from grotte._proto.options import TransportOptions
from tests.servers.fault_proxy import FaultProxy
from tests.support.engine import Engine

COMMANDS = 50
BURSTS, LINES = 30, 20
#: Numbered lines on both streams, in bursts, so that the connection breaks in the middle of some and between others.
PROGRAM = (
    f"echo $NUMBER >> /tmp/started; for b in {{1..{BURSTS}}}; do for i in {{1..{LINES}}}; do "
    f'n=$(((b-1)*{LINES}+i)); echo "out $NUMBER $n ä"; echo "err $NUMBER $n" >&2; done; sleep 0.05; done'
)
#: A silent connection is found out within seconds and not within half a minute.
IMPATIENT = TransportOptions(ping_after=1, ping_timeout=1, connect_timeout=3)


async def start(sandbox: AsyncSandbox, number: int) -> tuple[AsyncCommandHandle, int]:
    """A command, and how often it was tried to start it: here every attempt may do so, since the user says so."""
    attempts = 0
    while True:
        attempts += 1
        try:
            envs = {"NUMBER": str(number)}
            return await sandbox.commands.run(PROGRAM, background=True, envs=envs, request_timeout=10), attempts
        except SandboxNotRunningException:
            raise
        except TimeoutException:
            assert attempts < 50


async def test_numbered_lines(engine: Engine) -> None:
    attempts: list[int] = []
    wrong: list[str] = []

    async def check(sandbox: AsyncSandbox, number: int) -> None:
        handle, tries = await start(sandbox, number)
        attempts.append(tries)
        result = await handle.wait()
        numbers = range(1, BURSTS * LINES + 1)
        if result.output_missing:
            wrong.append(f"{number}: output is said to be missing")
        if result.stdout != "".join(f"out {number} {n} ä\n" for n in numbers):
            wrong.append(f"{number}: stdout {result.stdout!r}")
        if result.stderr != "".join(f"err {number} {n}\n" for n in numbers):
            wrong.append(f"{number}: stderr {result.stderr!r}")

    port = urlsplit(engine.url).port
    assert port is not None
    with FaultProxy(port, seed=1) as proxy:
        options: ApiParams = {**engine.options, "sandbox_url": proxy.url}
        async with AsyncGrotte(transport=IMPATIENT, **options) as client:
            async with await client.Sandbox.create() as sandbox:
                proxy.calm = False
                async with _aio.open_nursery() as nursery:
                    for number in range(COMMANDS):
                        nursery.start_soon(check, sandbox, number)
                proxy.calm = True
                started = await sandbox.commands.run("wc -l < /tmp/started")
    assert not wrong, wrong[0][:2000]
    assert COMMANDS <= int(started.stdout) <= sum(attempts)
    assert sum(proxy.faults.values()) > 5, proxy.faults
