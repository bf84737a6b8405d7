"""Programs of the system that fetch and make images."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import anyio
from anyio.abc import ByteReceiveStream, Process

from grotte.engine.host import Check
from grotte.engine.images.reference import ImageError

#: What a program gets of this process's environment: where its configuration is, and how to reach others.
_PASSED = (
    "PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
#: The largest file that one may write, in bytes.
MAX_FILE = 16 << 30
#: The last lines that a failed program said, for the error.
LAST_LINES = 5
MAX_OUTPUT = 16 << 20
#: How long one that is not wanted any more may take to go, in seconds.
END_SECONDS = 10.0

OnLine = Callable[[str], None]


def find(program: str, package: str, what: str) -> str:
    """The path of a program.

    Raises:
        ImageError: it is not installed.
    """
    found = shutil.which(program)
    if found is None:
        raise ImageError(f"{what} needs {program}, which is not installed here; on Debian: apt-get install {package}")
    return found


def check() -> Check:
    """Say whether templates can be built from images of registries."""
    if shutil.which("skopeo") is None:
        missing = "without skopeo, templates are built from base and from root file systems only"
        return Check("images", "degraded", missing, "on Debian: apt-get install skopeo")
    return Check("images", "ok", "skopeo fetches images from registries")


async def run(
    command: Sequence[str],
    on_line: OnLine,
    *,
    seconds: float,
    envs: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> bytes:
    """Run a program to its end and return its stdout; a cancelled one is ended.

    Args:
        command: The program and its arguments.
        on_line: Is told of every line of its stderr.
        seconds: How long it may take.
        envs: More variables for it.
        output: A file for its stdout, which is not returned then.

    Raises:
        ImageError: it failed, with its last words, or took too long.
    """
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ} | dict(envs or {})
    last: list[str] = []

    def on_error(line: str) -> None:
        last.append(line)
        on_line(line)

    try:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(output.open("wb")) if output else subprocess.PIPE
            with anyio.fail_after(seconds):
                status, said = await _run(command, environment, target, on_error)
    except TimeoutError:
        raise ImageError(f"{os.path.basename(command[0])} took longer than {seconds:.0f} seconds") from None
    except OSError as error:
        raise ImageError(f"{command[0]} could not be run: {error.strerror}") from None
    if status != 0:
        raise ImageError("\n".join(last[-LAST_LINES:]) or f"it ended with status {status}")
    return said


async def _run(
    command: Sequence[str], environment: dict[str, str], target: IO[bytes] | int, on_error: OnLine
) -> tuple[int, bytes]:
    process = await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stdout=target, env=environment, cwd="/", start_new_session=True
    )
    output = bytearray()
    try:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
        async with anyio.create_task_group() as tasks:
            if process.stdout is not None:
                tasks.start_soon(_collect, process.stdout, output)
            assert process.stderr is not None
            tasks.start_soon(_tell_lines, process.stderr, on_error)
        return await process.wait(), bytes(output)
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    """Leave nothing of a program that is not wanted any more; it gets the time to clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:  # its number is nobody else's yet
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with anyio.move_on_after(END_SECONDS, shield=True):
                await process.wait()
    with anyio.move_on_after(END_SECONDS, shield=True):
        await process.aclose()


async def _collect(stream: ByteReceiveStream, output: bytearray) -> None:
    async for piece in stream:
        if len(output) < MAX_OUTPUT:
            output += piece


async def _tell_lines(stream: ByteReceiveStream, on_line: OnLine) -> None:
    held = b""
    async for piece in stream:
        *lines, held = (held + piece).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip():
                on_line(line.decode(errors="replace").strip())
    if held.strip():
        on_line(held.decode(errors="replace").strip())
