"""The control plane's routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import unquote

from grotte.engine.control.sandboxes import Sandboxes
from grotte.engine.control.snapshots import Snapshots
from grotte.engine.faults import ControlFault, method_not_allowed, not_offered
from grotte.engine.http import Request
from grotte.engine.lifecycle.ids import plain_sandbox_id
from grotte.engine.lifecycle.keys import Keyring

H = TypeVar("H")
#: `handler(request, owner)`
Handler = Callable[[Request, str], Awaitable[None]]
#: `handler(request, owner, sandbox_id)`
SandboxHandler = Callable[[Request, str, str], Awaitable[None]]

#: The rest of the protocol: known, and answered as not offered. `*` is one or more segments: template names may be
#: sent with their slashes as they are.
_NOT_OFFERED = """
GET /sandboxes/metrics
GET /sandboxes/{id}/metrics
GET /sandboxes/{id}/logs
GET /v2/sandboxes/{id}/logs
GET,POST /templates
GET,POST /v2/templates
POST /v3/templates
GET /default-templates
POST,DELETE /templates/tags
GET /templates/aliases/*
GET /templates/*/files/{hash}
POST /v2/templates/*/builds/{build}
GET /templates/*/builds/{build}/status
GET /templates/*/builds/{build}/logs
POST /templates/*/builds/{build}
GET /templates/*/tags
GET /templates/*/tags/count
GET /templates/*/tags/exists
GET /templates/*/tags/groups
GET /templates/*/tags/{tag}/assignments
GET,POST,PATCH /templates/*
PATCH /v2/templates/*
GET,POST /volumes
GET,DELETE /volumes/{id}
GET,PATCH,DELETE /volumecontent/{id}/path
GET,POST /volumecontent/{id}/dir
GET,PUT /volumecontent/{id}/file
GET,POST /secrets
GET,POST,DELETE /secrets/{id}
"""


_TEMPLATE = re.compile(r"/templates/(?!tags$)(.+)")


class ControlPlane:
    """REST calls about sandboxes, each checked for its key first."""

    def __init__(self, sandboxes: Sandboxes, snapshots: Snapshots, keyring: Keyring) -> None:
        self._keyring = keyring
        self._delete_template = snapshots.delete
        self._collections: dict[str, dict[str, Handler]] = {
            "/sandboxes": {"POST": sandboxes.create_v1, "GET": sandboxes.list_v1},
            "/snapshots": {"GET": snapshots.list},
            "/v2/sandboxes": {"POST": sandboxes.create_v2, "GET": sandboxes.list_v2},
        }
        self._items: list[tuple[re.Pattern[str], dict[str, SandboxHandler]]] = [
            (_pattern("/sandboxes/{id}"), {"GET": sandboxes.get, "DELETE": sandboxes.kill}),
            (_pattern("/sandboxes/{id}/connect"), {"POST": sandboxes.connect_v1}),
            (_pattern("/v2/sandboxes/{id}/connect"), {"POST": sandboxes.connect_v2}),
            (_pattern("/sandboxes/{id}/pause"), {"POST": sandboxes.pause}),
            (_pattern("/sandboxes/{id}/resume"), {"POST": sandboxes.resume}),
            (_pattern("/sandboxes/{id}/snapshots"), {"POST": snapshots.take}),
            (_pattern("/sandboxes/{id}/fork"), {"POST": snapshots.fork}),
            (_pattern("/sandboxes/{id}/timeout"), {"POST": sandboxes.set_timeout}),
            (_pattern("/sandboxes/{id}/refreshes"), {"POST": sandboxes.refresh}),
            (_pattern("/sandboxes/{id}/network"), {"PUT": sandboxes.set_network}),
        ]
        self._not_offered = [
            (_pattern(path), methods.split(","))
            for methods, path in (line.split() for line in _NOT_OFFERED.split("\n") if line)
        ]

    async def serve(self, request: Request) -> None:
        """Answer one request.

        Raises:
            ControlFault: it ends in an error; the caller sends it.
        """
        if (handlers := self._collections.get(request.path)) is not None:
            return await _choose(handlers, request)(request, self._keyring.owner(request))
        if request.method == "DELETE" and (match := _TEMPLATE.fullmatch(request.path)):
            return await self._delete_template(request, self._keyring.owner(request), match.group(1))
        self._refuse_not_offered(request)
        for pattern, item_handlers in self._items:
            if match := pattern.fullmatch(request.path):
                handler = _choose(item_handlers, request)
                owner = self._keyring.owner(request)
                return await handler(request, owner, _sandbox_id(match.group(1)))
        raise ControlFault(404, "not found")

    def _refuse_not_offered(self, request: Request) -> None:
        matching = [methods for pattern, methods in self._not_offered if pattern.fullmatch(request.path)]
        if any(request.method in methods for methods in matching):
            self._keyring.owner(request)
            raise not_offered(f"{request.method} {unquote(request.path)[:200]}")
        if matching and request.path != "/sandboxes/metrics":
            raise method_not_allowed(", ".join(sorted({method for methods in matching for method in methods})))


def _pattern(path: str) -> re.Pattern[str]:
    """A route as a pattern over percent-encoded paths."""
    return re.compile(re.sub(r"\{\w+\}", "([^/]+)", path).replace("*", ".+"))


def _choose(handlers: dict[str, H], request: Request) -> H:
    try:
        return handlers[request.method]
    except KeyError:
        raise method_not_allowed(", ".join(sorted(handlers))) from None


def _sandbox_id(segment: str) -> str:
    sandbox_id = plain_sandbox_id(unquote(segment))
    if sandbox_id is None:
        raise ControlFault(400, "invalid sandbox id: expected 'i' and 20 characters of [a-z0-9]")
    return sandbox_id
