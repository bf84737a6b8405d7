"""``sudo`` for a place where setuid programs gain nothing: a client of the sandbox's first process.

It works out what is to run, as the original would, and hands it over together with its own standard streams and
directory. The first process decides whether this user may, starts the command, and tells how it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys

from . import sudo_terminal
from .sudo_link import ADDRESS, SEALS
from .sudo_options import LIST, VALIDATE, VERSION, Options, UsageError, parse

SECURE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_COMMAND = 4096  # of what is told in the environment
KEPT = frozenset(
    {"TERM", "COLORTERM", "COLORS", "DISPLAY", "LANG", "LANGUAGE", "LS_COLORS", "TZ", "XAUTHORITY", "DEBIAN_FRONTEND"}
    | {f"{name}{tail}" for name in ("http", "https", "no", "ftp", "all") for tail in ("_proxy",)}
    | {f"{name}_PROXY" for name in ("HTTP", "HTTPS", "NO", "FTP", "ALL")}
)
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-$")
FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Target:
    """The user that the command runs as: a line of /etc/passwd."""

    __slots__ = ("home", "name", "shell", "uid")

    def __init__(self, name: str, uid: int, home: str, shell: str) -> None:
        self.name = name
        self.uid = uid
        self.home = home
        self.shell = shell


def find_user(wanted: str) -> Target | None:
    """Return a user by name, or by number after ``#``."""
    with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if len(fields) >= 7 and fields[2].isdecimal() and wanted in (fields[0], f"#{fields[2]}"):
                return Target(fields[0], int(fields[2]), fields[5] or "/", fields[6] or "/bin/sh")
    return None


def environment(options: Options, target: Target, caller: Target, command: list[str]) -> dict[str, str]:
    """Return the command's whole environment."""
    mine = given_environment()
    if options.login:
        kept = {name: value for name, value in mine.items() if name in ("TERM", "COLORTERM", "DISPLAY")}
    elif options.keep_all:
        kept = mine
    else:
        kept = {name: value for name, value in mine.items() if name in KEPT or name.startswith("LC_")}
    kept.update({name: mine[name] for name in options.keep if name in mine})
    fresh = {"SHELL": target.shell, "LOGNAME": target.name, "USER": target.name, "PATH": SECURE_PATH}
    fresh |= {"SUDO_USER": caller.name, "SUDO_UID": str(caller.uid), "SUDO_GID": str(os.getgid())}
    fresh["SUDO_COMMAND"] = " ".join(command)[:MAX_COMMAND]
    if options.set_home or options.login or not options.keep_all:
        fresh["HOME"] = target.home
    return kept | fresh | options.variables


def given_environment() -> dict[str, str]:
    """Return what the caller gave: the interpreter adds a locale to ``os.environ`` where there is none."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0") if b"=" in pair]
    return {name: value for name, _, value in pairs}


def command_line(options: Options, target: Target) -> tuple[str, list[str]]:
    """Return the program and its arguments, its own name first.

    Raises:
        UsageError: There is no such program.
    """
    if not options.login and not options.shell:
        return find_program(options.command[0]), options.command
    shell = target.shell if options.login else os.environ.get("SHELL") or target.shell
    name = os.path.basename(shell)
    words = [f"-{name}" if options.login else name]
    if options.command:
        words += ["-c", " ".join(escaped(word) for word in options.command)]
    return find_program(shell), words


def escaped(word: str) -> str:
    """Return a word as a shell reads it, but for ``$``, which stays what it is."""
    return "".join(letter if letter in PLAIN else f"\\{letter}" for letter in word)


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        UsageError: There is none of this name.
    """
    places = [""] if "/" in name else [f"{directory}/" for directory in SECURE_PATH.split(":")]
    for place in places:
        if os.path.isfile(place + name):
            return place + name
    raise UsageError(f"{name}: command not found")


def sealed(request: dict[str, object]) -> int:
    """Return a file with the request that nobody can change any more."""
    file = os.memfd_create("sudo", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    data = memoryview(json.dumps(request).encode())
    while data:
        data = data[os.write(file, data) :]
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
    return file


def execute(options: Options) -> int:
    """Run what the options say; return the exit status."""
    target = find_user(options.user)
    if target is None:
        raise UsageError(f"unknown user {options.user}")
    caller = find_user(f"#{os.getuid()}") or Target(str(os.getuid()), os.getuid(), "/", "/bin/sh")
    program, words = command_line(options, target)
    request: dict[str, object] = {
        "program": program,
        "arguments": words,
        "envs": environment(options, target, caller, [program, *words[1:]]),
        "uid": target.uid,
        "group": options.group,
        "terminals": [os.isatty(number) for number in (0, 1, 2)],
        "size": list(sudo_terminal.size()),
    }
    directory = options.directory or (target.home if options.login else ".")
    try:
        cwd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        cwd = os.open("/", os.O_PATH | os.O_DIRECTORY)
        if options.directory:
            raise UsageError(f"unable to change directory to {options.directory}") from None
    return converse(request, cwd)


def converse(request: dict[str, object], cwd: int) -> int:
    """Hand the request over and wait for the command's end."""
    pending: list[int] = []
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (*FORWARDED, signal.SIGWINCH):
        signal.signal(number, lambda number, _: pending.append(number))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        try:
            link.connect(ADDRESS)
        except OSError as error:
            raise UsageError(f"the sandbox does not answer: {error.strerror}") from None
        socket.send_fds(link, [b"run"], [sealed(request), cwd, 0, 1, 2])
        answer, fds, _, _ = socket.recv_fds(link, 4096, 1)
        if not answer.startswith(b"+"):
            raise UsageError(answer.decode(errors="replace") or "the sandbox does not answer")
        return sudo_terminal.Relay(link, wake_read, pending, fds[0] if fds else None).run()


def leave(status: int) -> int:
    """End as the command did."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def listing() -> str:
    """Return what ``sudo -l`` says."""
    caller = find_user(f"#{os.getuid()}")
    name = caller.name if caller else str(os.getuid())
    return f"User {name} may run the following commands on {os.uname().nodename}:\n    (ALL : ALL) NOPASSWD: ALL"


def main() -> None:
    """Be ``sudo``."""
    try:
        options = parse(sys.argv[1:])
        if options.action == VERSION:
            print("sudo for grotte sandboxes")
        elif options.action == LIST:
            print(find_program(options.command[0]) if options.command else listing())
        elif options.action != VALIDATE:
            sys.exit(leave(execute(options)))
    except UsageError as error:
        print(f"sudo: {error}", file=sys.stderr)
        sys.exit(1)
