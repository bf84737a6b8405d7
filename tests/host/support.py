"""Running commands in a sandbox, and counting what sandboxes leave behind."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import anyio

from grotte.engine.host import ExitStatus, Guest, SpawnRequest

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 30


@dataclass(frozen=True)
class Result:
    status: ExitStatus
    out: str
    err: str


async def run(
    guest: Guest, *command: str, user: str = "user", cwd: str | None = None, stdin: bytes | None = None, **envs: str
) -> Result:
    """Run a command to its end, within bounds."""
    home = "/root" if user == "root" else f"/home/{user}"
    environment = {"PATH": PATH, "HOME": home, **envs}
    request = SpawnRequest(command[0], command[1:], environment, cwd, user, stdin is not None)
    with anyio.fail_after(SECONDS):
        process = await guest.spawn(request)
        outputs: dict[int, bytes] = {}
        async with anyio.create_task_group() as group:
            for fd in (process.stdout, process.stderr):
                group.start_soon(_drain, fd, outputs)
            if process.stdin is not None:
                os.write(process.stdin, stdin or b"")
                os.close(process.stdin)
            status = await process.wait()
    return Result(status, outputs[process.stdout].decode(), outputs[process.stderr].decode())


async def _drain(fd: int, outputs: dict[int, bytes]) -> None:
    chunks = []
    try:
        while True:
            await anyio.wait_readable(fd)
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            chunks.append(chunk)
    finally:
        os.close(fd)
    outputs[fd] = b"".join(chunks)


async def shell(guest: Guest, script: str, user: str = "user") -> Result:
    return await run(guest, "/bin/sh", "-c", script, user=user)


async def python(guest: Guest, script: str, user: str = "root") -> str:
    """Run a script with the sandbox's own Python; return what it printed."""
    result = await run(guest, "python3", "-c", textwrap.dedent(script), user=user)
    assert result.status.code == 0, result
    return result.out.strip()


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def children(pid: int) -> set[int]:
    """Return all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    pending = [pid]
    while pending:
        below = parents.get(pending.pop(), [])
        found.update(below)
        pending += below
    return found
