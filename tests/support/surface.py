"""The public methods of the SDK, found by looking at its classes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from importlib import import_module

import grotte
from grotte._dual import DualMethod
from tools.reference import INTERNAL

#: The classes whose methods are calls.
KINDS = (
    "Sandbox",
    "Commands",
    "CommandHandle",
    "Filesystem",
    "WatchHandle",
    "Pty",
    "PtyHandle",
    "Git",
    "SandboxPaginator",
    "SnapshotPaginator",
    "Volume",
    "Template",
)
#: What describes a template, and calls nobody.
DESCRIPTION = {*vars(grotte.TemplateBase), "to_json"}
#: Any arguments, right or wrong.
Common: typing.TypeAlias = typing.Any


def classes_of(module: str) -> Iterator[type]:
    """The classes of the world, sync or async, in which a module lives."""
    world = "Async" if "_core" in module else ""
    for kind in KINDS:
        yield getattr(grotte, world + kind)


def methods_of(module: str) -> Iterator[tuple[str, str]]:
    """Class and name of each public method."""
    for kind in classes_of(module):
        for name in dir(kind):
            member = inspect.getattr_static(kind, name)
            if name.startswith("_") or name in INTERNAL or (name in DESCRIPTION and "Template" in kind.__name__):
                continue
            if isinstance(member, DualMethod | classmethod | staticmethod) or inspect.isfunction(member):
                yield kind.__name__, name


def functions_of(kind: type, name: str) -> list[Callable[..., object]]:
    """What is called under a name: one function, or that of instances and that of the class."""
    member = inspect.getattr_static(kind, name)
    if isinstance(member, DualMethod):
        return [member.on_instance, getattr(member.on_class, "__func__", member.on_class)]
    function = getattr(member, "__func__", member)
    return [inspect.unwrap(function)]


def arguments_of(function: Callable[..., object]) -> dict[str, object]:
    """The names that a function accepts, with what their types say; those of its `**options` included."""
    found: dict[str, object] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[parameter.name] = parameter.annotation
            continue
        name = str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")
        found |= import_module(function.__module__).__dict__[name].__annotations__
    return found
