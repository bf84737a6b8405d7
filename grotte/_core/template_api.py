"""The control plane's side of templates: one method per endpoint."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import IO
from urllib.parse import quote, urljoin

from grotte._core.api import AsyncControlPlane
from grotte._core.client import locate, open_stream
from grotte._core.exchange import Request
from grotte._core.uploads import AsyncFilePieces
from grotte._proto.failures import Context, api_failure, request_limit, transport_failure
from grotte._proto.http import split_url
from grotte._proto.templates import wire
from grotte._proto.transport_errors import TransportError
from grotte.config import ConnectionConfig, user_agent
from grotte.errors import (
    BuildException,
    FileUploadException,
    InvalidArgumentException,
    TemplateException,
)

#: How many lines of a log are asked for at once.
PAGE = 100
_UPLOAD = "PUT (the files of a template)"  # the address is a secret


class AsyncTemplatePlane(AsyncControlPlane):
    """The calls on templates, for one configuration."""

    @classmethod
    async def at(cls, config: ConnectionConfig) -> AsyncTemplatePlane:
        """The control plane of a configuration; starts the engine on this machine if it is that."""
        return cls(await locate(config))

    async def request_build(self, wanted: wire.NewBuild) -> wire.RequestedBuild:
        response = await self._call("POST", "/v3/templates", wanted, default=BuildException)
        return self._read(response, wire.RequestedBuild, "POST /v3/templates")

    async def upload_offer(self, template_id: str, digest: str) -> wire.UploadOffer:
        path = f"/templates/{quote(template_id, safe='')}/files/{digest}"
        response = await self._call("GET", path, None, default=FileUploadException)
        return self._read(response, wire.UploadOffer, "GET /templates/{id}/files/{hash}")

    async def upload(self, offer: wire.UploadOffer, archive: IO[bytes], size: int) -> None:
        """Send an archive to where the control plane wants it."""
        request = self._upload_request(offer, archive, size)
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(
                    open_stream(request, deadline=None, idle_timeout=self.config.timeout())
                )
                content = await response.aread()
            except TransportError as error:
                limit = request_limit(self.config.timeout())
                raise transport_failure(error, Context(_UPLOAD), FileUploadException, limit) from error
        if response.status >= 300:
            raise api_failure(
                response.status, content, Context(_UPLOAD), {400: FileUploadException}, FileUploadException
            )

    def _upload_request(self, offer: wire.UploadOffer, archive: IO[bytes], size: int) -> Request:
        url = urljoin(self.config.api_url.rstrip("/") + "/", offer.url or "")
        try:
            origin, target = split_url(url)
        except InvalidArgumentException:
            raise FileUploadException("the address for the upload is none", request=_UPLOAD) from None
        headers = [("User-Agent", user_agent()), *(offer.headers or {}).items()]
        if origin == split_url(self.config.api_url)[0]:
            headers += self.config.headers.items()
            headers += [("X-API-KEY", self.config.api_key)] if self.config.api_key else []
        return Request(
            "PUT",
            origin,
            target,
            headers=headers,
            body=AsyncFilePieces(archive.read),
            content_length=size,
            lane="bulk",
            proxy=self.config.proxy,
            transports=self.config.transports,
        )

    async def start_build(self, template_id: str, build_id: str, wanted: wire.BuildStart) -> None:
        path = f"/v2/templates/{quote(template_id, safe='')}/builds/{quote(build_id, safe='')}"
        await self._call("POST", path, wanted, default=BuildException)

    async def build_status(self, template_id: str, build_id: str, offset: int) -> wire.WireStatus:
        path = f"/templates/{quote(template_id, safe='')}/builds/{quote(build_id, safe='')}/status"
        query = {"logsOffset": str(offset), "limit": str(PAGE)}
        response = await self._call("GET", path, None, query=query, default=BuildException)
        return self._read(response, wire.WireStatus, "GET /templates/{id}/builds/{id}/status")

    async def has_alias(self, alias: str) -> bool:
        """Whether somebody has a template of that name."""
        path = f"/templates/aliases/{quote(alias, safe='')}"
        response = await self._call("GET", path, None, default=TemplateException, accept=(403, 404))
        return response.status != 404

    async def assign_tags(self, wanted: wire.NewTags) -> wire.AssignedTags:
        response = await self._call("POST", "/templates/tags", wanted, default=TemplateException, idempotent=True)
        return self._read(response, wire.AssignedTags, "POST /templates/tags")

    async def remove_tags(self, wanted: wire.OldTags) -> None:
        await self._call("DELETE", "/templates/tags", wanted, default=TemplateException, idempotent=True)

    async def tags(self, template: str) -> list[wire.WireTag]:
        path = f"/templates/{quote(template, safe='')}/tags"
        response = await self._call("GET", path, None, default=TemplateException)
        return self._read(response, list[wire.WireTag], "GET /templates/{id}/tags")

    async def templates(self) -> list[wire.ListedTemplate]:
        response = await self._call("GET", "/templates", None, default=TemplateException)
        return self._read(response, list[wire.ListedTemplate], "GET /templates")
