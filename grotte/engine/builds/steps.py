"""The steps of a template, as clients send them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from grotte.engine.faults import ControlFault

MAX_STEPS = 1000
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWNER = re.compile(r"[A-Za-z0-9_.-]+\$?(:[A-Za-z0-9_.-]+\$?)?")


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command, as `user` or the current one."""

    command: str
    user: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy files of an uploaded context.

    Attributes:
        source: A path or pattern relative to the context.
        target: A directory if it ends with a slash.
        owner: ``user[:group]``, or nothing for the current user.
        mode: Permissions of the copies, or None for their own.
        context: The digest that the context was uploaded under.
    """

    source: str
    target: str
    owner: str
    mode: int | None
    context: str


@dataclass(frozen=True, slots=True)
class Env:
    """Variables for all that follows, and for sandboxes."""

    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Workdir:
    """Where all that follows starts."""

    path: str


@dataclass(frozen=True, slots=True)
class User:
    """Whom all that follows runs as; an account is made if there is none."""

    name: str
    administrator: bool


Action = Run | Copy | Env | Workdir | User


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what to do, and whether to do it although it was done before."""

    action: Action
    force: bool

    @property
    def text(self) -> str:
        """What people read in the log."""
        match self.action:
            case Run(command):
                return f"RUN {command}"
            case Copy(source, target):
                return f"COPY {source} {target}"
            case Env(values):
                return "ENV " + " ".join(name for name, _ in values)  # values may be secrets
            case Workdir(path):
                return f"WORKDIR {path}"
            case User(name):
                return f"USER {name}"


class WireStep(msgspec.Struct, rename="camel"):
    """A step as it is sent; unknown fields are ignored."""

    type: str
    args: list[str] = []
    force: bool | None = None
    files_hash: str | None = None


def read_steps(given: list[dict[str, Any]] | None) -> list[Step]:
    """Check the steps of a request.

    Raises:
        ControlFault: 400, one makes no sense.
    """
    if len(given or []) > MAX_STEPS:
        raise ControlFault(400, f"a template has at most {MAX_STEPS} steps")
    steps = []
    for number, fields in enumerate(given or [], 1):
        try:
            wire = msgspec.convert(fields, WireStep)
            steps.append(Step(_read(wire), wire.force is True))
        except (msgspec.ValidationError, ValueError) as error:
            raise ControlFault(400, f"step {number}: {error}") from None
    return steps


def _read(wire: WireStep) -> Action:
    """Read one step.

    Raises:
        ValueError: it makes no sense.
    """
    if any("\0" in argument for argument in wire.args):
        raise ValueError("an argument holds a NUL character")
    args = wire.args
    match wire.type.upper():
        case "RUN":
            return Run(*_arguments(wire, 1, 2))
        case "COPY":
            return _copy(wire)
        case "ENV":
            if len(args) % 2 or not args:
                raise ValueError("ENV takes names and values in turn")
            return Env(tuple(zip(map(check_name, args[::2]), args[1::2], strict=True)))
        case "WORKDIR":
            return Workdir(_arguments(wire, 1, 1)[0])
        case "USER":
            name, administrator = _arguments(wire, 1, 2)
            return User(_checked_owner(name.partition(":")[0]), administrator.lower() == "true")
    raise ValueError(f"unknown step type {wire.type[:100]!r}")


def _copy(wire: WireStep) -> Copy:
    source, target, owner, mode = _arguments(wire, 2, 4)
    if wire.files_hash is None or not _HASH.fullmatch(wire.files_hash):
        raise ValueError("COPY needs filesHash, 64 lowercase hexadecimal digits")
    if ".." in source.split("/") or source.startswith("/"):
        raise ValueError(f"COPY cannot reach outside of its context: {source!r}")
    if mode and not re.fullmatch("[0-7]{1,5}", mode):
        raise ValueError(f"COPY takes permissions in octal digits, not {mode!r}")
    if owner:
        _checked_owner(owner)
    return Copy(source, target, owner, int(mode, 8) if mode else None, wire.files_hash)


def _arguments(wire: WireStep, least: int, most: int) -> list[str]:
    """The arguments, with empty ones for those that were left out."""
    if not least <= len(wire.args) <= most or not all(wire.args[:least]):
        raise ValueError(f"{wire.type} takes {least} to {most} arguments" if least < most else f"{wire.type} takes one")
    return [*wire.args, *[""] * (most - len(wire.args))]


def check_name(name: str) -> str:
    """A variable's name.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name for a variable: {name[:100]!r}")
    return name


def _checked_owner(name: str) -> str:
    if not _OWNER.fullmatch(name):
        raise ValueError(f"not a user: {name[:100]!r}")
    return name


_REFERENCE = re.compile(rf"\\(.)|\$(?:\{{({_NAME.pattern})(?:(:[-+])([^}}]*))?\}}|({_NAME.pattern}))", re.DOTALL)


def expand(text: str, envs: dict[str, str]) -> str:
    """Replace ``$NAME``, ``${NAME}``, ``${NAME:-word}`` and ``${NAME:+word}``; unknown names are empty.

    Example:
        >>> expand(r"$A/${B:-b}:\\$A", {"A": "a"})
        'a/b:$A'
    """

    def value(match: re.Match[str]) -> str:
        escaped, braced, operator, word, plain = match.groups()
        if escaped is not None:
            return escaped if escaped in "$\\" else match.group()
        known = envs.get(braced or plain, "")
        if operator == ":-":
            return known or word
        if operator == ":+":
            return word if known else ""
        return known

    return _REFERENCE.sub(value, text)
