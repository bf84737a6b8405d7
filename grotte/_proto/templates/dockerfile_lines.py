"""Dockerfiles as text: instructions with their lines, heredocs, words and variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from grotte.errors import DockerfileSyntaxError

_ESCAPE = re.compile(r"#\s*escape\s*=\s*(.)", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*\w+\s*=.*")
#: Quoted text, in which nothing begins; or the beginning of a heredoc.
_HEREDOC = re.compile(r"""(?<!\S)\d*<<(-?)(["']?)([A-Za-z_][\w.]*)\2|"(?:\\.|[^"\\])*+"?|'[^']*+'?|\\.""", re.DOTALL)
#: The longest instruction that is taken apart, in characters.
MAX_WORDS = 64 * 1024
_REFERENCE = re.compile(r"\\([$\\])|\$(?:\{(\w+)(?:(:[-+])([^}]*))?\}|(\w+))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """The lines between ``<<NAME`` and ``NAME``, the latter included in `raw`."""

    body: str
    raw: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its first line's number, its name in capitals, what follows the name, and its heredocs."""

    line: int
    name: str
    rest: str
    heredocs: tuple[Heredoc, ...]

    def fail(self, text: str) -> DockerfileSyntaxError:
        return DockerfileSyntaxError(f"Dockerfile, line {self.line}: {text}", line=self.line)


def instructions(text: str) -> Iterator[Instruction]:
    """Take a Dockerfile apart.

    Raises:
        DockerfileSyntaxError: a line is no instruction, or a heredoc has no end.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    _check_directives(lines)
    place = 0
    while place < len(lines):
        if not lines[place].strip() or lines[place].lstrip().startswith("#"):
            place += 1
            continue
        first = place
        joined, place = _joined(lines, place)
        name, *rest = joined.strip().split(None, 1) or ("",)
        if not name:
            continue
        found = Instruction(first + 1, name.upper(), rest[0] if rest else "", ())
        if not found.name.isalpha():
            raise found.fail(f"{name[:100]!r} is no instruction")
        heredocs = []
        for start in _HEREDOC.finditer(found.rest) if found.name in ("RUN", "COPY", "ADD") else ():
            if start[3]:
                heredoc, place = _heredoc(found, lines, place, start[3], tabs=bool(start[1]))
                heredocs.append(heredoc)
        yield Instruction(found.line, found.name, found.rest, tuple(heredocs))


def _check_directives(lines: list[str]) -> None:
    for number, line in enumerate(lines, 1):
        if not _DIRECTIVE.fullmatch(line.strip()):
            return
        escape = _ESCAPE.match(line.strip())
        if escape and escape[1] != "\\":
            raise Instruction(number, "", "", ()).fail("the only escape character that is understood is the backslash")


def _joined(lines: list[str], place: int) -> tuple[str, int]:
    """A line with those that continue it, and where the next one is."""
    parts: list[str] = []
    while place < len(lines):
        line = lines[place]
        place += 1
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        bare = line.rstrip()
        if not bare.endswith("\\"):
            parts.append(line)
            break
        parts.append(bare[:-1])
    return "".join(parts), place


def _heredoc(found: Instruction, lines: list[str], place: int, end: str, *, tabs: bool) -> tuple[Heredoc, int]:
    for stop in range(place, len(lines)):
        if (lines[stop].lstrip("\t") if tabs else lines[stop]) == end:
            body = [line.lstrip("\t") if tabs else line for line in lines[place:stop]]
            return Heredoc("\n".join(body), "\n".join(lines[place : stop + 1])), stop + 1
    raise found.fail(f"the heredoc has no end: no line is {end!r}")


def words(found: Instruction, text: str, *, split: bool = True) -> list[str]:
    """Take text apart at its spaces, outside of quotes, which go.

    Returns:
        Words in which ``$NAME`` is still a reference; a dollar or a backslash that is none has a backslash before it.
    """
    result: list[str] = []
    word: list[str] = []
    quote, place, begun = "", 0, False
    text = text.strip()
    if len(text) > MAX_WORDS:
        raise found.fail(f"{found.name} is longer than {MAX_WORDS} characters")
    while place < len(text):
        piece = _piece(text, place, quote)
        place += len(piece)
        if piece in ("'", '"') and piece == (quote or piece):
            quote, begun = ("" if quote else piece), True
        elif piece.isspace() and not quote and split:
            result += ["".join(word)] if begun else []
            word, begun = [], False
        else:
            word.append(_kept(piece, quote))
            begun = True
    if quote:
        raise found.fail(f"the quote {quote} has no end")
    return [*result, "".join(word)] if begun else result


def _piece(text: str, place: int, quote: str) -> str:
    """What is one: an escaped character, a reference in braces, or a character."""
    if quote != "'" and text[place] == "\\":
        return text[place : place + 2]
    if quote != "'" and text.startswith("${", place) and (end := text.find("}", place)) > 0:
        return text[place : end + 1]
    return text[place]


def _kept(piece: str, quote: str) -> str:
    if quote == "'" or piece == "\\":
        return f"\\{piece}" if piece in "$\\" else piece
    if len(piece) == 2 and piece[0] == "\\" and piece[1] not in "$\\":
        return piece if quote and piece[1] != '"' else piece[1]
    return piece


def expanded(word: str, known: Mapping[str, str]) -> str:
    """A word without references; unknown names are empty.

    Example:
        >>> expanded(r"$A/${B:-b}:\\$A", {"A": "a"})
        'a/b:$A'
    """

    def value(match: re.Match[str]) -> str:
        escaped, braced, operator, other, plain = match.groups()
        found = known.get(braced or plain or "", "")
        if escaped:
            return str(escaped)
        if operator == ":+":
            return other if found else ""
        return found or (other or "")

    return _REFERENCE.sub(value, word)
