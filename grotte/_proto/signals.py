"""The signals of Linux: their numbers, their names, and what those who wrote the protocol call them."""

from __future__ import annotations

import re

#: Number → name, and the words after ``signal:`` in what is said of a process that one ended.
SIGNALS = {
    1: ("SIGHUP", "hangup"),
    2: ("SIGINT", "interrupt"),
    3: ("SIGQUIT", "quit"),
    4: ("SIGILL", "illegal instruction"),
    5: ("SIGTRAP", "trace/breakpoint trap"),
    6: ("SIGABRT", "aborted"),
    7: ("SIGBUS", "bus error"),
    8: ("SIGFPE", "floating point exception"),
    9: ("SIGKILL", "killed"),
    10: ("SIGUSR1", "user defined signal 1"),
    11: ("SIGSEGV", "segmentation fault"),
    12: ("SIGUSR2", "user defined signal 2"),
    13: ("SIGPIPE", "broken pipe"),
    14: ("SIGALRM", "alarm clock"),
    15: ("SIGTERM", "terminated"),
}
#: What else ends processes, and has no words.
_WORDLESS = {24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS"}
_NAMES = {number: name for number, (name, _) in SIGNALS.items()} | _WORDLESS
_BY_WORDS = {words: name for name, words in SIGNALS.values()} | {f"signal {n}": name for n, name in _WORDLESS.items()}
#: ``signal: killed (out of memory)``: the words, and what is known besides.
_ENDED = re.compile(r"signal: ([^()]+?)((?: \([^()]*\))*)")
#: A shell reports a command that a signal ended with this and the signal's number.
SHELL_BASE = 128


def manner_of_end(exit_code: int, error: str | None) -> str:
    """What an exit code does not say by itself: the name of the signal that ended a command, and why; may be empty.

    Args:
        exit_code: As the server, or a shell in the sandbox, reports it.
        error: What the server says besides.
    """
    ended = _ENDED.fullmatch(error or "")
    if ended is not None:
        return f"{_BY_WORDS.get(ended[1], ended[1])}{ended[2]}"
    if exit_code - SHELL_BASE in _NAMES:
        return f"as shells report {_NAMES[exit_code - SHELL_BASE]}"
    return "" if error is None or error == f"exit status {exit_code}" else error
