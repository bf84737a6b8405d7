"""The control plane: REST calls, each checked for its key first."""

from __future__ import annotations

from typing import Protocol

from grotte.engine.control.routes import Routes, Table
from grotte.engine.data.access import cors, preflight
from grotte.engine.faults import Fault
from grotte.engine.http import Request
from grotte.engine.lifecycle.keys import Keyring

#: All of the protocol that no area may offer: known, and then answered as not offered.
KNOWN = """
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
GET,DELETE /volumes/{volume}
GET,POST /secrets
GET,POST,DELETE /secrets/{secret}
"""


class Area(Protocol):
    """A part of the control plane."""

    def routes(self) -> Routes:
        """What it answers: ``handler(request, owner, *segments)``."""


class ControlPlane:
    """All areas behind one door.

    Args:
        keyring: Who may come in.
        areas: What there is behind it.
        keyless: Routes that check by themselves who asks; their handlers get no owner.
    """

    def __init__(self, keyring: Keyring, *areas: Area, keyless: Routes | None = None) -> None:
        self._keyring = keyring
        self._table = Table([area.routes() for area in areas], KNOWN.strip().split("\n"))
        self._keyless = Table([keyless or {}])

    def knows(self, path: str) -> bool:
        """Whether there is anything at a path, whatever the method."""
        return self._keyless.knows(path) or self._table.knows(path)

    async def serve(self, request: Request) -> None:
        """Answer one request.

        Raises:
            Fault: it ends in an error; the caller sends it.
        """
        if (answer := preflight(request)) is not None and self.knows(request.path):
            return await request.reply(204, headers=answer)
        request.always = cors(request)
        try:
            await self._serve(request)
        except Fault:
            request.always = []  # whoever answers adds it to all errors
            raise

    async def _serve(self, request: Request) -> None:
        if self._keyless.knows(request.path):
            match = self._keyless.find(request, lambda: None)
            request.route = match.template
            await match.handler(request, *match.segments)
        else:
            match = self._table.find(request, lambda: self._keyring.owner(request))
            request.route = match.template
            await match.handler(request, self._keyring.owner(request), *match.segments)
