"""The handlers behind volumes."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from grotte.engine.control.creation import read_json
from grotte.engine.control.routes import Routes
from grotte.engine.faults import ControlFault
from grotte.engine.http import Request
from grotte.engine.lifecycle.volumes import Volume, Volumes

MAX_BODY = 64 * 1024


class VolumeSummary(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A volume as lists and answers have it."""

    volume_id: str = msgspec.field(name="volumeID")
    name: str
    token: str | None = None
    domain: str | None = None


class VolumeArea:
    """The handlers behind ``/volumes``.

    Args:
        volumes: What there is.
        domain: What clients are to put behind host names, if they are told.
    """

    def __init__(self, volumes: Volumes, domain: str | None) -> None:
        self._volumes = volumes
        self._domain = domain

    def routes(self) -> Routes:
        return {
            "GET /volumes": self.list_all,
            "POST /volumes": self.create,
            "GET /volumes/{volume}": self.get,
            "DELETE /volumes/{volume}": self.delete,
        }

    async def list_all(self, request: Request, owner: str) -> None:
        shown = [VolumeSummary(volume_id=volume.id, name=volume.name) for volume in self._volumes.all_owned(owner)]
        await request.reply_json(200, shown)

    async def create(self, request: Request, owner: str) -> None:
        name = read_json(await request.body(MAX_BODY)).get("name")
        if not isinstance(name, str):
            raise ControlFault(400, "name must be a string")
        await request.reply_json(201, self._shown(await self._volumes.create(owner, name)))

    async def get(self, request: Request, owner: str, volume: str) -> None:
        await request.reply_json(200, self._shown(self._volumes.owned(unquote(volume), owner)))

    async def delete(self, request: Request, owner: str, volume: str) -> None:
        await self._volumes.delete(self._volumes.owned(unquote(volume), owner))
        await request.reply(204)

    def _shown(self, volume: Volume) -> VolumeSummary:
        return VolumeSummary(volume_id=volume.id, name=volume.name, token=volume.token, domain=self._domain)
