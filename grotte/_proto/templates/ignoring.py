"""Which files of a context are meant: patterns of COPY, and of ``.dockerignore``."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import cache

from grotte.errors import InvalidArgumentException

_MEMBERS = re.compile(r"(\\.|[^\\])-(\\.|[^\\])|(\\.|.)", re.DOTALL)


def ignore_lines(content: str) -> list[str]:
    """The patterns of a ``.dockerignore`` file, without comments."""
    lines = (line.strip() for line in content.removeprefix("\ufeff").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@cache
def pattern(glob: str) -> re.Pattern[str]:
    """Compile a pattern: ``*`` and ``?`` stay within a name, ``**`` goes through any number of directories.

    Raises:
        InvalidArgumentException: a bracket has no end.
    """
    glob = posixpath.normpath(glob).lstrip("/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[\^!]?(?:\\.|[^\]\\])+\]|\\.)", glob, flags=re.DOTALL)
    try:
        return re.compile("".join(_translated(part) for part in parts), re.DOTALL)
    except re.error as error:
        raise InvalidArgumentException(f"{glob!r} is not a pattern: {error}") from None


def _translated(part: str) -> str:
    match part:
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
    if len(part) > 2 and part[0] == "[":
        negated = part[1] in "!^"
        return f"[{'^' if negated else ''}{_MEMBERS.sub(_members, part[1 + negated : -1])}]"
    if len(part) == 2 and part[0] == "\\":
        return re.escape(part[1])
    if "[" in part:
        raise InvalidArgumentException(f"{part!r} is not a pattern: a bracket has no end")
    return re.escape(part)


def _members(match: re.Match[str]) -> str:
    """A range or a character of a bracket, without a meaning that only regular expressions know."""
    first, last, single = match.groups()
    return re.escape(single[-1]) if single else f"{re.escape(first[-1])}-{re.escape(last[-1])}"


def is_literal(source: str) -> bool:
    """Whether it names one path."""
    return not re.search(r"[*?\[\\]", source)


class Ignored:
    """What a list of patterns leaves out. A later pattern wins; ``!`` takes back."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [self._rule(line.strip()) for line in patterns if line.strip() not in ("", "!")]
        #: Nothing is taken back, so what is below a directory that is left out need not be looked at.
        self.final = not any(negated for negated, _ in self._rules)

    def _rule(self, line: str) -> tuple[bool, re.Pattern[str]]:
        return line.startswith("!"), pattern(line.removeprefix("!").strip())

    def __contains__(self, path: str) -> bool:
        """Whether a path relative to the context is left out: itself, or a directory that it is in."""
        found = False
        for negated, rule in self._rules:
            if found == negated and any(rule.fullmatch(name) for name in _with_parents(path)):
                found = not negated
        return found


def _with_parents(path: str) -> Sequence[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
