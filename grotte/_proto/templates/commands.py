"""Command lines of the steps that have a method of their own; every argument is quoted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from grotte._proto import arguments
from grotte.errors import InvalidArgumentException

StrPath: TypeAlias = "str | os.PathLike[str]"
MAX_MODE = 0o7777
MAX_DEPTH = 2**31 - 1
APT = "DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y"


def one_path(value: object, name: str) -> str:
    """A path, as text."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return arguments.path(value, name)


def several(value: object, name: str) -> list[object]:
    """One thing, or a sequence of things; at least one."""
    found = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if not found:
        raise InvalidArgumentException(f"{name} must not be empty")
    return found


def paths(value: object, name: str) -> list[str]:
    return [one_path(item, name) for item in several(value, name)]


def octal(mode: object) -> str:
    """Permissions as four octal digits."""
    return f"{arguments.whole(mode, 'mode', 0, MAX_MODE):04o}"


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentException(f"{name} must be a bool, not {type(value).__name__}")
    return value


def packages(value: object) -> list[str]:
    """Names of packages: words of a string, or the items of a list as they are."""
    if isinstance(value, str):
        try:
            value = shlex.split(arguments.text(value, "packages"))
        except ValueError as error:
            raise InvalidArgumentException(f"packages: {error}") from None
    return [arguments.text(item, "packages") for item in several(value, "packages")]


def joined(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def run_line(command: object) -> str:
    """A command line, or several of which each runs if the one before succeeded."""
    return arguments.command_line(" && ".join(arguments.text(part, "command") for part in several(command, "command")))


def remove_line(path: object, *, force: bool, recursive: bool) -> str:
    options = [*["-r"] * flag(recursive, "recursive"), *["-f"] * flag(force, "force")]
    return joined(["rm", *options, "--", *paths(path, "path")])


def rename_line(src: object, dest: object, *, force: bool) -> str:
    options = ["-f"] * flag(force, "force")
    return joined(["mv", *options, "--", one_path(src, "src"), one_path(dest, "dest")])


def make_dir_line(path: object, mode: int | None) -> str:
    options = [] if mode is None else ["-m", octal(mode)]
    return joined(["mkdir", "-p", *options, "--", *paths(path, "path")])


def make_symlink_line(src: object, dest: object, *, force: bool) -> str:
    options = ["-f"] * flag(force, "force")
    return joined(["ln", "-s", *options, "--", one_path(src, "src"), one_path(dest, "dest")])


def install_line(program: Sequence[str], wanted: object, options: Iterable[tuple[str, bool]], default: str = "") -> str:
    """``pip install`` and its like.

    Args:
        program: The first words.
        wanted: The packages; None for what the directory asks for.
        options: Words, and whether they are used.
        default: What stands for the directory.
    """
    chosen = [word for word, used in options if flag(used, word)]
    names = ([default] if default else []) if wanted is None else packages(wanted)
    return joined([*program, *chosen, *names])


def apt_line(wanted: object, *, no_install_recommends: bool, fix_missing: bool) -> str:
    options = [("--no-install-recommends", no_install_recommends), ("--fix-missing", fix_missing)]
    chosen = [word for word, used in options if flag(used, word)]
    return f"apt-get update && {APT} {joined([*chosen, '--', *packages(wanted)])}"


def git_clone_line(url: object, path: object, branch: object, depth: object) -> str:
    words = ["git", "clone"]
    if branch is not None:
        words += ["--branch", arguments.text(branch, "branch"), "--single-branch"]
    if depth is not None:
        words += ["--depth", str(arguments.whole(depth, "depth", 1, MAX_DEPTH))]
    words += ["--", arguments.text(url, "url")]
    return joined([*words, one_path(path, "path")] if path is not None else words)
