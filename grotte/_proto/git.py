"""Git command lines as shell text: everything quoted, nothing of the caller's taken for an option."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from grotte._proto import arguments
from grotte._proto.calls import CallParams
from grotte.errors import InvalidArgumentException
from grotte.models import Username

GitConfigScope: TypeAlias = Literal["global", "local", "system"]
GitResetMode: TypeAlias = Literal["soft", "mixed", "hard", "merge", "keep"]

_SCOPES = ("global", "local", "system")
_RESET_MODES = ("soft", "mixed", "hard", "merge", "keep")
#: What git must not do: ask somebody, open an editor, or speak in other words than those that are looked for.
ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_MERGE_AUTOEDIT": "no", "LC_ALL": "C"}
STATUS = ["status", "--porcelain=v2", "--branch", "-z"]
BRANCHES = ["for-each-ref", "--format=%(refname:strip=2)%09%(HEAD)", "refs/heads"]


class GitParams(CallParams, total=False):
    """What every call of `sandbox.git` accepts; and `api_key`, as `CallParams` says.

    Attributes:
        envs: Environment variables of the command.
        user: Who runs it; default: the template's user.
        cwd: Where relative paths start; default: the user's home.
        timeout: How long it may run, in seconds; 0 or None: as long as it likes. Default: 600.
        request_timeout: How long its start may take, in seconds.
    """

    envs: Mapping[str, str] | None
    user: Username | None
    cwd: str | None
    timeout: float | None
    request_timeout: float | None


class GitPath(str):
    """An argument that is a path in the sandbox: ``~`` in front stands for the user's home."""

    __slots__ = ()


def command(words: Sequence[str], path: str | None = None, config: Sequence[str] = ()) -> str:
    """A git command line.

    Args:
        words: The subcommand and its arguments, as git shall see them.
        path: The repository; None: the current directory.
        config: ``key=value`` of each setting for this command alone.
    """
    found: list[str] = [] if path is None else ["-C", repository(path)]
    for setting in config:
        found += ["-c", setting]
    return " ".join(["git", *(_quoted(word) for word in [*found, *words])])


def _quoted(word: str) -> str:
    if isinstance(word, GitPath) and (word == "~" or word.startswith("~/")):
        return f'"$HOME"{shlex.quote(word[1:]) if len(word) > 1 else ""}'
    return shlex.quote(word)


# -- what callers pass in ------------------------------------------------------------------------------------------


def repository(path: object) -> GitPath:
    return GitPath(arguments.text(path, "path"))


def name(value: object, what: str) -> str:
    """A branch, remote, revision, URL or key: git would take one that starts with a dash for an option."""
    found = arguments.text(value, what)
    if found.startswith("-"):
        raise InvalidArgumentException(f"{what} must not start with '-'")
    if any(ord(character) < 32 or character == "\x7f" for character in found):
        raise InvalidArgumentException(f"{what} must not contain control characters")
    return found


def paths(values: object, what: str) -> list[str]:
    """At least one path."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentException(f"{what} must be a list of paths")
    if not values:
        raise InvalidArgumentException(f"{what} must name at least one path; ['.'] stands for all")
    return [arguments.text(value, f"{what}[{index}]") for index, value in enumerate(values)]


def _key(value: object) -> str:
    key = name(value, "key")
    if "." not in key or "=" in key:
        raise InvalidArgumentException("key must be one such as 'user.name'")
    return key


# -- subcommands ---------------------------------------------------------------------------------------------------


def clone(url: str, path: str | None, branch: str | None, depth: int | None) -> list[str]:
    words = ["clone"]
    if branch is not None:
        words += ["--branch", name(branch, "branch"), "--single-branch"]
    if depth is not None:
        words += ["--depth", str(arguments.whole(depth, "depth", 1, 2**31 - 1))]
    return [*words, "--", url, *([] if path is None else [repository(path)])]


def init(path: str, bare: bool, initial_branch: str | None) -> list[str]:
    words = ["init"]
    if initial_branch is not None:
        words.append(f"--initial-branch={name(initial_branch, 'initial_branch')}")
    return [*words, *(["--bare"] if bare else []), "--", repository(path)]


def add(files: Sequence[str] | None, everything: bool) -> list[str]:
    if files is not None:
        return ["add", "--", *paths(files, "files")]
    return ["add", "--all"] if everything else ["add", "."]


def commit(message: str, allow_empty: bool) -> list[str]:
    return ["commit", "-m", arguments.text(message, "message"), *(["--allow-empty"] if allow_empty else [])]


def author(author_name: str | None, email: str | None) -> list[str]:
    """The settings for one commit."""
    found = []
    if author_name is not None:
        found.append(f"user.name={arguments.text(author_name, 'author_name')}")
    if email is not None:
        found.append(f"user.email={arguments.text(email, 'author_email')}")
    return found


def push(remote: str | None, branch: str | None, set_upstream: bool) -> list[str]:
    words = ["push", "--set-upstream"] if set_upstream and remote is not None else ["push"]
    return [*words, *_where(remote, branch)]


def pull(remote: str | None, branch: str | None) -> list[str]:
    return ["pull", *_where(remote, branch)]


def _where(remote: str | None, branch: str | None) -> list[str]:
    if branch is not None and remote is None:
        raise InvalidArgumentException("a branch needs the remote that it is on: pass remote= as well")
    found = [] if remote is None else [name(remote, "remote")]
    return [*found, *([] if branch is None else [name(branch, "branch")])]


def reset(mode: GitResetMode | None, target: str | None, files: Sequence[str] | None) -> list[str]:
    if mode is not None and mode not in _RESET_MODES:
        raise InvalidArgumentException(f"mode must be one of {', '.join(_RESET_MODES)}, not {arguments.shown(mode)}")
    words = ["reset", *([] if mode is None else [f"--{mode}"])]
    words += [] if target is None else [name(target, "target")]
    return [*words, "--", *([] if files is None else paths(files, "paths"))]


def restore(files: Sequence[str], staged: bool | None, worktree: bool | None, source: str | None) -> list[str]:
    if worktree is None:
        worktree = not staged
    if not (staged or worktree):
        raise InvalidArgumentException("at least one of staged and worktree must be True")
    words = ["restore", *(["--worktree"] if worktree else []), *(["--staged"] if staged else [])]
    words += [] if source is None else [f"--source={name(source, 'source')}"]
    return [*words, "--", *paths(files, "paths")]


def config(key: str, value: str | None, scope: GitConfigScope, path: str | None) -> tuple[list[str], str | None]:
    """The words that set a value, or get it if it is None, and the repository."""
    if scope not in _SCOPES:
        raise InvalidArgumentException(f"scope must be one of {', '.join(_SCOPES)}, not {arguments.shown(scope)}")
    if scope == "local" and path is None:
        raise InvalidArgumentException("the scope 'local' needs the path of a repository")
    words = ["config", f"--{scope}"]
    words += ["--get", _key(key)] if value is None else [_key(key), arguments.text(value, "value", empty=True)]
    return words, path if scope == "local" else None
