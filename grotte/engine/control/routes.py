"""Which handler answers which path: a small table over percent-encoded paths."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from grotte.engine.faults import ControlFault, method_not_allowed, not_offered
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import plain_sandbox_id

#: ``handler(request, owner, *segments)``; that of a route without a key gets no owner. Segments come as they were
#: sent, percent-encoded; a sandbox's id comes checked and plain.
Handler = Callable[..., Awaitable[None]]
#: By ``METHOD /path``. In a path, ``{id}`` is a sandbox, any other ``{name}`` a segment, and ``*`` one or more
#: segments: template names may be sent with their slashes as they are.
Routes = Mapping[str, Handler]

_FIELD = re.compile(r"\{(\w+)\}|\*")


class Match(NamedTuple):
    """The handler of a request, its path in the table, and the segments that it is about."""

    handler: Handler
    template: str
    segments: list[str]


class _Path:
    """One path of the table."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.fields = [match[1] for match in _FIELD.finditer(template)]
        self._pattern = re.compile(_FIELD.sub(lambda match: "([^/]+)" if match[1] else "(.+)", template))

    def match(self, path: str) -> list[str] | None:
        """The segments in the place of the fields, if the path is of this form."""
        found = self._pattern.fullmatch(path)
        return None if found is None else list(found.groups())

    @property
    def vagueness(self) -> tuple[bool, int]:
        """Sorts the paths that say most before those that say less."""
        said = [segment for segment in self.template.split("/") if not _FIELD.fullmatch(segment)]
        return "*" in self.template, -len(said)


class Table:
    """All routes of one kind of caller.

    Args:
        offered: The routes and their handlers.
        refused: Those that are known and not offered: ``METHOD,METHOD /path`` each.
    """

    def __init__(self, offered: Iterable[Routes], refused: Iterable[str] = ()) -> None:
        handlers: dict[str, dict[str, Handler | None]] = {}
        for line in refused:
            methods, path = line.split()
            handlers.setdefault(path, {}).update(dict.fromkeys(methods.split(",")))
        for routes in offered:
            for route, handler in routes.items():
                method, path = route.split()
                handlers.setdefault(path, {})[method] = handler
        paths = sorted((_Path(template) for template in handlers), key=lambda path: path.vagueness)
        self._paths = [(path, handlers[path.template]) for path in paths]

    def knows(self, path: str) -> bool:
        return any(known.match(path) is not None for known, _ in self._paths)

    def find(self, request: Request, check: Callable[[], object]) -> Match:
        """The handler of a request.

        Args:
            check: Called before anything is said that not everybody may know.

        Raises:
            ControlFault: 404, there is no such path; 405, not with this method; 501, it is known and not offered.
        """
        allowed: set[str] = set()
        for path, methods in self._paths:
            segments = path.match(request.path)
            if segments is None:
                continue
            allowed |= methods.keys()
            if request.method in methods:
                check()
                handler = methods[request.method]
                if handler is None:
                    raise not_offered(f"{request.method} {unquote(request.path)[:200]}")
                return Match(handler, path.template, _checked(path.fields, segments))
        raise method_not_allowed(", ".join(sorted(allowed))) if allowed else ControlFault(404, "not found")


def _checked(fields: list[str], segments: list[str]) -> list[str]:
    return [_sandbox_id(segment) if name == "id" else segment for name, segment in zip(fields, segments, strict=True)]


def _sandbox_id(segment: str) -> str:
    sandbox_id = plain_sandbox_id(unquote(segment))
    if sandbox_id is None:
        raise ControlFault(400, "invalid sandbox id: expected 'i' and 20 characters of [a-z0-9]")
    return sandbox_id
