"""``grotte run CMD``: one command in a fresh sandbox, with live output and its exit code."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, TextIO

import anyio
import anyio.abc

from grotte._core.command_handle import AsyncCommandHandle
from grotte._core.sandbox import AsyncSandbox
from grotte.errors import InvalidArgumentException, SandboxException

if TYPE_CHECKING:
    from argparse import _SubParsersAction

#: What a shell reports for a command that a signal ended.
SIGNALLED = 128
STDIN_CHUNK = 65536


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="run one command in a fresh sandbox",
        usage="grotte run [OPTION ...] [--] CMD [ARG ...]",
        description="Run one command in a fresh sandbox, show its output as it comes, and exit with its exit code. "
        "A single CMD is a shell command line; CMD with ARGs is run with exactly these arguments. "
        "Options come before CMD: what follows it belongs to it.",
    )
    parser.add_argument("--template", default=None, help="the template to start from (default: base)")
    parser.add_argument("--timeout", type=float, default=0, metavar="SECONDS", help="end the command after this long")
    parser.add_argument("--cwd", default=None, help="the directory to run it in (default: the user's home)")
    parser.add_argument("--user", default=None, help="the user to run it as (default: the template's)")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="may repeat")
    parser.add_argument("--api-url", default=None, metavar="URL", help='where sandboxes run; "local": this machine')
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help=argparse.SUPPRESS)
    parser.set_defaults(execute=execute, wrong=parser.error)


def execute(options: argparse.Namespace) -> int:
    """Run the command; the only failure of the tasks below is raised as it is."""
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        options.wrong("say what to run, after the options: grotte run python3 -c 'print(6 * 7)'")
    try:
        return anyio.run(run_until_interrupted, options)
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        raise failure from None


async def run_until_interrupted(options: argparse.Namespace) -> int:
    """Run the command; SIGINT and SIGTERM cancel it, and so throw its sandbox away."""
    status = 0
    async with anyio.create_task_group() as tasks:

        async def cancel_on_signal() -> None:
            nonlocal status
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for received in signals:
                    status = SIGNALLED + received
                    tasks.cancel_scope.cancel()

        tasks.start_soon(cancel_on_signal)
        status = await run_command(options)
        tasks.cancel_scope.cancel()
    return status


async def run_command(options: argparse.Namespace) -> int:
    line = options.command[0] if len(options.command) == 1 else shlex.join(options.command)
    sandbox = await AsyncSandbox.create(options.template, api_url=options.api_url, timeout=lifetime(options.timeout))
    async with sandbox:
        piped = not sys.stdin.isatty()
        handle = await sandbox.commands.run(
            line,
            background=True,
            stdin=piped,
            timeout=options.timeout,
            cwd=options.cwd,
            user=options.user,
            envs=environment(options.env),
        )
        async with anyio.create_task_group() as tasks:
            if piped:
                tasks.start_soon(forward_stdin, handle)
            status = await show_output(handle)
            tasks.cancel_scope.cancel()
    return status


def lifetime(timeout: float) -> int:
    """The sandbox outlives its command a little; without a timeout it may run for a day."""
    return int(timeout) + 60 if timeout else 24 * 3600


def environment(pairs: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a dict; a bare ``NAME`` passes the variable of this process on."""
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not (separator or name in os.environ):
            raise InvalidArgumentException(f"--env {pair!r}: give NAME=VALUE, or the name of a variable that is set")
        found[name] = value if separator else os.environ[name]
    return found


async def show_output(handle: AsyncCommandHandle) -> int:
    """Print what the command prints, and return what a shell would report of its end."""
    async for stdout, stderr, _ in handle:
        for text, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
            if text and not show(text, stream):
                return SIGNALLED + signal.SIGPIPE
    result = await handle.wait(check=False)
    return result.exit_code if result.exit_code >= 0 else SIGNALLED + signal.SIGKILL


def show(text: str, stream: TextIO) -> bool:
    """Print it at once; False when nobody reads any more."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # what is left in the buffer would be tried again at the end, and fail again
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return False
    return True


async def forward_stdin(handle: AsyncCommandHandle) -> None:
    """Pass on what is piped into this process; the command may end before it has read it all."""
    try:
        while chunk := await anyio.to_thread.run_sync(os.read, 0, STDIN_CHUNK, abandon_on_cancel=True):
            await handle.send_stdin(chunk)
        await handle.close_stdin()
    except SandboxException:
        return
