"""The control plane's calls on volumes."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct

from grotte._core.api import AsyncControlPlane
from grotte._proto import volumes
from grotte._proto.http import Response
from grotte.errors import GrotteException, VolumeException, VolumeNotFoundException

_KINDS: dict[int, type[GrotteException]] = {400: VolumeException, 404: VolumeNotFoundException}


class AsyncVolumePlane(AsyncControlPlane):
    """The calls on volumes, for one configuration."""

    async def create_volume(self, name: str) -> volumes.Volume:
        response = await self._on_volumes("POST", "", volumes.NewVolume(name=name))
        return self._read(response, volumes.Volume, "POST /volumes")

    async def list_volumes(self) -> list[volumes.Volume]:
        return self._read(await self._on_volumes("GET", ""), list[volumes.Volume], "GET /volumes")

    async def get_volume(self, volume_id: str) -> volumes.Volume:
        response = await self._on_volumes("GET", f"/{quote(volume_id, safe='')}")
        return self._read(response, volumes.Volume, "GET /volumes/{id}")

    async def delete_volume(self, volume_id: str) -> bool:
        """Whether it was there."""
        response = await self._on_volumes("DELETE", f"/{quote(volume_id, safe='')}", accept=(404,))
        return response.status != 404

    async def _on_volumes(
        self, method: str, path: str, body: Struct | None = None, accept: tuple[int, ...] = ()
    ) -> Response:
        return await self._call(
            method,
            f"/volumes{path}",
            body,
            kinds=_KINDS,
            default=VolumeException,
            idempotent=method == "DELETE",
            accept=accept,
        )
