"""The command line of ``sudo``."""

from __future__ import annotations

USAGE = "usage: sudo [-EHikns] [-u user] [-g group] [-D directory] [VAR=value] [command [arg ...]] | -l | -v | -V"
RUN, LIST, VALIDATE, VERSION = "run", "list", "validate", "version"

# What each letter is called in full; those that ask for a password, or for patience, have nothing to say here.
LONG = {
    "user": "u", "group": "g", "login": "i", "shell": "s", "preserve-env": "E", "set-home": "H", "list": "l",
    "validate": "v", "version": "V", "help": "h", "non-interactive": "n", "stdin": "S", "askpass": "A", "bell": "B",
    "reset-timestamp": "k", "remove-timestamp": "K", "preserve-groups": "P", "prompt": "p", "chdir": "D",
    "close-from": "C", "no-update": "N",
}  # fmt: skip
WITH_VALUE = frozenset("ugpDC")
IGNORED = frozenset("nSABkKPpCN")


class UsageError(Exception):
    """Why it is not done; the message is for people."""


class Options:
    """What was asked for.

    Attributes:
        action: To run a command, or one of the questions about oneself.
        command: The command with its arguments; empty for a shell.
        user: A name, or a number after ``#``.
        group: A name or number, or nothing for the user's own.
        directory: Where it runs; nothing for here.
        login: As if that user had logged in.
        shell: Through a shell.
        keep_all: The caller's environment stays.
        keep: Variables that stay.
        set_home: ``HOME`` is the user's.
        variables: Set for the command.
    """

    def __init__(self) -> None:
        self.action = RUN
        self.command: list[str] = []
        self.user = "root"
        self.group = ""
        self.directory = ""
        self.login = self.shell = self.keep_all = self.set_home = False
        self.keep: list[str] = []
        self.variables: dict[str, str] = {}
        self.forgot = False

    def take(self, letter: str, value: str) -> None:
        """Take one option.

        Raises:
            UsageError: It is not offered.
        """
        flags = {"i": "login", "s": "shell", "H": "set_home"}
        texts = {"u": "user", "g": "group", "D": "directory"}
        actions = {"l": LIST, "v": VALIDATE, "V": VERSION}
        if letter in flags:
            setattr(self, flags[letter], True)
        elif letter in texts:
            setattr(self, texts[letter], value)
        elif letter in actions:
            self.action = actions[letter]
        elif letter == "E":
            self.keep_all = self.keep_all or not value
            self.keep += value.split(",") if value else []
        elif letter in IGNORED:
            self.forgot = self.forgot or letter in "kK"
        else:
            raise UsageError(USAGE if letter == "h" else f"option -{letter} is not offered here\n{USAGE}")


def parse(words: list[str]) -> Options:
    """Read the words after ``sudo``.

    Raises:
        UsageError: They make no sense.
    """
    options, rest = Options(), list(words)
    while rest and rest[0].startswith("-") and len(rest[0]) > 1:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _take_long(options, word[2:], rest)
        else:
            _take_short(options, word[1:], rest)
    while rest and "=" in rest[0] and not rest[0].startswith(("=", "/")):
        name, _, value = rest.pop(0).partition("=")
        options.variables[name] = value
    options.command = rest
    if options.action == RUN and not rest and not options.login and not options.shell:
        if not options.forgot:
            raise UsageError(USAGE)
        options.action = VALIDATE
    return options


def _take_short(options: Options, letters: str, rest: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        value = ""
        if letter in WITH_VALUE:
            value, letters = letters or _next(f"-{letter}", rest), ""
        options.take(letter, value)


def _take_long(options: Options, word: str, rest: list[str]) -> None:
    name, given, value = word.partition("=")
    letter = LONG.get(name)
    if letter is None or (given and letter not in WITH_VALUE | {"E"}):
        raise UsageError(f"option --{name} is not offered here\n{USAGE}")
    if letter in WITH_VALUE and not given:
        value = _next(f"--{name}", rest)
    options.take(letter, value)


def _next(option: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"option {option} needs a value\n{USAGE}")
    return rest.pop(0)
