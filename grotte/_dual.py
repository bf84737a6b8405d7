"""Methods that work on an instance and, with an id in front, on the class: `sandbox.kill()`, `Sandbox.kill(id)`."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast, overload

S = TypeVar("S")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class DualMethod(Generic[S, P, R, Q, T]):
    """A descriptor of two functions; type checkers see the signature of the one that is meant."""

    def __init__(
        self, on_instance: Callable[Concatenate[S, P], R], on_class: Callable[Concatenate[type[S], Q], T]
    ) -> None:
        self.__doc__ = on_instance.__doc__
        self.__name__ = on_instance.__name__
        self.on_instance = on_instance
        self.on_class = on_class

    @overload
    def __get__(self, instance: None, owner: type[S]) -> Callable[Q, T]: ...
    @overload
    def __get__(self, instance: S, owner: type[S]) -> Callable[P, R]: ...
    def __get__(self, instance: S | None, owner: type[S]) -> Callable[P, R] | Callable[Q, T]:
        # functions are descriptors themselves, which their type does not say
        if instance is None:
            return cast("Callable[Q, T]", self.on_class.__get__(owner))
        return cast("Callable[P, R]", self.on_instance.__get__(instance))


def also_on_class(
    on_class: Callable[Concatenate[type[S], Q], T],
) -> Callable[[Callable[Concatenate[S, P], R]], DualMethod[S, P, R, Q, T]]:
    """Decorate the method of instances with the class method of the same name, which mostly does the same for an id."""

    def decorate(on_instance: Callable[Concatenate[S, P], R]) -> DualMethod[S, P, R, Q, T]:
        plain: Callable[Concatenate[type[S], Q], T] = getattr(on_class, "__func__", on_class)
        # `help(Sandbox.kill)` shows the public name and text
        plain.__name__, plain.__doc__ = on_instance.__name__, plain.__doc__ or on_instance.__doc__
        return DualMethod(on_instance, plain)

    return decorate


def named_after(owner: type) -> None:
    """Let the methods that a public class has from its bases say its name, when they are called wrongly."""
    for base in owner.__mro__[:-1]:
        for member in vars(base).values():
            several = (member.on_instance, member.on_class) if isinstance(member, DualMethod) else (member,)
            for found in several:
                function = getattr(found, "__func__", found)
                if isinstance(function, FunctionType) and not function.__name__.startswith("_"):
                    function.__qualname__ = f"{owner.__name__}.{function.__name__}"


def accepts_old_names(**old_to_new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let callers go on using the names that arguments had before."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in old_to_new.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{old!r} is the former name of {new!r}: give one of them")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        renamed.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect and help() look at
        function.former_names = old_to_new  # type: ignore[attr-defined]  # for whoever looks at the whole surface
        renamed.__name__, renamed.__doc__ = function.__name__, function.__doc__
        return renamed

    return decorate
