"""What git prints for programs, as the values that callers get."""

from __future__ import annotations

from collections.abc import Iterator

from grotte.models import GitBranches, GitFileStatus, GitStatus

_LABELS = {
    "U": "conflict",
    "R": "renamed",
    "C": "copied",
    "D": "deleted",
    "A": "added",
    "M": "modified",
    "T": "typechange",
}


def read_status(output: str) -> GitStatus:
    """The output of ``git status --porcelain=v2 --branch -z``."""
    status = GitStatus(current_branch=None, upstream=None, ahead=0, behind=0, detached=False, file_status=[])
    records = iter(output.split("\0"))
    for record in records:
        if record.startswith("# "):
            _read_header(status, record)
        elif record:
            status.file_status += _files(record, records)
    return status


def _read_header(status: GitStatus, record: str) -> None:
    name, _, value = record.removeprefix("# ").partition(" ")
    if name == "branch.head":
        status.detached = value == "(detached)"
        status.current_branch = None if status.detached else value
    elif name == "branch.upstream":
        status.upstream = value
    elif name == "branch.ab":
        ahead, _, behind = value.partition(" ")
        status.ahead, status.behind = abs(int(ahead)), abs(int(behind))


def _files(record: str, records: Iterator[str]) -> list[GitFileStatus]:
    """The file of a record; a renamed one's former name is the next record."""
    kind, _, rest = record.partition(" ")
    if kind == "?":
        return [GitFileStatus(rest, "untracked", "?", "?", staged=False)]
    # so many fields stand before the path
    fields = {"1": 7, "2": 8, "u": 9}.get(kind)
    if fields is None:
        return []
    *found, path = rest.split(" ", fields)
    letters = found[0].replace(".", " ")
    index, tree = letters[:1], letters[1:]
    former = next(records, None) if kind == "2" else None
    label = "conflict" if kind == "u" else _label(index, tree)
    return [GitFileStatus(path, label, index, tree, staged=index != " ", renamed_from=former)]


def _label(index: str, tree: str) -> str:
    return next((label for letter, label in _LABELS.items() if letter in (index, tree)), "unknown")


def read_branches(output: str) -> GitBranches:
    """The output of ``git for-each-ref`` with a tab and ``*`` after the current branch."""
    lines = [line.partition("\t") for line in output.splitlines() if line]
    current = next((name for name, _, mark in lines if mark == "*"), None)
    return GitBranches(branches=[name for name, _, _ in lines], current_branch=current)
